// Text as it comes: whole characters only, and the same text wherever it is cut.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"
#include <nibble/text/utf8.hpp>

#include <random>
#include <string>

#include <doctest/doctest.h>

using namespace nib;
using test::SeededTokenizer;

namespace {

const std::string kFffd = "\xef\xbf\xbd";

// The definition: at each place the longest prefix of a well-formed character (Unicode, table 3-7); one that
// is not whole is replaced once; a byte that begins none is replaced alone.
std::string replaced(std::string_view bytes) {
  const auto in = [](char c, int low, int high) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= low && byte <= high;
  };
  struct Row {
    int first_low, first_high, second_low, second_high;
    std::size_t length;
  };
  constexpr Row kTable[] = {
      {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
      {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
      {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
  std::string out;
  while (!bytes.empty()) {
    std::size_t length = 1, whole = 0;
    for (const Row& row : kTable) {
      if (!in(bytes[0], row.first_low, row.first_high)) continue;
      whole = row.length;
      while (length < whole && length < bytes.size() &&
             (length == 1 ? in(bytes[1], row.second_low, row.second_high) : in(bytes[length], 0x80, 0xbf)))
        ++length;
    }
    out += length == whole ? std::string(bytes.substr(0, length)) : kFffd;
    bytes.remove_prefix(length);
  }
  return out;
}

bool whole_characters(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    if (step.kind != Utf8Step::Kind::character) return false;
    text.remove_prefix(step.length);
  }
  return true;
}

}  // namespace

TEST_CASE("damaged text is replaced as Python and browsers do") {
  const Tokenizer tokenizer = SeededTokenizer(1, "ab", 5).open();
  // bytes.decode(errors="replace") of Python 3.11, by hand.
  const std::pair<std::string, std::string> table[] = {
      {"abc", "abc"},
      {"\xe2\x82\xac", "\xe2\x82\xac"},
      {"\x80", kFffd},
      {"\xc0\xaf", kFffd + kFffd},
      {"\xe0\x80\xaf", kFffd + kFffd + kFffd},
      {"\xed\xa0\x80", kFffd + kFffd + kFffd},
      {"\xf0\x80\x80\xaf", kFffd + kFffd + kFffd + kFffd},
      {"\xf1\x80\x80\xe1\x80\xc2", kFffd + kFffd + kFffd},
      {"a\xf1\x80\x80\xe1\x80\xc2"
       "b\x80"
       "c\x80\xbf"
       "d",
       "a" + kFffd + kFffd + kFffd + "b" + kFffd + "c" + kFffd + kFffd + "d"},
      {"\xf4\x90\x80\x80", kFffd + kFffd + kFffd + kFffd},
      {"\xf5\x80", kFffd + kFffd},
      {"\xe2\x82", kFffd},
      {"\xf0\x9f\x98", kFffd},
      {"\xf0\x9f\x98"
       "A",
       kFffd + "A"},
      {"\xff\xfe", kFffd + kFffd},
  };
  for (const auto& [bytes, expected] : table) {
    CHECK(replaced(bytes) == expected);
    for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
      StreamDecoder decoder(tokenizer);
      std::string text;
      decoder.push_bytes(std::string_view(bytes).substr(0, cut), text);
      CHECK(whole_characters(text));
      decoder.push_bytes(std::string_view(bytes).substr(cut), text);
      CHECK(whole_characters(text));
      decoder.finish(text);
      CHECK(text == expected);
    }
  }
}

TEST_CASE("characters come out with their last byte, not earlier and not later") {
  const Tokenizer tokenizer = SeededTokenizer(1, "ab", 5).open();
  const std::string text = test::to_utf8(U"a\u00e9\u20ac\U0001f600z");
  StreamDecoder decoder(tokenizer);
  std::string out;
  std::size_t whole = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    decoder.push_bytes(std::string_view(text).substr(i, 1), out);
    const bool last_byte = i + 1 == text.size() || (text[i + 1] & 0xc0) != 0x80;
    if (last_byte) whole = i + 1;
    CHECK(out == text.substr(0, whole));
  }
}

TEST_CASE("random bytes: pieces, all ids at once, and the definition agree") {
  SeededTokenizer tiny(3, "\xf0\x9f\x98\x80\xe2\x82\xac", 40);
  tiny.added = {"<|end|>", "<|\xe4\xb8\xad|>"};
  const Tokenizer tokenizer = tiny.open();
  std::mt19937 random(20260103);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 20, '\0');
    for (char& c : bytes) {
      constexpr unsigned char kTelling[] = {0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                            0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                                            0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
      c = static_cast<char>(kTelling[random() % sizeof kTelling]);
    }
    const std::string expected = replaced(bytes);
    StreamDecoder by_bytes(tokenizer), by_ids(tokenizer), with_specials(tokenizer, Specials::recognised);
    std::string from_bytes, from_ids, spelled;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = std::min<std::size_t>(1 + random() % 4, bytes.size() - at);
      by_bytes.push_bytes(std::string_view(bytes).substr(at, size), from_bytes);
      REQUIRE(whole_characters(from_bytes));
      at += size;
    }
    by_bytes.finish(from_bytes);
    CHECK(from_bytes == expected);

    std::vector<Token> ids = test::encode(tokenizer, bytes);
    CHECK(tokenizer.decode(ids, Specials::ordinary) == expected);
    std::string raw;
    for (const Token id : ids) raw += tokenizer.bytes(id);
    CHECK(raw == bytes);

    // A special token in between: left out, the text is as if it had not been there; spelled out, it is
    // bytes.
    const Token special = static_cast<Token>(tiny.vocabulary.size() + random() % 2);
    const std::size_t where = random() % (ids.size() + 1);
    ids.insert(ids.begin() + static_cast<std::ptrdiff_t>(where), special);
    for (const Token id : ids) {
      by_ids.push(id, from_ids);
      with_specials.push(id, spelled);
      REQUIRE(whole_characters(from_ids));
      REQUIRE(whole_characters(spelled));
    }
    by_ids.finish(from_ids);
    with_specials.finish(spelled);
    CHECK(from_ids == expected);
    CHECK(tokenizer.decode(ids, Specials::ordinary) == expected);
    raw.clear();
    for (const Token id : ids) raw += tokenizer.bytes(id);
    CHECK(spelled == replaced(raw));
    CHECK(tokenizer.decode(ids, Specials::recognised) == spelled);
  }
}

TEST_CASE("a decoder can be used again after its end, and unknown ids are nothing") {
  const Tokenizer tokenizer = SeededTokenizer(1, "ab", 5).open();
  StreamDecoder decoder(tokenizer);
  std::string text;
  decoder.push_bytes("\xe2", text);
  decoder.finish(text);
  decoder.push_bytes("\x82x", text);
  decoder.push(static_cast<Token>(tokenizer.size()), text);
  decoder.push(~Token{0}, text);
  decoder.finish(text);
  CHECK(text == kFffd + kFffd + "x");
}
