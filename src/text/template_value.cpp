#include "template_value.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <utf8proc.h>

namespace nib::inline v0 {
namespace {

using Kind = TemplateValue::Kind;

// "\x1f", "\u200b" and the like.
void append_escape(char32_t c, std::string& out) {
  const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
  out += '\\';
  out += digits == 2 ? 'x' : digits == 4 ? 'u' : 'U';
  for (int i = digits - 1; i >= 0; --i) out += "0123456789abcdef"[c >> (4 * i) & 15];
}

bool is_printable(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

void represent_text(std::string_view text, std::string& out) {
  const bool doubled = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = doubled ? '"' : '\'';
  out += quote;
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    const char32_t c = step.code_point;
    if (step.kind != Utf8Step::Kind::character)
      out += text.substr(0, step.length);
    else if (c == '\\' || c == static_cast<char32_t>(quote))
      (out += '\\') += static_cast<char>(c);
    else if (c == '\n' || c == '\r' || c == '\t')
      (out += '\\') += c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
    else if (is_printable(c))
      out += text.substr(0, step.length);
    else
      append_escape(c, out);
    text.remove_prefix(step.length);
  }
  out += quote;
}

// In any order; in linear time.
bool equal_members(const std::vector<TemplateValue::Member>& a, const std::vector<TemplateValue::Member>& b) {
  if (a.size() != b.size()) return false;
  using Member = TemplateValue::Member;
  if (std::equal(a.begin(), a.end(), b.begin(),
                 [](const Member& x, const Member& y) { return x.first == y.first; }))
    return a == b;
  std::unordered_map<std::string_view, const TemplateValue*> values;
  for (const auto& [key, value] : b) values.emplace(key, &value);
  return std::all_of(a.begin(), a.end(), [&](const Member& member) {
    const auto other = values.find(member.first);
    return other != values.end() && member.second == *other->second;
  });
}

void new_line(int indent, int level, std::string& out) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

}  // namespace

TemplateValue TemplateValue::undefined(std::string name) {
  TemplateValue value = of(std::move(name));
  value.kind_ = Kind::undefined;
  return value;
}
TemplateValue TemplateValue::none() {
  TemplateValue value;
  value.kind_ = Kind::none;
  return value;
}
TemplateValue TemplateValue::of(bool flag) {
  TemplateValue value;
  value.kind_ = Kind::boolean;
  value.integer_ = flag;
  return value;
}
TemplateValue TemplateValue::of(std::int64_t integer) {
  TemplateValue value;
  value.kind_ = Kind::integer;
  value.integer_ = integer;
  return value;
}
TemplateValue TemplateValue::of(double number) {
  TemplateValue value;
  value.kind_ = Kind::number;
  value.number_ = number;
  return value;
}
TemplateValue TemplateValue::of(std::string given) {
  TemplateText text;
  text.add_given(given);
  return of(std::move(text));
}
TemplateValue TemplateValue::of(TemplateText text) {
  TemplateValue value;
  value.kind_ = Kind::string;
  value.box_ = std::make_shared<Box>();
  value.box_->text = std::move(text);
  return value;
}
TemplateValue TemplateValue::own(std::string_view text) {
  TemplateText own;
  own.add_own(text);
  return of(std::move(own));
}
TemplateValue TemplateValue::part(std::string_view piece) const {
  TemplateText text;
  text.add_part(box_->text, piece);
  return of(std::move(text));
}
TemplateValue TemplateValue::callable(std::string name) {
  TemplateValue value = of(std::move(name));
  value.kind_ = Kind::callable;
  return value;
}
TemplateValue TemplateValue::name_space() {
  TemplateValue value;
  value.kind_ = Kind::name_space;
  value.box_ = std::make_shared<Box>();
  return value;
}

Status TemplateValue::check_depth(std::uint32_t depth) {
  if (depth <= kDeepest) return {};
  return {Code::format, concat("a value is nested deeper than ", kDeepest, ", or holds a namespace")};
}

Result<TemplateValue> TemplateValue::list(std::vector<TemplateValue> items, bool tuple) {
  TemplateValue value;
  value.kind_ = tuple ? Kind::tuple : Kind::list;
  value.box_ = std::make_shared<Box>();
  for (const TemplateValue& item : items) value.box_->depth = std::max(value.box_->depth, item.depth() + 1);
  NIB_TRY(check_depth(value.box_->depth));
  value.box_->items = std::move(items);
  return value;
}

Result<TemplateValue> TemplateValue::dict(std::vector<Member> members) {
  TemplateValue value;
  value.kind_ = Kind::dict;
  value.box_ = std::make_shared<Box>();
  std::unordered_map<std::string, std::size_t> places;
  for (Member& member : members) {
    value.box_->depth = std::max(value.box_->depth, member.second.depth() + 1);
    NIB_TRY(check_depth(value.box_->depth));
    const auto [place, added] = places.emplace(member.first, value.box_->members.size());
    if (added)
      value.box_->members.push_back(std::move(member));
    else
      value.box_->members[place->second].second = std::move(member.second);
  }
  return value;
}

Result<TemplateValue> TemplateValue::from(const Json& json, std::uint32_t depth) {
  constexpr std::uint32_t kDeepestInput = 64;
  if (depth > kDeepestInput)
    return Status(Code::argument, concat("the variables are nested deeper than ", kDeepestInput));
  switch (json.kind()) {
    case Json::Kind::null:
      return none();
    case Json::Kind::boolean:
      return of(json.as_bool());
    case Json::Kind::integer:
      return of(json.as_integer());
    case Json::Kind::number:
      return of(json.as_double());
    case Json::Kind::string:
      return of(json.as_string());
    case Json::Kind::array: {
      std::vector<TemplateValue> items;
      for (const Json& item : json.items()) {
        NIB_ASSIGN(items.emplace_back(), from(item, depth + 1));
      }
      return list(std::move(items));
    }
    case Json::Kind::object:
      break;
  }
  std::vector<Member> members;
  for (const auto& [key, item] : json.members()) {
    NIB_ASSIGN(TemplateValue value, from(item, depth + 1));
    members.emplace_back(key, std::move(value));
  }
  return dict(std::move(members));
}

const TemplateValue* TemplateValue::find(std::string_view key) const {
  if (!is_members()) return nullptr;
  for (const Member& member : box_->members)
    if (member.first == key) return &member.second;
  return nullptr;
}

Status TemplateValue::set_member(const std::string& key, TemplateValue value) {
  NIB_TRY(check_depth(value.depth() + 1));
  for (Member& member : box_->members)
    if (member.first == key) {
      member.second = std::move(value);
      return {};
    }
  box_->members.emplace_back(key, std::move(value));
  return {};
}

bool TemplateValue::truth() const {
  switch (kind_) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return integer_ != 0;
    case Kind::number:
      return number_ != 0;
    case Kind::string:
      return !text().empty();
    case Kind::list:
    case Kind::tuple:
      return !box_->items.empty();
    case Kind::dict:
      return !box_->members.empty();
    case Kind::name_space:
    case Kind::callable:
      break;
  }
  return true;
}

bool operator==(const TemplateValue& a, const TemplateValue& b) {
  if (a.is_number() && b.is_number())
    return a.is_integer() && b.is_integer() ? a.integer_ == b.integer_ : a.number() == b.number();
  if (a.kind_ != b.kind_) return false;
  switch (a.kind_) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
    case Kind::callable:
      return a.text() == b.text();
    case Kind::list:
    case Kind::tuple:
      return a.items() == b.items();
    case Kind::dict:
      return equal_members(a.members(), b.members());
    default:
      return a.box_ == b.box_;
  }
}

std::string_view TemplateValue::kind_name() const {
  constexpr std::string_view kNames[] = {"undefined", "None",  "bool", "int",       "float",   "str",
                                         "list",      "tuple", "dict", "Namespace", "function"};
  return kNames[static_cast<std::size_t>(kind_)];
}

void TemplateValue::print(std::string& out) const {
  if (kind_ == Kind::string)
    out += text();
  else if (kind_ != Kind::undefined)
    represent(out);
}

void TemplateValue::represent(std::string& out) const {
  switch (kind_) {
    case Kind::undefined:
      out += "Undefined";
      break;
    case Kind::none:
      out += "None";
      break;
    case Kind::boolean:
      out += integer_ ? "True" : "False";
      break;
    case Kind::integer:
      out += concat(integer_);
      break;
    case Kind::number:
      out += python_number(number_);
      break;
    case Kind::string:
      represent_text(text(), out);
      break;
    case Kind::list:
    case Kind::tuple: {
      const bool tuple = kind_ == Kind::tuple;
      out += tuple ? '(' : '[';
      for (std::size_t i = 0; i < box_->items.size(); ++i) {
        if (i) out += ", ";
        box_->items[i].represent(out);
      }
      if (tuple && box_->items.size() == 1) out += ',';
      out += tuple ? ')' : ']';
      break;
    }
    case Kind::dict:
    case Kind::name_space:
      out += kind_ == Kind::name_space ? "<Namespace {" : "{";
      for (std::size_t i = 0; i < box_->members.size(); ++i) {
        if (i) out += ", ";
        represent_text(box_->members[i].first, out);
        out += ": ";
        box_->members[i].second.represent(out);
      }
      out += kind_ == Kind::name_space ? "}>" : "}";
      break;
    case Kind::callable:
      out += concat("<function ", text(), ">");
      break;
  }
}

Status TemplateValue::dump(std::string& out, int indent, int level) const {
  const std::string_view comma = indent < 0 ? ", " : ",";
  const bool bare = kind_ == Kind::boolean || kind_ == Kind::none;
  if (bare) {
    out += kind_ == Kind::none ? "null" : integer_ ? "true" : "false";
  } else if (kind_ == Kind::number && !std::isfinite(number_)) {
    out += std::isnan(number_) ? "NaN" : number_ > 0 ? "Infinity" : "-Infinity";
  } else if (is_number()) {
    represent(out);
  } else if (kind_ == Kind::string) {
    out += write_json(Json::of(text()));
  } else if (is_list()) {
    out += '[';
    for (std::size_t i = 0; i < box_->items.size(); ++i) {
      if (i) out += comma;
      new_line(indent, level + 1, out);
      NIB_TRY(box_->items[i].dump(out, indent, level + 1));
    }
    if (!box_->items.empty()) new_line(indent, level, out);
    out += ']';
  } else if (kind_ == Kind::dict) {
    out += '{';
    for (std::size_t i = 0; i < box_->members.size(); ++i) {
      if (i) out += comma;
      new_line(indent, level + 1, out);
      out += write_json(Json::of(box_->members[i].first)) + ": ";
      NIB_TRY(box_->members[i].second.dump(out, indent, level + 1));
    }
    if (!box_->members.empty()) new_line(indent, level, out);
    out += '}';
  } else {
    return {Code::format, concat("tojson of a value that is ", kind_name())};
  }
  return {};
}

bool is_python_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

std::string_view python_strip(std::string_view text, bool left, bool right) {
  std::size_t begin = text.size(), end = 0;  // around all that is no white space
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = step_utf8(text.substr(at));
    const bool space = step.kind == Utf8Step::Kind::character && is_python_space(step.code_point);
    if (!space) {
      begin = std::min(begin, at);
      end = at + step.length;
    }
    at += step.length;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace nib::inline v0
