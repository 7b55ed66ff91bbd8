// A template's source to words, with the white space around tags taken as jinja2 takes it under trim_blocks
// and lstrip_blocks.
#include "template_program.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

using Word = TemplateWord;
using Kind = TemplateWord::Kind;

constexpr std::size_t kLongestSource = std::size_t{1} << 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

void append_character(char32_t c, std::string& out) {
  const auto byte = [&](char32_t value) { out += static_cast<char>(static_cast<unsigned char>(value)); };
  if (c < 0x80) return byte(c);
  if (c < 0x800) {
    byte(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      byte(0xe0 | c >> 12);
    } else {
      byte(0xf0 | c >> 18);
      byte(0x80 | (c >> 12 & 0x3f));
    }
    byte(0x80 | (c >> 6 & 0x3f));
  }
  byte(0x80 | (c & 0x3f));
}

class Reader {
 public:
  Reader(std::string_view source, std::string_view name) : name_(name) {
    // Line ends of all kinds are one, and the last one of the source is none.
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
    rest_ = source_;
  }

  Result<std::vector<Word>> read() {
    while (true) {
      const std::size_t tag = next_tag();
      std::string_view text = rest_.substr(0, tag);
      if (tag == rest_.size()) {
        add_text(text);
        break;
      }
      const char kind = rest_[tag + 1], sign = tag + 2 < rest_.size() ? rest_[tag + 2] : '\0';
      const std::string_view kept = text_before(text, kind, sign);
      add_text(kept);
      skip(text.size() - kept.size());
      skip(sign == '-' || (sign == '+' && kind != '{') ? 3 : 2);
      NIB_TRY(kind == '#' ? comment() : expression(kind));
    }
    words_.push_back({Kind::end, line_, {}});
    return std::move(words_);
  }

 private:
  std::size_t next_tag() const {
    for (std::size_t at = 0; (at = rest_.find('{', at)) != rest_.npos; ++at)
      if (at + 1 < rest_.size() && (rest_[at + 1] == '{' || rest_[at + 1] == '%' || rest_[at + 1] == '#'))
        return at;
    return rest_.size();
  }

  // What is left of the text before a tag: '-' takes all white space before it; a block or a comment that has
  // only white space before it on its line takes that.
  std::string_view text_before(std::string_view text, char kind, char sign) const {
    if (sign == '-') return python_strip(text, false, true);
    if (sign == '+' || kind == '{') return text;
    const std::size_t line = text.rfind('\n') + 1;  // 0 when there is none
    if ((line > 0 || at_line_begin_) && python_strip(text.substr(line), true, true).empty())
      return text.substr(0, line);
    return text;
  }

  void add_text(std::string_view text) {
    if (!text.empty()) words_.push_back({Kind::text, line_, std::string(text)});
    skip(text.size());
  }

  void skip(std::size_t bytes) {
    if (bytes == 0) return;
    const std::string_view gone = rest_.substr(0, bytes);
    line_ += static_cast<std::uint32_t>(std::count(gone.begin(), gone.end(), '\n'));
    at_line_begin_ = gone.ends_with('\n');
    rest_.remove_prefix(bytes);
  }

  // Behind the end of a tag: '-' takes all white space, a block and a comment take one line end.
  void end_tag(bool dash, bool plus, char kind) {
    if (dash)
      skip(rest_.size() - python_strip(rest_, true, false).size());
    else if (kind != '{' && !plus && rest_.starts_with('\n'))
      skip(1);
  }

  Status comment() {
    const std::size_t end = rest_.find("#}");
    if (end == rest_.npos) return bad("a comment does not end");
    const char sign = end > 0 ? rest_[end - 1] : '\0';
    skip(end + 2);
    end_tag(sign == '-', sign == '+', '#');
    return {};
  }

  Status expression(char kind) {
    const bool output = kind == '{';
    words_.push_back({output ? Kind::output_begin : Kind::block_begin, line_, {}});
    const std::string_view end = output ? "}}" : "%}";
    std::string open;  // brackets
    while (true) {
      skip(rest_.size() - python_strip(rest_, true, false).size());
      if (rest_.empty()) return bad("a tag does not end");
      if (open.empty()) {
        const bool dash = rest_.front() == '-', plus = !output && rest_.front() == '+';
        if (rest_.substr(dash || plus ? 1 : 0).starts_with(end)) {
          words_.push_back({output ? Kind::output_end : Kind::block_end, line_, {}});
          skip(dash || plus ? 3 : 2);
          end_tag(dash, plus, kind);
          return {};
        }
      }
      NIB_TRY(word(open));
    }
  }

  Status word(std::string& open) {
    const char c = rest_.front();
    if (begins_name(c)) {
      std::size_t size = 1;
      while (size < rest_.size() && (begins_name(rest_[size]) || is_digit(rest_[size]))) ++size;
      return add(Kind::name, std::string(rest_.substr(0, size)), size);
    }
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string(c);
    constexpr std::string_view kSigns[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*",
                                           "/",  "%",  "~",  "<",  ">",  "=",  ".", ",", ":",
                                           "|",  "(",  ")",  "[",  "]",  "{",  "}"};
    for (const std::string_view sign : kSigns) {
      if (!rest_.starts_with(sign)) continue;
      if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) return bad(concat("a bracket '", c, "' closes none"));
        open.pop_back();
      }
      return add(Kind::sign, std::string(sign), sign.size());
    }
    return bad(concat("a character that no expression has: ", rest_.substr(0, step_utf8(rest_).length)));
  }

  Status number() {
    std::size_t size = 0;
    bool whole = true;
    const auto digits = [&] {
      while (size < rest_.size() && is_digit(rest_[size])) ++size;
    };
    digits();
    if (size + 1 < rest_.size() && rest_[size] == '.' && is_digit(rest_[size + 1])) {
      whole = false;
      ++size;
      digits();
    }
    if (size < rest_.size() && (rest_[size] == 'e' || rest_[size] == 'E')) {
      const std::size_t sign = size + 1 < rest_.size() && (rest_[size + 1] == '+' || rest_[size + 1] == '-');
      if (size + 1 + sign < rest_.size() && is_digit(rest_[size + 1 + sign])) {
        whole = false;
        size += 1 + sign;
        digits();
      }
    }
    return add(whole ? Kind::integer : Kind::number, std::string(rest_.substr(0, size)), size);
  }

  Status string(char quote) {
    std::string out;
    std::size_t at = 1;
    for (; at < rest_.size() && rest_[at] != quote; ++at) {
      if (rest_[at] != '\\' || at + 1 == rest_.size()) {
        out += rest_[at];
        continue;
      }
      ++at;
      NIB_TRY(escape(at, out));
    }
    if (at >= rest_.size()) return bad("a string does not end");
    return add(Kind::string, std::move(out), at + 1);
  }

  // As Python reads them; `at` is at the character behind the backslash, and then at the last one read.
  Status escape(std::size_t& at, std::string& out) {
    const char c = rest_[at];
    constexpr std::string_view kPlain = "\\'\"abfnrtv\n", kMeans = "\\'\"\a\b\f\n\r\t\v";
    if (c == '\n') return {};
    if (const std::size_t i = kPlain.find(c); i != kPlain.npos) {
      out += kMeans[i];
      return {};
    }
    const bool octal = c >= '0' && c <= '7';
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0 && !octal) {
      (out += '\\') += c;
      return {};
    }
    char32_t value = 0;
    std::size_t read = 0;
    const std::size_t begin = octal ? at : at + 1, most = octal ? 3 : digits, base = octal ? 8 : 16;
    for (; read < most && begin + read < rest_.size(); ++read) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const char lower = static_cast<char>(rest_[begin + read] | (is_digit(rest_[begin + read]) ? 0 : 0x20));
      const std::size_t digit = kDigits.find(lower);
      if (digit >= base) break;
      value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
    }
    if ((!octal && read < digits) || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      return bad("a string has an escape that is no character");
    append_character(value, out);
    at = begin + read - 1;
    return {};
  }

  Status add(Kind kind, std::string text, std::size_t bytes) {
    words_.push_back({kind, line_, std::move(text)});
    skip(bytes);
    return {};
  }
  Status bad(std::string_view what) const {
    return {Code::format, concat(name_, ": line ", line_, ": ", what)};
  }

  std::string_view name_;
  std::string source_;
  std::string_view rest_;
  std::vector<Word> words_;
  std::uint32_t line_ = 1;
  bool at_line_begin_ = true;
};

}  // namespace

Result<std::vector<TemplateWord>> read_template_words(std::string_view source, std::string_view name) {
  if (source.size() > kLongestSource)
    return Status(Code::format,
                  concat(name, ": has ", source.size(), " bytes, expected at most ", kLongestSource));
  return Reader(source, name).read();
}

}  // namespace nib::inline v0
