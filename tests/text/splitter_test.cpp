// The splitters against PCRE2 running the published patterns, and on inputs without a reference: bytes that
// are no UTF-8, and megabytes made to send a backtracking engine back and forth.
#include "text/splitter.hpp"

#include "support/data.hpp"
#include "text/patterns.hpp"
#include "text/utf8.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#ifdef NIBBLE_HAS_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>
#endif

#include <doctest/doctest.h>

using namespace nib;
using test::append_utf8;
using test::to_utf8;

namespace {

using Words = std::vector<std::string>;

Words split(std::string_view pattern, std::string_view text) {
  const SplitPattern* known = find_split_pattern(pattern);
  REQUIRE(known);
  Words words;
  while (!text.empty()) {
    const std::size_t size = known->next(text);
    REQUIRE(size > 0);
    REQUIRE(size <= text.size());
    words.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return words;
}

}  // namespace

TEST_CASE("patterns are known by their exact text") {
  for (const std::string_view pattern : test::kAllPatterns) {
    REQUIRE(find_split_pattern(pattern));
    CHECK(find_split_pattern(std::string(pattern) + " ") == nullptr);
    CHECK(find_split_pattern(pattern.substr(1)) == nullptr);
  }
  CHECK(find_split_pattern(kGpt2Pattern) == find_split_pattern(test::kGpt2));
  CHECK(find_split_pattern("") == nullptr);
}

TEST_CASE("words by hand") {
  const auto o200k = [](std::string_view text) { return split(test::kO200k, text); };
  CHECK(o200k("Hello world") == Words{"Hello", " world"});
  CHECK(o200k("HTTPServer isn't") == Words{"HTTPServer", " isn't"});
  CHECK(o200k("camelCaseWord") == Words{"camel", "Case", "Word"});
  CHECK(o200k("it'\xc5\xbf X'RE") == Words{"it'\xc5\xbf", " X'RE"});
  CHECK(o200k("12345 6") == Words{"123", "45", " ", "6"});
  CHECK(o200k("a  b\n\n c \r\n") == Words{"a", " ", " b", "\n\n", " c", " \r\n"});
  CHECK(o200k("x = 1;\n/// y") == Words{"x", " =", " ", "1", ";\n///", " y"});
  CHECK(o200k("   ") == Words{"   "});
  // Capitals behind the last character that may be small are given back.
  CHECK(o200k(to_utf8(U"A\u4e00BC")) == Words{to_utf8(U"A\u4e00"), "BC"});
  CHECK(split(test::kLlama3, "'Sure it's 1234") == Words{"'S", "ure", " it", "'s", " ", "123", "4"});
  CHECK(split(test::kQwen2, "a12") == Words{"a", "1", "2"});
  CHECK(split(test::kGpt2, "I'm 'M 1234!\n x") == Words{"I", "'m", " '", "M", " 1234", "!", "\n", " x"});
}

TEST_CASE("a byte that is no UTF-8 is a symbol of its own") {
  CHECK(split(test::kO200k, "a\xff\xfe b") == Words{"a", "\xff\xfe", " b"});
  CHECK(split(test::kO200k, "\xe4\xb8") == Words{"\xe4\xb8"});          // cut off: two symbols, one run
  CHECK(split(test::kO200k, "\xff\xc3\xa9") == Words{"\xff\xc3\xa9"});  // as "!" before a letter
  CHECK(split(test::kO200k,
              "12\xed\xa0\x80"
              "3") == Words{"12", "\xed\xa0\x80", "3"});  // a surrogate
  std::mt19937 random(20260101);
  for (int round = 0; round < 20'000; ++round) {
    std::string text(random() % 40, '\0');
    for (char& c : text) c = static_cast<char>(random() % 3 ? random() % 256 : 0x80 + random() % 0x80);
    for (const std::string_view pattern : test::kAllPatterns) {
      std::string joined;
      for (const std::string& word : split(pattern, text)) joined += word;
      REQUIRE(joined == text);
    }
  }
}

TEST_CASE("megabytes made for backtracking are split in linear time") {
  const auto repeat = [](std::u32string_view unit, std::size_t times) {
    const std::string piece = to_utf8(unit);
    std::string text;
    for (std::size_t i = 0; i < times; ++i) text += piece;
    return text;
  };
  constexpr std::size_t kMany = 1 << 20;
  const std::string capitals = repeat(U"A", kMany), marks = repeat(U"\u0301", kMany),
                    spaces = repeat(U" ", kMany);
  for (const std::string& text :
       {capitals, marks, spaces, repeat(U"\u02b0", kMany), marks + capitals, capitals + marks + capitals,
        "\n" + spaces, spaces + "\n" + spaces + "x", repeat(U" \n", kMany), repeat(U"\u0301A", kMany),
        repeat(U"A\u4e00A", kMany), repeat(U"!\n/", kMany), repeat(U"'", kMany), repeat(U"'l", kMany),
        repeat(U" !", kMany), std::string(kMany, '\xe4')})
    for (const std::string_view pattern : test::kAllPatterns) {
      const SplitPattern& known = *find_split_pattern(pattern);
      std::string_view rest = text;
      while (!rest.empty()) rest.remove_prefix(known.next(rest));
    }
}

#ifdef NIBBLE_HAS_PCRE2
namespace {

// A published pattern in PCRE2. Only \s is rewritten: as White_Space, which is what the tokenizers' engines
// mean by it.
class Oracle {
 public:
  explicit Oracle(std::string_view pattern) {
    std::string rewritten;
    bool in_class = false;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      const std::string_view two = pattern.substr(i, 2);
      if (two == "\\s" || two == "\\S") {
        const std::string set = R"(\x{9}-\x{d} \x{85}\p{Z})";
        rewritten += in_class ? set : (two == "\\s" ? "[" : "[^") + set + "]";
        ++i;
      } else if (pattern[i] == '\\') {
        rewritten += two;
        ++i;
      } else {
        if (pattern[i] == '[') in_class = true;
        if (pattern[i] == ']') in_class = false;
        rewritten += pattern[i];
      }
    }
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rewritten.data()), rewritten.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    REQUIRE(code_);
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // only for speed: without it the interpreter runs
    data_ = pcre2_match_data_create_from_pattern(code_, nullptr);
    context_ = pcre2_match_context_create(nullptr);
    pcre2_set_match_limit(context_, 100'000'000);
    pcre2_set_depth_limit(context_, 100'000'000);
  }
  ~Oracle() {
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
    pcre2_code_free(code_);
  }
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;

  // Where the first match from `at` begins and ends, or {size, size}.
  std::pair<std::size_t, std::size_t> match(std::string_view text, std::size_t at) const {
    const int count = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, data_, context_);
    if (count == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
    REQUIRE(count > 0);
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data_);
    return {range[0], range[1]};
  }

  // Matches, and what lies between them: Split with behavior Isolated.
  Words split(std::string_view text) const {
    Words words;
    for (std::size_t at = 0; at < text.size();) {
      const auto [begin, end] = match(text, at);
      if (begin > at) words.emplace_back(text.substr(at, begin - at));
      if (end > begin) words.emplace_back(text.substr(begin, end - begin));
      at = end;
    }
    return words;
  }

 private:
  pcre2_code* code_;
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

void compare(const Oracle& oracle, std::string_view pattern, const std::string& text) {
  const SplitPattern& known = *find_split_pattern(pattern);
  std::size_t at = 0;
  bool same = true;
  while (at < text.size() && same) {
    const auto [begin, end] = oracle.match(text, at);
    same = begin == at && at + known.next(std::string_view(text).substr(at)) == end;
    at = end;
  }
  if (!same) CHECK_MESSAGE(split(pattern, text) == oracle.split(text), pattern);
  REQUIRE(same);
}

// Characters that PCRE2 and utf8proc both know, as the same category: either's Unicode may be the older one.
// Few are known to both and differ.
std::vector<char32_t> known_characters() {
  std::map<std::string, Oracle> of_category;
  const Oracle unassigned(R"(\p{Cn})");
  std::vector<char32_t> known;
  int differ = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    const std::string category = utf8proc_category_string(static_cast<utf8proc_int32_t>(c));
    std::string text;
    append_utf8(c, text);
    if (category == "Cn" || unassigned.match(text, 0).first == 0) continue;
    const Oracle& same = of_category.try_emplace(category, "\\p{" + category + "}").first->second;
    if (same.match(text, 0).first == 0)
      known.push_back(c);
    else
      ++differ;
  }
  REQUIRE(differ < 100);
  return known;
}

}  // namespace

TEST_CASE("slow: every character between others splits as PCRE2 does") {
  const std::vector<char32_t> characters = known_characters();
  REQUIRE(characters.size() > 200'000);
  for (const std::string_view pattern : test::kAllPatterns) {
    const Oracle oracle(pattern);
    for (const char32_t c : characters)
      for (const std::u32string& around :
           {std::u32string{c, U'a', c, U'A', c, U'1', c, U' ', c, c, U'!', c},
            std::u32string{U'A', c, U'A', U'\'', c, U'\'', U'l', c, U'\n', c, U'/'}})
        compare(oracle, pattern, to_utf8(around));
  }
}

TEST_CASE("slow: all short strings over one character of each kind split as PCRE2 does") {
  constexpr char32_t kKinds[] = {U'A', U's',  U'\u02b0', U'\u4e00', U'\u0301', U'7',
                                 U' ', U'\n', U'\'',     U'/',      U'\u00a0'};
  constexpr std::size_t kCount = std::size(kKinds);
  for (const std::string_view pattern : test::kAllPatterns) {
    const Oracle oracle(pattern);
    for (std::size_t length = 1; length <= 5; ++length) {
      std::size_t strings = 1;
      for (std::size_t i = 0; i < length; ++i) strings *= kCount;
      for (std::size_t number = 0; number < strings; ++number) {
        std::string text;
        for (std::size_t i = 0, rest = number; i < length; ++i, rest /= kCount)
          append_utf8(kKinds[rest % kCount], text);
        compare(oracle, pattern, text);
      }
    }
  }
}

TEST_CASE("slow: random strings split as PCRE2 does") {
  const std::vector<char32_t> characters = known_characters();
  const std::u32string hard =
      U"AaBbSsTtRrEeVvMmLlDd''''    "
      U"\t\r\n\n//!?-_.019\u0085\u00a0\u00e9\u00c9\u017f\u01c5\u02b0\u0301\u0300\u0903"
      U"\u05d0\u0661\u2160\u2003\u2028\u3000\u180e\u200d\u212a\ufeff\u4e00\u3042\u30fc\U00010400\U00010428"
      U"\U0001d7d8"
      U"\U0001f600\U0001f3fb\U000e0100";
  std::mt19937 random(20260102);
  for (int round = 0; round < 300'000; ++round) {
    const std::size_t length = 1 + random() % 24;
    const auto any = random() % 3 == 0 ? 4u : 40u;  // one in so many is any character at all
    // Few different ones make long runs and many repeats.
    char32_t palette[6];
    for (char32_t& c : palette)
      c = random() % any == 0 ? characters[random() % characters.size()] : hard[random() % hard.size()];
    std::string text;
    for (std::size_t i = 0; i < length; ++i)
      append_utf8(random() % 4 ? palette[random() % 6] : hard[random() % hard.size()], text);
    const std::string_view pattern =
        test::kAllPatterns[round % 2 ? 0 : random() % std::size(test::kAllPatterns)];
    static const Oracle oracles[] = {Oracle(test::kO200k), Oracle(test::kLlama3), Oracle(test::kQwen2),
                                     Oracle(test::kGpt2), Oracle(test::kTekken)};
    const auto which = std::find(std::begin(test::kAllPatterns), std::end(test::kAllPatterns), pattern);
    compare(oracles[which - std::begin(test::kAllPatterns)], pattern, text);
  }
}
#else
TEST_CASE("the splitters against PCRE2") { MESSAGE("skipped: PCRE2 was not found when this was built"); }
#endif
