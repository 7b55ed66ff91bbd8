#include "template_calls.hpp"

#include "template_program.hpp"
#include <nibble/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include <utf8proc.h>

namespace nib::inline v0 {
namespace {

using Value = TemplateValue;
using Kind = TemplateValue::Kind;
using Values = std::vector<TemplateValue>;

Status bad(std::string sentence) { return {Code::format, std::move(sentence)}; }
Status undefined(const Value& value) {
  return bad(concat("'", value.text().substr(0, 100), "' is undefined"));
}
Status wrong_kind(std::string_view what, const Value& value) {
  if (value.is(Kind::undefined)) return undefined(value);
  return bad(concat(what, " of a value that is ", value.kind_name()));
}

template <std::size_t kCount>
bool is_among(std::string_view name, const std::array<std::string_view, kCount>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Names that a point finds on Python's values before it looks for members.
constexpr auto kDictMethods =
    std::to_array<std::string_view>({"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem",
                                     "setdefault", "update", "values"});
constexpr auto kListMethods = std::to_array<std::string_view>(
    {"append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"});
constexpr auto kStringMethods = std::to_array<std::string_view>(
    {"capitalize", "casefold",     "center",       "count",   "encode",     "endswith",    "expandtabs",
     "find",       "format",       "format_map",   "index",   "isalnum",    "isalpha",     "isascii",
     "isdecimal",  "isdigit",      "isidentifier", "islower", "isnumeric",  "isprintable", "isspace",
     "istitle",    "isupper",      "join",         "ljust",   "lower",      "lstrip",      "maketrans",
     "partition",  "removeprefix", "removesuffix", "replace", "rfind",      "rindex",      "rjust",
     "rpartition", "rsplit",       "rstrip",       "split",   "splitlines", "startswith",  "strip",
     "swapcase",   "title",        "translate",    "upper",   "zfill"});

bool has_method(const Value& value, std::string_view name) {
  if (value.is(Kind::dict)) return is_among(name, kDictMethods);
  if (value.is(Kind::list)) return is_among(name, kListMethods);
  if (value.is(Kind::tuple)) return name == "count" || name == "index";
  return value.is(Kind::string) && is_among(name, kStringMethods);
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    characters.push_back(text.substr(0, step_utf8(text).length));
    text.remove_prefix(characters.back().size());
  }
  return characters;
}

void append_character(utf8proc_int32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(c, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::string cased(std::string_view text, bool upper) {
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    const auto c = static_cast<utf8proc_int32_t>(step.code_point);
    if (step.kind != Utf8Step::Kind::character)
      out += text.substr(0, step.length);
    else if (upper && c == 0xdf)
      out += "SS";
    else
      append_character(upper ? utf8proc_toupper(c) : utf8proc_tolower(c), out);
    text.remove_prefix(step.length);
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return {};
  const std::size_t first = step_utf8(text).length;
  return cased(text.substr(0, first), true) + cased(text.substr(first), false);
}

// Without the characters of `set` at its ends.
std::string_view stripped_of(std::string_view text, std::string_view set, bool left, bool right) {
  const auto all = characters_of(set);
  const auto has = [&](std::string_view c) { return std::find(all.begin(), all.end(), c) != all.end(); };
  const auto characters = characters_of(text);
  std::size_t begin = 0, end = characters.size();
  while (left && begin < end && has(characters[begin])) ++begin;
  while (right && begin < end && has(characters[end - 1])) --end;
  std::size_t from = 0, size = 0;
  for (std::size_t i = 0; i < end; ++i) (i < begin ? from : size) += characters[i].size();
  return text.substr(from, size);
}

// Text that was made of a string as a whole: the template's own if all of that is.
Value made_of(const Value& string, std::string text) {
  return string.marked().is_own() ? Value::own(text) : Value::of(std::move(text));
}

Result<Value> strip(const Value& in, const TemplateArguments& arguments, bool left, bool right) {
  const Value* set = arguments.find(0, "chars");
  if (!set || set->is(Kind::none)) return in.part(python_strip(in.text(), left, right));
  if (!set->is(Kind::string)) return wrong_kind("stripping", *set);
  return in.part(stripped_of(in.text(), set->text(), left, right));
}

Result<Value> replace(const Value& in, const TemplateArguments& arguments, TemplateWork& work) {
  const Value* from = arguments.find(0, "old");
  const Value* to = arguments.find(1, "new");
  const Value* count = arguments.find(2, "count");
  if (!from || !to || !from->is(Kind::string) || !to->is(Kind::string) ||
      (count && !count->is(Kind::none) && !count->is_integer()))
    return bad("replace wants two texts, and perhaps a number");
  std::int64_t left = count && count->is_integer() ? count->integer() : -1;
  std::string_view text = in.text();
  TemplateText out;
  const auto put = [&]() -> Status {
    --left;
    out.add(to->marked());
    return work.spend_text(out.cost() + text.size());
  };
  if (from->text().empty()) {  // stands between all characters
    if (left != 0) NIB_TRY(put());
    for (const std::string_view c : characters_of(text)) {
      out.add_part(in.marked(), c);
      if (left != 0) NIB_TRY(put());
    }
    return Value::of(std::move(out));
  }
  for (std::size_t at; left != 0 && (at = text.find(from->text())) != text.npos;) {
    out.add_part(in.marked(), text.substr(0, at));
    text.remove_prefix(at + from->text().size());
    NIB_TRY(put());
  }
  out.add_part(in.marked(), text);
  return Value::of(std::move(out));
}

Result<Value> split(const Value& in, const TemplateArguments& arguments, TemplateWork& work) {
  const Value* separator = arguments.find(0, "sep");
  const Value* most = arguments.find(1, "maxsplit");
  std::int64_t left = most && most->is_integer() ? most->integer() : -1;
  std::string_view text = in.text();
  Values parts;
  const auto add = [&](std::string_view part) {
    parts.push_back(in.part(part));
    return work.spend(1 + part.size() / 16);
  };
  if (separator && !separator->is(Kind::none)) {
    if (!separator->is(Kind::string) || separator->text().empty())
      return bad("split wants a text that is not empty");
    for (std::size_t at; left != 0 && (at = text.find(separator->text())) != text.npos; --left) {
      NIB_TRY(add(text.substr(0, at)));
      text.remove_prefix(at + separator->text().size());
    }
    NIB_TRY(add(text));
    return Value::list(std::move(parts));
  }
  for (text = python_strip(text, true, left == 0); !text.empty(); --left) {
    std::size_t end = 0;
    while (end < text.size() && left != 0) {
      const Utf8Step step = step_utf8(text.substr(end));
      if (step.kind == Utf8Step::Kind::character && is_python_space(step.code_point)) break;
      end += step.length;
    }
    NIB_TRY(add(left == 0 ? text : text.substr(0, end)));
    if (left == 0) break;
    text.remove_prefix(end);
    // Only the white space between: stripping all that is left would look at it again for each word.
    while (!text.empty() && is_python_space(step_utf8(text).code_point) &&
           step_utf8(text).kind == Utf8Step::Kind::character)
      text.remove_prefix(step_utf8(text).length);
  }
  return Value::list(std::move(parts));
}

Result<bool> has_end(std::string_view text, const TemplateArguments& arguments, bool front) {
  if (arguments.plain.size() != 1) return bad("startswith and endswith want one text or a tuple of texts");
  const Value& wanted = arguments.plain[0];
  const Values one = {wanted};
  bool found = false;
  for (const Value& end : wanted.is(Kind::tuple) ? wanted.items() : one) {
    if (!end.is(Kind::string)) return wrong_kind("startswith or endswith", end);
    found = found || (front ? text.starts_with(end.text()) : text.ends_with(end.text()));
  }
  return found;
}

Result<Value> pairs_of(const Value& dict, TemplateWork& work) {
  Values pairs;
  NIB_TRY(work.spend(2 * dict.members().size()));
  for (const auto& [key, value] : dict.members()) {
    NIB_ASSIGN(pairs.emplace_back(), Value::list({Value::of(key), value}, true));
  }
  return Value::list(std::move(pairs));
}

Result<Value> joined(const Value& in, const TemplateText& between, TemplateWork& work) {
  NIB_ASSIGN(const Values items, template_items(in, work));
  TemplateText out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i) out.add(between);
    const std::size_t before = out.cost();
    out.add(items[i]);
    NIB_TRY(work.spend_text(out.cost()));
    NIB_TRY(work.spend((out.cost() - before) / 16 + 1));
  }
  return Value::of(std::move(out));
}

Result<Value> length(const Value& in) {
  if (in.is(Kind::string)) return Value::of(static_cast<std::int64_t>(characters_of(in.text()).size()));
  if (in.is_list()) return Value::of(static_cast<std::int64_t>(in.items().size()));
  if (in.is(Kind::dict)) return Value::of(static_cast<std::int64_t>(in.members().size()));
  if (in.is(Kind::undefined)) return Value::of(std::int64_t{0});
  return wrong_kind("the length", in);
}

Result<Value> to_integer(const Value& in, const TemplateArguments& arguments) {
  const Value* otherwise = arguments.find(0, "default");
  const Value fallback = otherwise ? *otherwise : Value::of(std::int64_t{0});
  double number = 0;
  if (in.is_integer()) return Value::of(in.integer());
  if (in.is(Kind::string)) {
    const std::string_view text = python_strip(in.text(), true, true);
    const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
    std::int64_t value = 0;
    const char* end = digits.data() + digits.size();
    if (const auto read = std::from_chars(digits.data(), end, value);
        read.ec == std::errc() && read.ptr == end)
      return Value::of(value);
    if (const auto read = std::from_chars(digits.data(), end, number);
        read.ec != std::errc() || read.ptr != end)
      return fallback;
  } else if (in.is(Kind::number)) {
    number = in.number();
  } else {
    return fallback;
  }
  if (!(std::abs(number) < 9.2e18)) return fallback;
  return Value::of(static_cast<std::int64_t>(number));
}

// a.b.0 of selectattr and map.
Result<Value> by_path(Value value, std::string_view path) {
  while (true) {
    const std::string_view part = path.substr(0, path.find('.'));
    std::int64_t number = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool whole = !part.empty() && read.ec == std::errc() && read.ptr == part.data() + part.size();
    // A part that does not exist is undefined, and the parts of that too.
    if (value.is(Kind::undefined)) return value;
    NIB_ASSIGN(value, template_item(value, whole ? Value::of(number) : Value::of(std::string(part))));
    if (part.size() == path.size()) return value;
    path.remove_prefix(part.size() + 1);
  }
}

// select, reject, selectattr, rejectattr.
Result<Value> selected(const Value& in, const TemplateArguments& arguments, bool wanted, bool by_attribute,
                       TemplateWork& work) {
  NIB_ASSIGN(const Values items, template_items(in, work));
  const std::size_t test = by_attribute ? 1 : 0;
  if (by_attribute && (arguments.plain.empty() || !arguments.plain[0].is(Kind::string)))
    return bad("selecting wants the name of an attribute");
  const bool named = arguments.plain.size() > test;
  if (named && (!arguments.plain[test].is(Kind::string) || !is_template_test(arguments.plain[test].text())))
    return bad("selecting wants the name of a test that nibble has");
  const Values rest(arguments.plain.begin() + static_cast<std::ptrdiff_t>(named ? test + 1 : test),
                    arguments.plain.end());
  Values kept;
  for (const Value& item : items) {
    NIB_TRY(work.spend(1));
    Value looked_at = item;
    if (by_attribute) {
      NIB_ASSIGN(looked_at, by_path(item, arguments.plain[0].text()));
    }
    bool passes = looked_at.truth();
    if (named) {
      NIB_ASSIGN(passes, template_test(arguments.plain[test].text(), looked_at, rest));
    }
    if (passes == wanted) kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

Result<Value> mapped(const Value& in, const TemplateArguments& arguments, TemplateWork& work) {
  NIB_ASSIGN(Values items, template_items(in, work));
  const Value* path = arguments.plain.empty() ? arguments.find(0, "attribute") : nullptr;
  const Value* otherwise = arguments.find(~std::size_t{0}, "default");
  if (path ? !path->is(Kind::string)
           : arguments.plain.empty() || !arguments.plain[0].is(Kind::string) ||
                 !is_template_filter(arguments.plain[0].text()) || arguments.plain[0].text() == "map")
    return bad("map wants attribute=, or the name of a filter that nibble has");
  TemplateArguments rest;
  if (!path) rest.plain.assign(arguments.plain.begin() + 1, arguments.plain.end());
  for (Value& item : items) {
    NIB_TRY(work.spend(1));
    if (path) {
      NIB_ASSIGN(item, by_path(item, path->text()));
      if (item.is(Kind::undefined) && otherwise) item = *otherwise;
    } else {
      NIB_ASSIGN(item, template_filter(arguments.plain[0].text(), item, rest, work));
    }
  }
  return Value::list(std::move(items));
}

}  // namespace

Result<Value> template_attribute(const Value& of, const std::string& name) {
  if (of.is(Kind::undefined)) return undefined(of);
  if (has_method(of, name)) return Value::callable(name);
  if (const Value* member = of.find(name)) return *member;
  return Value::undefined(name);
}

Result<Value> template_item(const Value& of, const Value& key) {
  if (of.is(Kind::undefined)) return undefined(of);
  if (key.is(Kind::string)) {
    if (const Value* member = of.find(key.text())) return *member;
    if (has_method(of, key.text())) return Value::callable(key.text());
    return Value::undefined(key.text());
  }
  if (key.is_integer() && (of.is_list() || of.is(Kind::string))) {
    const auto characters = of.is_list() ? std::vector<std::string_view>() : characters_of(of.text());
    const auto size = static_cast<std::int64_t>(of.is_list() ? of.items().size() : characters.size());
    const std::int64_t at = key.integer() < 0 ? key.integer() + size : key.integer();
    if (at >= 0 && at < size) {
      const auto place = static_cast<std::size_t>(at);
      return of.is_list() ? of.items()[place] : of.part(characters[place]);
    }
  }
  std::string name;
  key.print(name);
  return Value::undefined(name.substr(0, 100));
}

Result<Values> template_items(const Value& of, TemplateWork& work) {
  Values items;
  switch (of.kind()) {
    case Kind::list:
    case Kind::tuple:
      NIB_TRY(work.spend(of.items().size()));
      return of.items();
    case Kind::dict:
      NIB_TRY(work.spend(of.members().size()));
      for (const auto& [key, value] : of.members()) items.push_back(Value::of(key));
      return items;
    case Kind::string:
      NIB_TRY(work.spend(of.text().size()));
      for (const std::string_view c : characters_of(of.text())) items.push_back(of.part(c));
      return items;
    case Kind::undefined:
      return items;
    default:
      return bad(concat("a value that is ", of.kind_name(), " has no items"));
  }
}

Result<bool> template_contains(const Value& all, const Value& one) {
  if (all.is(Kind::string)) {
    if (!one.is(Kind::string)) return bad(concat("a text cannot contain a value that is ", one.kind_name()));
    return all.text().find(one.text()) != std::string::npos;
  }
  if (all.is_list()) return std::find(all.items().begin(), all.items().end(), one) != all.items().end();
  if (all.is(Kind::dict)) return one.is(Kind::string) && all.find(one.text()) != nullptr;
  if (all.is(Kind::undefined)) return false;
  return bad(concat("a value that is ", all.kind_name(), " has no items"));
}

Result<int> template_order(const Value& a, const Value& b, std::string_view sign) {
  const auto order = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
  if (a.is_integer() && b.is_integer()) return order(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return order(a.number(), b.number());
  if (a.is(Kind::string) && b.is(Kind::string)) return order(a.text(), b.text());
  if (a.is(Kind::undefined)) return undefined(a);
  if (b.is(Kind::undefined)) return undefined(b);
  return bad(concat(sign, " between values that are ", a.kind_name(), " and ", b.kind_name()));
}

bool is_template_function(std::string_view name) {
  return is_among(name, std::to_array<std::string_view>(
                            {"raise_exception", "strftime_now", "namespace", "range", "dict"}));
}

// Filters

bool is_template_filter(std::string_view name) {
  return is_among(
      name,
      std::to_array<std::string_view>(
          {"trim",   "length", "count",      "tojson",     "join",    "list",    "string",  "items", "first",
           "last",   "upper",  "lower",      "capitalize", "replace", "default", "d",       "int",   "safe",
           "select", "reject", "selectattr", "rejectattr", "map",     "reverse", "dictsort"}));
}

Result<Value> template_filter(std::string_view name, const Value& in, const TemplateArguments& arguments,
                              TemplateWork& work) {
  if (name == "length" || name == "count") return length(in);
  if (name == "safe") return in;
  if (name == "default" || name == "d") {
    const Value* otherwise = arguments.find(0, "default_value");
    const Value* boolean = arguments.find(1, "boolean");
    const bool missing = in.is(Kind::undefined) || (boolean && boolean->truth() && !in.truth());
    if (!missing) return in;
    return otherwise ? *otherwise : Value::of(std::string());
  }
  if (name == "tojson") {
    const Value* indent = arguments.find(~std::size_t{0}, "indent");
    for (const auto& [key, value] : arguments.named)
      if (key != "indent" && !(key == "ensure_ascii" && !value.truth()) &&
          !(key == "separators" && value.is(Kind::none)) && !(key == "sort_keys" && !value.truth()))
        return bad(concat("tojson with ", key, ", which nibble does not have"));
    if (!arguments.plain.empty()) return bad("tojson wants its arguments by name");
    std::int64_t width = -1;
    if (indent && indent->is_integer()) width = indent->integer();
    if (width > 16 || width < -1) return bad("tojson wants an indent from 0 to 16");
    std::string text;
    NIB_TRY(in.dump(text, static_cast<int>(width)));
    NIB_TRY(work.spend_text(text.size()));
    return Value::of(std::move(text));
  }
  if (name == "join") {
    const Value* between = arguments.find(0, "d");
    if (arguments.find(1, "attribute")) return bad("join by an attribute, which nibble does not have");
    TemplateText text;
    if (between) text.add(*between);
    return joined(in, text, work);
  }
  if (name == "items") {
    if (in.is(Kind::undefined)) return Value::list({});
    if (!in.is(Kind::dict)) return wrong_kind("the items", in);
    return pairs_of(in, work);
  }
  if (name == "list" || name == "first" || name == "last" || name == "reverse") {
    NIB_ASSIGN(Values items, template_items(in, work));
    if (name == "reverse") {
      std::reverse(items.begin(), items.end());
      NIB_ASSIGN(Value list, Value::list(std::move(items)));
      return in.is(Kind::string) ? joined(list, {}, work) : Result<Value>(list);
    }
    if (name == "list") return Value::list(std::move(items));
    if (items.empty()) return Value::undefined(std::string(name));
    return name == "first" ? items.front() : items.back();
  }
  if (name == "dictsort") {
    if (!in.is(Kind::dict) || !arguments.plain.empty() || !arguments.named.empty())
      return bad("dictsort wants a dict and no arguments");
    std::vector<std::pair<std::string, Value::Member>> members;
    for (const auto& member : in.members()) members.emplace_back(cased(member.first, false), member);
    std::stable_sort(members.begin(), members.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Value::Member> sorted;
    for (auto& member : members) sorted.push_back(std::move(member.second));
    NIB_ASSIGN(const Value dict, Value::dict(std::move(sorted)));
    return pairs_of(dict, work);
  }
  if (name == "int") return to_integer(in, arguments);
  if (name == "select" || name == "reject") return selected(in, arguments, name == "select", false, work);
  if (name == "selectattr" || name == "rejectattr")
    return selected(in, arguments, name == "selectattr", true, work);
  if (name == "map") return mapped(in, arguments, work);
  TemplateText printed;
  printed.add(in);
  NIB_TRY(work.spend_text(printed.cost()));
  const Value text = Value::of(std::move(printed));
  if (name == "trim") return strip(text, arguments, true, true);
  if (name == "upper" || name == "lower") return made_of(text, cased(text.text(), name == "upper"));
  if (name == "capitalize") return made_of(text, capitalized(text.text()));
  if (name == "replace") return replace(text, arguments, work);
  return text;  // string
}

// Tests

bool is_template_test(std::string_view name) {
  return is_among(name,
                  std::to_array<std::string_view>(
                      {"defined", "undefined", "none",  "string",   "number",     "integer",     "float",
                       "boolean", "true",      "false", "mapping",  "iterable",   "sequence",    "eq",
                       "equalto", "ne",        "in",    "odd",      "even",       "divisibleby", "lt",
                       "le",      "gt",        "ge",    "lessthan", "greaterthan"}));
}

Result<bool> template_test(std::string_view name, const Value& in, const Values& arguments) {
  const bool countable = in.is(Kind::string) || in.is_list() || in.is(Kind::dict) || in.is(Kind::undefined);
  if (name == "defined") return !in.is(Kind::undefined);
  if (name == "undefined") return in.is(Kind::undefined);
  if (name == "none") return in.is(Kind::none);
  if (name == "string") return in.is(Kind::string);
  if (name == "number") return in.is_number();
  if (name == "integer") return in.is(Kind::integer);
  if (name == "float") return in.is(Kind::number);
  if (name == "boolean") return in.is(Kind::boolean);
  if (name == "true" || name == "false") return in.is(Kind::boolean) && in.truth() == (name == "true");
  if (name == "mapping") return in.is(Kind::dict);
  if (name == "iterable" || name == "sequence") return countable;
  if (name == "odd" || name == "even") {
    if (!in.is_integer()) return wrong_kind(name, in);
    return (in.integer() % 2 != 0) == (name == "odd");
  }
  if (arguments.size() != 1) return bad(concat("the test ", name, " wants one argument"));
  const Value& other = arguments[0];
  if (name == "eq" || name == "equalto") return in == other;
  if (name == "ne") return !(in == other);
  if (name == "in") return template_contains(other, in);
  if (name == "divisibleby") {
    if (!in.is_integer() || !other.is_integer() || other.integer() == 0)
      return bad("divisibleby wants two whole numbers");
    return other.integer() == -1 || in.integer() % other.integer() == 0;
  }
  NIB_ASSIGN(const int order, template_order(in, other, name));
  if (name == "lt" || name == "lessthan") return order < 0;
  if (name == "le") return order <= 0;
  return name == "ge" ? order >= 0 : order > 0;
}

// Methods

bool is_template_method(std::string_view name) {
  return is_among(name, std::to_array<std::string_view>({"items", "keys", "values", "get", "strip", "lstrip",
                                                         "rstrip", "split", "startswith", "endswith", "upper",
                                                         "lower", "capitalize", "replace", "find", "join"}));
}

Result<Value> template_method(std::string_view name, const Value& of, const TemplateArguments& arguments,
                              TemplateWork& work) {
  const auto misfit = [&] { return wrong_kind(concat("the method ", name), of); };
  if (name == "items" || name == "keys" || name == "values" || name == "get") {
    if (!of.is(Kind::dict)) return misfit();
    if (name == "items") return pairs_of(of, work);
    if (name == "get") {
      if (arguments.plain.empty()) return bad("get wants a key");
      const Value& key = arguments.plain[0];
      const Value* found = key.is(Kind::string) ? of.find(key.text()) : nullptr;
      if (found) return *found;
      return arguments.plain.size() > 1 ? arguments.plain[1] : Value::none();
    }
    Values out;
    NIB_TRY(work.spend(of.members().size()));
    for (const auto& [key, value] : of.members()) out.push_back(name == "keys" ? Value::of(key) : value);
    return Value::list(std::move(out));
  }
  if (!of.is(Kind::string)) return misfit();
  const std::string& text = of.text();
  NIB_TRY(work.spend_text(of.marked().cost()));
  if (name == "strip" || name == "lstrip" || name == "rstrip")
    return strip(of, arguments, name != "rstrip", name != "lstrip");
  if (name == "split") return split(of, arguments, work);
  if (name == "startswith" || name == "endswith") {
    NIB_ASSIGN(const bool has, has_end(text, arguments, name == "startswith"));
    return Value::of(has);
  }
  if (name == "upper" || name == "lower") return made_of(of, cased(text, name == "upper"));
  if (name == "capitalize") return made_of(of, capitalized(text));
  if (name == "replace") return replace(of, arguments, work);
  if (arguments.plain.size() != 1) return bad(concat("the method ", name, " wants one argument"));
  const Value& argument = arguments.plain[0];
  if (name == "join") {
    NIB_ASSIGN(const Values items, template_items(argument, work));
    for (const Value& item : items)
      if (!item.is(Kind::string)) return wrong_kind("joining", item);
    return joined(argument, of.marked(), work);
  }
  if (!argument.is(Kind::string)) return wrong_kind("finding", argument);
  const std::size_t at = text.find(argument.text());
  if (at == text.npos) return Value::of(std::int64_t{-1});
  return Value::of(static_cast<std::int64_t>(characters_of(std::string_view(text).substr(0, at)).size()));
}

}  // namespace nib::inline v0
