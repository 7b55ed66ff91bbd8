// Words stay whole at the edge of a terminal, in whatever pieces they come.
#include "word_wrap.hpp"

#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace nib::program {
namespace {

std::string wrapped(std::string_view text, int width, unsigned seed = 0) {
  WordWrap wrap(width);
  std::mt19937 random(seed);
  std::string out;
  while (!text.empty()) {
    // Pieces are whole characters; the texts here are cut at ASCII only.
    std::size_t size = std::min<std::size_t>(seed ? 1 + random() % 7 : text.size(), text.size());
    while (size < text.size() && (text[size] & 0xc0) == 0x80) ++size;
    out += wrap.push(text.substr(0, size));
    text.remove_prefix(size);
  }
  return out + wrap.finish();
}

TEST_CASE("lines break between words") {
  CHECK(wrapped("one two three", 7) == "one two\nthree");
  CHECK(wrapped("one two three", 8) == "one two\nthree");
  CHECK(wrapped("one two three", 13) == "one two three");
  CHECK(wrapped("one  two\n\nthree four", 10) == "one  two\n\nthree four");
  CHECK(wrapped("incomprehensible word", 5) == "incomprehensible\nword");
  CHECK(wrapped("gr\xc3\xbc\xc3\x9f"
                "e ab",
                8) ==
        "gr\xc3\xbc\xc3\x9f"
        "e ab");
  CHECK(wrapped("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 4) == "\xe6\x97\xa5\xe6\x9c\xac\n\xe8\xaa\x9e");
  CHECK(wrapped("one two three", 0) == "one two three");
}

TEST_CASE("code is left as it is") {
  const std::string fenced = "```c\nint a long line of code;\n```\n";
  CHECK(wrapped(fenced + "one two three", 7) == fenced + "one two\nthree");
  const std::string indented = "    return a long line;\n";
  CHECK(wrapped(indented + "one two three", 7) == indented + "one two\nthree");
  CHECK(wrapped("| a | table | row |", 7) == "| a | table | row |");
}

TEST_CASE("random texts: no line is too wide, no word is lost, and pieces do not matter") {
  std::mt19937 random(3);
  for (unsigned round = 1; round <= 200; ++round) {
    std::string text;
    std::string words;
    for (int i = 0; i < 60; ++i) {
      std::string word(1 + random() % 9, static_cast<char>('a' + random() % 26));
      words += word;
      text += word + (random() % 12 == 0 ? "\n" : " ");
    }
    const int width = 9 + static_cast<int>(random() % 60);
    const std::string out = wrapped(text, width, round);
    CHECK(out == wrapped(text, width));
    std::string kept;
    int column = 0;
    for (const char c : out) {
      column = c == '\n' ? 0 : column + 1;
      CHECK(column <= width);
      if (c != '\n' && c != ' ') kept += c;
    }
    CHECK(kept == words);
  }
}

}  // namespace
}  // namespace nib::program
