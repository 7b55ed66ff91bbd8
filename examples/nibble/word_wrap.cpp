#include "word_wrap.hpp"

#include <algorithm>

namespace nib::program {
namespace {

constexpr std::string_view kFence = "```";
constexpr std::string_view kIndent = "    ";

// Bytes of the character that begins with this one.
std::size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// From the scripts of East Asia on, characters are two columns wide and words have no spaces between them.
bool is_wide(std::string_view character) { return character >= "\xe2\xba\x80"; }

}  // namespace

std::string WordWrap::push(std::string_view text) {
  if (width_ <= 0) return std::string(text);
  std::string out;
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_bytes(text.front()));
    take(character, out);
    text.remove_prefix(character.size());
  }
  return out;
}

std::string WordWrap::finish() {
  std::string out;
  end_word(out);
  column_ = 0;
  end_line();
  in_fence_ = false;
  return out;
}

void WordWrap::take(std::string_view character, std::string& out) {
  if (character == "\n") {
    end_word(out);
    spaces_.clear();
    out += '\n';
    column_ = 0;
    return end_line();
  }
  if (line_start_.size() < kIndent.size()) line_start_ += character;
  if (is_code()) {
    end_word(out);
    out += character;
    ++column_;
  } else if (character == " ") {
    end_word(out);
    spaces_ += ' ';
  } else if (is_wide(character)) {
    end_word(out);
    word_ = character;
    word_columns_ = 2;
    end_word(out);
  } else {
    word_ += character;
    ++word_columns_;
  }
}

void WordWrap::end_word(std::string& out) {
  if (word_.empty() && !is_code()) return;
  const int spaces = static_cast<int>(spaces_.size());
  if (column_ > 0 && column_ + spaces + word_columns_ > width_ && !is_code()) {
    out += '\n';
    column_ = 0;
  } else {
    out += spaces_;
    column_ += spaces;
  }
  out += word_;
  column_ += word_columns_;
  spaces_.clear();
  word_.clear();
  word_columns_ = 0;
}

void WordWrap::end_line() {
  if (line_start_.starts_with(kFence)) in_fence_ = !in_fence_;
  line_start_.clear();
}

bool WordWrap::is_code() const {
  return in_fence_ || line_start_.starts_with(kFence) || line_start_.starts_with('\t') ||
         line_start_.starts_with('|') || line_start_.starts_with(kIndent);
}

}  // namespace nib::program
