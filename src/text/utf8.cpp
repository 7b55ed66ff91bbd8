#include <nibble/text/utf8.hpp>

namespace nib::inline v0 {

Utf8Step step_utf8(std::string_view text) {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) return {Kind::character, 1, first};
  // Length, and the range of the second byte, by the first (Unicode 15, table 3-7).
  std::uint8_t length = 0, low = 0x80, high = 0xbf;
  if (first >= 0xc2 && first <= 0xdf) {
    length = 2;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    return {Kind::invalid, 1};
  }
  char32_t code_point = first & (0x7fu >> length);
  for (std::uint8_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Kind::unfinished, i};
    if (byte(i) < low || byte(i) > high) return {Kind::invalid, i};
    code_point = code_point << 6 | (byte(i) & 0x3fu);
    low = 0x80;
    high = 0xbf;
  }
  return {Kind::character, length, code_point};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    if (step.kind != Utf8Step::Kind::character) return false;
    text.remove_prefix(step.length);
  }
  return true;
}

}  // namespace nib::inline v0
