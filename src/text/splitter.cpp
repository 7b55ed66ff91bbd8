// The o200k pattern, alternative by alternative:
//   1  P? U* W+ C?      2  P? U+ W* C?      with P = [^\r\n\p{L}\p{N}],  C = (?i:'s|'t|'re|'ve|'m|'ll|'d)
//   3  \p{N}{1,3}                                U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
//   4   ?[^\s\p{L}\p{N}]+[\r\n/]*                W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
//   5  \s*[\r\n]+       6  \s+(?!\S)       7  \s+
// U and W share Lm, Lo and M, which is where a regex engine backtracks. Each alternative is worked out here
// for where its backtracking ends, so that every character is looked at a bounded number of times.
#include "splitter.hpp"

#include <nibble/text/utf8.hpp>

#include <array>
#include <cstdint>

#include <utf8proc.h>

namespace nib::inline v0 {
namespace {

enum Class : std::uint8_t {
  kUpper = 1,     // Lu, Lt: in U only
  kLower = 2,     // Ll: in W only
  kBoth = 4,      // Lm, Lo: in U and W
  kMark = 8,      // M: in U and W, and no letter
  kNumber = 16,   // N
  kSpace = 32,    // White_Space but for line ends
  kLineEnd = 64,  // CR, LF
  kOther = 128,
};
constexpr std::uint8_t kU = kUpper | kBoth | kMark, kW = kLower | kBoth | kMark;
constexpr std::uint8_t kBoundary = kBoth | kMark;  // in U and in W
constexpr std::uint8_t kPrefix = kMark | kSpace | kOther;
constexpr std::uint8_t kSymbol = kMark | kOther;
constexpr std::uint8_t kWhite = kSpace | kLineEnd;

std::uint8_t class_of(char32_t c) {
  if (c == '\r' || c == '\n') return kLineEnd;
  if ((c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
      (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000)
    return kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kUpper;
    case UTF8PROC_CATEGORY_LL:
      return kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kBoth;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    default:
      return kOther;
  }
}

constexpr std::array<std::uint8_t, 128> ascii_classes() {
  std::array<std::uint8_t, 128> table{};
  for (unsigned c = 0; c < 128; ++c)
    table[c] = c == '\r' || c == '\n'                  ? kLineEnd
               : (c >= 0x09 && c <= 0x0d) || c == 0x20 ? kSpace
               : c >= 'A' && c <= 'Z'                  ? kUpper
               : c >= 'a' && c <= 'z'                  ? kLower
               : c >= '0' && c <= '9'                  ? kNumber
                                                       : kOther;
  return table;
}
constexpr auto kAscii = ascii_classes();

struct Char {
  std::uint8_t kind;  // 0 at the end of the text
  std::uint8_t length;
};

// A position in the text and what stands there.
class Cursor {
 public:
  explicit Cursor(std::string_view text, std::size_t at = 0) : text_(text), at_(at) { look(); }
  std::size_t at() const { return at_; }
  bool is(std::uint8_t classes) const { return (here_.kind & classes) != 0; }
  bool is_byte(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void next() {
    at_ += here_.length;
    look();
  }
  void skip(std::uint8_t classes) {
    while (is(classes)) next();
  }

 private:
  void look() {
    if (at_ >= text_.size()) {
      here_ = {0, 0};
      return;
    }
    const auto byte = static_cast<std::uint8_t>(text_[at_]);
    if (byte < 0x80) {
      here_ = {kAscii[byte], 1};
      return;
    }
    const Utf8Step step = step_utf8(text_.substr(at_));
    here_ = step.kind == Utf8Step::Kind::character ? Char{class_of(step.code_point), step.length}
                                                   : Char{kOther, 1};
  }
  std::string_view text_;
  std::size_t at_;
  Char here_{};
};

// C at `at`: its length, or 0. The long s (U+017F) folds to s.
std::size_t contraction(std::string_view text, std::size_t at) {
  if (at + 1 >= text.size() || text[at] != '\'') return 0;
  const auto lower = [&](std::size_t i) {
    return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0';
  };
  const char first = lower(at + 1), second = lower(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l'))
    return 3;
  return text.substr(at + 1, 2) == "\xc5\xbf" ? 3 : 0;
}

// U* W+ from `at`: the end, or 0. U* first takes the whole run of U. If no W follows, it gives back up to the
// last character that is also in W; what stood behind that one is in U alone, so W+ ends right there.
std::size_t upper_then_lower(std::string_view text, std::size_t at) {
  Cursor cursor(text, at);
  std::size_t given_back = 0;
  while (cursor.is(kU)) {
    const bool boundary = cursor.is(kBoundary);
    cursor.next();
    if (boundary) given_back = cursor.at();
  }
  if (!cursor.is(kW)) return given_back;
  cursor.skip(kW);
  return cursor.at();
}

// U+ W* from `at`: the end, or 0.
std::size_t upper_run(std::string_view text, std::size_t at) {
  Cursor cursor(text, at);
  if (!cursor.is(kU)) return 0;
  cursor.skip(kU);
  cursor.skip(kW);
  return cursor.at();
}

// Alternatives 1 and 2, each first with the prefix and then without.
std::size_t letters(std::string_view text) {
  Cursor cursor(text);
  const bool prefixed = cursor.is(kPrefix);
  std::size_t behind = 0;
  if (prefixed) {
    cursor.next();
    behind = cursor.at();
  }
  for (const auto part : {upper_then_lower, upper_run}) {
    std::size_t end = prefixed ? part(text, behind) : 0;
    if (end == 0) end = part(text, 0);
    if (end != 0) return end + contraction(text, end);
  }
  return 0;
}

std::size_t symbols(std::string_view text) {
  Cursor cursor(text);
  if (cursor.is_byte(' ')) cursor.next();
  if (!cursor.is(kSymbol)) return 0;
  cursor.skip(kSymbol);
  while (cursor.is(kLineEnd) || cursor.is_byte('/')) cursor.next();
  return cursor.at();
}

// Alternatives 5, 6 and 7 on a run of white space.
std::size_t spaces(std::string_view text) {
  Cursor cursor(text);
  std::size_t behind_line_end = 0, before_last = 0;
  while (cursor.is(kWhite)) {
    before_last = cursor.at();
    const bool line_end = cursor.is(kLineEnd);
    cursor.next();
    if (line_end) behind_line_end = cursor.at();
  }
  if (behind_line_end != 0) return behind_line_end;
  const bool at_end = cursor.at() == text.size();
  return at_end || before_last == 0 ? cursor.at() : before_last;
}

}  // namespace

std::size_t next_word_o200k(std::string_view text) {
  if (const std::size_t end = letters(text)) return end;
  Cursor cursor(text);
  if (cursor.is(kNumber)) {
    for (int i = 0; i < 3 && cursor.is(kNumber); ++i) cursor.next();
    return cursor.at();
  }
  if (const std::size_t end = symbols(text)) return end;
  return spaces(text);
}

const SplitPattern* find_split_pattern(std::string_view regex) {
  static constexpr SplitPattern kPatterns[] = {
      {"o200k",
       "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'"
       "re|'ve|'m|'ll|'d)?|"
       "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'"
       "re|'ve|'m|'ll|'d)?|"
       "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
       next_word_o200k}};
  for (const SplitPattern& pattern : kPatterns)
    if (pattern.regex == regex) return &pattern;
  return nullptr;
}

}  // namespace nib::inline v0
