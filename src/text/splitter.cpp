// The published patterns, each alternative worked out for where a backtracking engine's search ends, so that
// every character is looked at a bounded number of times. With C = (?i:'s|'t|'re|'ve|'m|'ll|'d), P =
// [^\r\n\p{L}\p{N}], S = [^\s\p{L}\p{N}]:
//
//   o200k                  Llama 3 and Qwen 2            GPT-2
//   P? U* W+ C?            C                             C without (?i:)
//   P? U+ W* C?            P?\p{L}+                       ?\p{L}+
//   \p{N}{1,3}             \p{N}{1,3}, Qwen 2: \p{N}      ?\p{N}+
//    ?S+[\r\n/]*           ?S+[\r\n]*                   ?S+
//   \s*[\r\n]+             \s*[\r\n]+
//   \s+(?!\S)              \s+(?!\S)                     \s+(?!\S)
//   \s+                    \s+                           \s+
//
// (Tekken is o200k without C? and with \p{N} for \p{N}{1,3}),
// where U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and W = [\p{Ll}\p{Lm}\p{Lo}\p{M}] share Lm, Lo and M. Each
// pattern has an alternative for every character, so words tile the text.
#include "splitter.hpp"

#include <nibble/text/utf8.hpp>

#include <array>
#include <cstdint>

#include <utf8proc.h>

namespace nib::inline v0 {
namespace {

// What a character is to the patterns; sets of them are sums.
enum Kind : std::uint8_t {
  kUpper = 1,     // Lu, Lt: in U only
  kLower = 2,     // Ll: in W only
  kCaseless = 4,  // Lm, Lo: in both
  kMark = 8,      // M: in both, and no letter
  kNumber = 16,
  kSpace = 32,    // White_Space but for line ends
  kLineEnd = 64,  // CR, LF
  kSymbol = 128,  // all others
};
constexpr std::uint8_t kLetter = kUpper | kLower | kCaseless;
constexpr std::uint8_t kCaselessOrMark = kCaseless | kMark;
constexpr std::uint8_t kU = kUpper | kCaselessOrMark, kW = kLower | kCaselessOrMark;
constexpr std::uint8_t kPrefix = kMark | kSpace | kSymbol;  // P
constexpr std::uint8_t kSymbolOrMark = kSymbol | kMark;     // [^\s\p{L}\p{N}]
constexpr std::uint8_t kWhite = kSpace | kLineEnd;

constexpr std::array<std::uint8_t, 128> make_ascii_kinds() {
  std::array<std::uint8_t, 128> kinds{};
  for (std::size_t c = 0; c < 128; ++c) {
    const bool white = (c >= '\t' && c <= '\r') || c == ' ';
    kinds[c] = c == '\r' || c == '\n' ? kLineEnd
               : white                ? kSpace
               : c >= 'A' && c <= 'Z' ? kUpper
               : c >= 'a' && c <= 'z' ? kLower
               : c >= '0' && c <= '9' ? kNumber
                                      : kSymbol;
  }
  return kinds;
}
constexpr auto kAsciiKinds = make_ascii_kinds();

// Of a character beyond ASCII.
std::uint8_t kind_of(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kUpper;
    case UTF8PROC_CATEGORY_LL:
      return kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kCaseless;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return kSpace;
    default:
      return c == 0x85 ? kSpace : kSymbol;  // NEL, the one white space beyond ASCII that is no separator
  }
}

// A position in the text and what stands there.
class Cursor {
 public:
  explicit Cursor(std::string_view text, std::size_t at = 0) : text_(text), at_(at) { look(); }

  std::size_t at() const { return at_; }
  bool at_end() const { return length_ == 0; }
  bool is(std::uint8_t kinds) const { return (kind_ & kinds) != 0; }  // no kind is at the end
  bool is_byte(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void next() {
    at_ += length_;
    look();
  }
  void skip(std::uint8_t kinds) {
    while (is(kinds)) next();
  }

 private:
  void look() {
    kind_ = length_ = 0;
    if (at_ == text_.size()) return;
    length_ = 1;
    if (const auto byte = static_cast<std::uint8_t>(text_[at_]); byte < 0x80) {
      kind_ = kAsciiKinds[byte];
      return;
    }
    const Utf8Step step = step_utf8(text_.substr(at_));
    kind_ = kSymbol;
    if (step.kind != Utf8Step::Kind::character) return;  // one byte of it
    length_ = step.length;
    kind_ = kind_of(step.code_point);
  }

  std::string_view text_;
  std::size_t at_;
  std::uint8_t kind_ = 0, length_ = 0;
};

// Alternatives: the end of the match from the beginning of `text` (or from `at`), or 0 for none.
// -------------------

// 's|'t|'re|'ve|'m|'ll|'d: its length at `at`, or 0.
std::size_t contraction(std::string_view text, std::size_t at, bool any_case) {
  if (at + 1 >= text.size() || text[at] != '\'') return 0;
  const auto letter = [&](std::size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  };
  const char first = letter(at + 1), second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l')) return 3;
  constexpr std::string_view kLongS =
      "\xc5\xbf";  // U+017F, which folds to s; no other character folds to one of these
  return any_case && text.substr(at + 1, 2) == kLongS ? 3 : 0;
}

// U* W+. U* first takes the whole run of U. If no W follows, it gives back up to the last character that is
// also in W; behind that one stand characters of U alone, so W+ takes just it.
std::size_t upper_then_lower(std::string_view text, std::size_t at) {
  Cursor cursor(text, at);
  std::size_t behind_shared = 0;
  while (cursor.is(kU)) {
    const bool shared = cursor.is(kCaselessOrMark);
    cursor.next();
    if (shared) behind_shared = cursor.at();
  }
  if (!cursor.is(kW)) return behind_shared;
  cursor.skip(kW);
  return cursor.at();
}

// U+ W*.
std::size_t upper_run(std::string_view text, std::size_t at) {
  Cursor cursor(text, at);
  if (!cursor.is(kU)) return 0;
  cursor.skip(kU);
  cursor.skip(kW);
  return cursor.at();
}

// P? U* W+ C? | P? U+ W* C?, each first with the prefix and then without. C? only with `contractions`.
std::size_t cased_word(std::string_view text, bool contractions) {
  Cursor cursor(text);
  if (cursor.is(kNumber | kLineEnd)) return 0;
  const bool prefixed = cursor.is(kPrefix);
  if (prefixed) cursor.next();
  const std::size_t behind_prefix = cursor.at();
  for (const auto body : {upper_then_lower, upper_run}) {
    std::size_t end = prefixed ? body(text, behind_prefix) : 0;
    if (end == 0) end = body(text, 0);
    if (end != 0) return contractions ? end + contraction(text, end, true) : end;
  }
  return 0;
}

// An optional space and at least one of `body`, which has no space.
std::size_t run_of(std::string_view text, std::uint8_t body) {
  Cursor cursor(text);
  if (cursor.is_byte(' ')) cursor.next();
  if (!cursor.is(body)) return 0;
  cursor.skip(body);
  return cursor.at();
}

// P?\p{L}+.
std::size_t word(std::string_view text) {
  Cursor cursor(text);
  if (cursor.is(kPrefix)) cursor.next();
  if (!cursor.is(kLetter)) return 0;
  cursor.skip(kLetter);
  return cursor.at();
}

// \p{N}{1,most}.
std::size_t number(std::string_view text, int most) {
  Cursor cursor(text);
  for (int i = 0; i < most && cursor.is(kNumber); ++i) cursor.next();
  return cursor.at();
}

// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, with '/' among the last if `slashes`.
std::size_t symbols(std::string_view text, bool slashes) {
  const std::size_t end = run_of(text, kSymbolOrMark);
  if (end == 0) return 0;
  Cursor cursor(text, end);
  while (cursor.is(kLineEnd) || (slashes && cursor.is_byte('/'))) cursor.next();
  return cursor.at();
}

// \s+(?!\S)|\s+ on a run of white space: all of it at the end of the text, all but the last character before
// others (which then leads the next word), that character if it is the only one. With `line_ends`, \s*[\r\n]+
// goes first: up to the last line end of the run, if it has any.
std::size_t spaces(std::string_view text, bool line_ends) {
  Cursor cursor(text);
  std::size_t last = 0, behind_line_end = 0;
  while (cursor.is(kWhite)) {
    last = cursor.at();
    const bool line_end = cursor.is(kLineEnd);
    cursor.next();
    if (line_end) behind_line_end = cursor.at();
  }
  if (line_ends && behind_line_end != 0) return behind_line_end;
  return cursor.at_end() || last == 0 ? cursor.at() : last;
}

// Patterns

template <bool kContractions, int kDigits>
std::size_t next_o200k(std::string_view text) {
  if (const std::size_t end = cased_word(text, kContractions)) return end;
  if (const std::size_t end = number(text, kDigits)) return end;
  if (const std::size_t end = symbols(text, true)) return end;
  return spaces(text, true);
}

template <int kDigits>
std::size_t next_llama3(std::string_view text) {
  if (const std::size_t end = contraction(text, 0, true)) return end;
  if (const std::size_t end = word(text)) return end;
  if (const std::size_t end = number(text, kDigits)) return end;
  if (const std::size_t end = symbols(text, false)) return end;
  return spaces(text, true);
}

std::size_t next_gpt2(std::string_view text) {
  if (const std::size_t end = contraction(text, 0, false)) return end;
  for (const std::uint8_t body : {kLetter, std::uint8_t{kNumber}, kSymbolOrMark})
    if (const std::size_t end = run_of(text, body)) return end;
  return spaces(text, false);
}

}  // namespace

std::span<const SplitPattern> split_patterns() {
  static constexpr SplitPattern kPatterns[] = {
      {"o200k",
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
       R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       next_o200k<true, 3>},
      {"Tekken",
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
       R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       next_o200k<false, 1>},
      {"Llama 3",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
       R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
       next_llama3<3>},
      {"Qwen 2",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
       R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
       next_llama3<1>},
      {"GPT-2", kGpt2Pattern, next_gpt2},
  };
  return kPatterns;
}

const SplitPattern* find_split_pattern(std::string_view regex) {
  for (const SplitPattern& pattern : split_patterns())
    if (pattern.regex == regex) return &pattern;
  return nullptr;
}

}  // namespace nib::inline v0
