// The values of chat templates: Python's, as far as templates see them. Private to the room.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/text/range.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

class TemplateValue;

// Text in the making that knows which of its bytes are the template's own words. The others were given to it,
// or are of unknown origin: whoever makes text without saying more makes text that was given.
class TemplateText {
 public:
  void add_own(std::string_view bytes);
  void add_given(std::string_view bytes) { bytes_ += bytes; }
  void add(const TemplateText& text) { add_part(text, text.bytes_); }
  // `piece` lies in the bytes of `text`.
  void add_part(const TemplateText& text, std::string_view piece);
  // str(value). What a list or a dict prints counts as given.
  void add(const TemplateValue& value);

  const std::string& bytes() const { return bytes_; }
  // In order, apart from each other, none of them empty.
  const std::vector<TextRange>& own() const { return own_; }
  bool is_own() const { return own_.size() == 1 && own_[0].end - own_[0].begin == bytes_.size(); }
  // Bytes of memory.
  std::size_t cost() const { return bytes_.size() + own_.size() * sizeof(TextRange); }

  std::string take_bytes() && { return std::move(bytes_); }
  std::vector<TextRange> take_own() && { return std::move(own_); }

 private:
  std::string bytes_;
  std::vector<TextRange> own_;
};

// Cheap to copy: what is large is shared and does not change (a namespace's members do).
class TemplateValue {
 public:
  enum class Kind : std::uint8_t {
    undefined,  // text(): what it would have been called
    none,
    boolean,
    integer,
    number,
    string,
    list,
    tuple,  // a list that prints with parentheses
    dict,
    name_space,  // the only one that changes; can lie in no other value, so that no value contains itself
    callable,    // a function or a method that is not called: defined, true, and nothing else
  };
  using Member = std::pair<std::string, TemplateValue>;

  // No value is nested deeper: values are walked and destroyed by recursion.
  static constexpr std::uint32_t kDeepest = 100;

  TemplateValue() = default;
  static TemplateValue undefined(std::string name);
  static TemplateValue none();
  static TemplateValue of(bool value);
  static TemplateValue of(std::int64_t value);
  static TemplateValue of(double value);
  static TemplateValue of(std::string given);
  static TemplateValue of(TemplateText text);
  static TemplateValue own(std::string_view text);
  static TemplateValue callable(std::string name);
  // Errors: format, when what results is nested too deep, or holds a namespace.
  static Result<TemplateValue> list(std::vector<TemplateValue> items, bool tuple = false);
  static Result<TemplateValue> dict(std::vector<Member> members);  // of equal keys the last counts
  static TemplateValue name_space();
  // Errors: argument, when it is nested too deep.
  static Result<TemplateValue> from(const Json& json, std::uint32_t depth = 0);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_list() const { return kind_ == Kind::list || kind_ == Kind::tuple; }
  bool is_members() const { return kind_ == Kind::dict || kind_ == Kind::name_space; }
  bool is_integer() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integer() || kind_ == Kind::number; }

  // Each requires a fitting kind.
  std::int64_t integer() const { return integer_; }  // of a boolean too
  double number() const { return kind_ == Kind::number ? number_ : static_cast<double>(integer_); }
  const std::string& text() const { return box_->text.bytes(); }
  const TemplateText& marked() const { return box_->text; }
  // A string: `piece` lies in text(), and is of the same origin.
  TemplateValue part(std::string_view piece) const;
  const std::vector<TemplateValue>& items() const { return box_->items; }
  const std::vector<Member>& members() const { return box_->members; }
  const TemplateValue* find(std::string_view key) const;           // null: none, or not of that kind
  Status set_member(const std::string& key, TemplateValue value);  // of a namespace

  bool truth() const;
  friend bool operator==(const TemplateValue& a, const TemplateValue& b);
  // As Python's type() would name it, for messages.
  std::string_view kind_name() const;

  // Appends str(value), and repr(value).
  void print(std::string& out) const;
  void represent(std::string& out) const;
  // Appends json.dumps(value, ensure_ascii=False); `indent` below 0: on one line. Errors: format (a value
  // that JSON does not have).
  Status dump(std::string& out, int indent, int level = 0) const;

 private:
  struct Box {
    TemplateText text;
    std::vector<TemplateValue> items;
    std::vector<Member> members;
    std::uint32_t depth = 0;
  };
  std::uint32_t depth() const { return kind_ == Kind::name_space ? kDeepest : box_ ? box_->depth : 0; }
  static Status check_depth(std::uint32_t depth);

  Kind kind_ = Kind::undefined;
  union {
    std::int64_t integer_ = 0;
    double number_;
  };
  std::shared_ptr<Box> box_;
};

// What a rendering is given, a dict: everything counts as given but what the caller vouches for, as
// Template::render_marked() says. Errors: argument, when it is nested too deep.
Result<TemplateValue> template_variables(const Json& object);

// repr(float) of Python.
std::string python_number(double value);
// Python's str.isspace for one character.
bool is_python_space(char32_t c);
// `text` without white space at its ends.
std::string_view python_strip(std::string_view text, bool left, bool right);

}  // namespace nib::inline v0
