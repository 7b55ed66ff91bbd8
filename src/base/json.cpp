#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/within_memory.hpp>

#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include <nlohmann/json.hpp>

namespace nib::inline v0 {
namespace {

// Walks the document for nlohmann's lexer and lets us see how far it got, which its events do not tell.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  explicit Cursor(const char** at) : at_(at) {}
  reference operator*() const { return **at_; }
  Cursor& operator++() {
    ++*at_;
    return *this;
  }
  bool operator!=(const Cursor& end) const { return *at_ != *end.at_; }
  bool operator==(const Cursor& end) const { return *at_ == *end.at_; }

 private:
  const char** at_;
};

// nlohmann says "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while parsing
// value - invalid literal; last read: '...'". Users get the part between the position (we give the byte) and
// the quotation (which may be megabytes of anything).
std::string_view essence(std::string_view what) {
  if (const auto sentence = what.find(": "); sentence != what.npos) what.remove_prefix(sentence + 2);
  return what.substr(0, what.find("; last read: '"));
}

// Counts and bounds what the lexer finds, and hands it on.
class Bounded {
 public:
  using Value = nlohmann::json;

  Bounded(std::string_view text, std::string_view name, const JsonLimits& limits, JsonHandler& handler)
      : begin_(text.data()), at_(text.data()), name_(name), limits_(limits), handler_(handler) {}

  const char** at() { return &at_; }
  Status take_status() { return std::move(status_); }

  bool null() { return count() && keep(handler_.on_null()); }
  bool boolean(bool value) { return count() && keep(handler_.on_bool(value)); }
  bool number_integer(std::int64_t value) { return count() && keep(handler_.on_integer(value)); }
  bool number_unsigned(std::uint64_t value) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return count() && keep(handler_.on_number(static_cast<double>(value)));
    return number_integer(static_cast<std::int64_t>(value));
  }
  bool number_float(double value, const std::string&) { return count() && keep(handler_.on_number(value)); }
  bool string(std::string& value) { return count() && keep(handler_.on_string(value)); }
  bool key(std::string& value) { return count() && keep(handler_.on_key(value)); }
  bool start_object(std::size_t) { return enter() && keep(handler_.on_object_begin()); }
  bool start_array(std::size_t) { return enter() && keep(handler_.on_array_begin()); }
  bool end_object() { return leave() && keep(handler_.on_object_end()); }
  bool end_array() { return leave() && keep(handler_.on_array_end()); }
  bool binary(Value::binary_t&) { return false; }  // no text contains one; the interface wants it

  bool parse_error(std::size_t, const std::string&, const Value::exception& error) {
    constexpr int kNumberOverflow = 406;
    return refuse(error.id == kNumberOverflow ? "a number is too large" : essence(error.what()));
  }

 private:
  bool keep(Status status) {
    if (status.ok()) return true;
    status_ = std::move(status);
    return false;
  }
  bool refuse(std::string_view sentence) {
    return keep({Code::format, concat(name_, ": byte ", at_ - begin_, ": ", sentence)});
  }
  bool count() {
    if (++values_ <= limits_.max_values) return true;
    return refuse(concat("more than ", limits_.max_values, " values"));
  }
  bool enter() {
    if (!count()) return false;
    if (++depth_ <= limits_.max_depth) return true;
    return refuse(concat("nested deeper than ", limits_.max_depth, " levels"));
  }
  bool leave() {
    --depth_;
    return true;
  }

  const char* begin_;
  const char* at_;
  std::string_view name_;
  const JsonLimits& limits_;
  JsonHandler& handler_;
  Status status_;
  std::size_t depth_ = 0, values_ = 0;
};

// Builds the tree: the open containers are a stack, a closed one moves into the one below it.
class TreeBuilder final : public JsonHandler {
 public:
  Json take() { return std::move(root_); }

  Status on_null() override { return put(Json()); }
  Status on_bool(bool value) override { return put(Json::of(value)); }
  Status on_integer(std::int64_t value) override { return put(Json::of(value)); }
  Status on_number(double value) override { return put(Json::of(value)); }
  Status on_string(std::string_view value) override { return put(Json::of(std::string(value))); }
  Status on_key(std::string_view key) override {
    open_.back().keys.emplace_back(key);
    return {};
  }
  Status on_object_begin() override { return begin(); }
  Status on_array_begin() override { return begin(); }
  Status on_object_end() override {
    Open closed = end();
    std::vector<Json::Member> members;
    members.reserve(closed.values.size());
    for (std::size_t i = 0; i < closed.values.size(); ++i)
      members.emplace_back(std::move(closed.keys[i]), std::move(closed.values[i]));
    return put(Json::object(std::move(members)));
  }
  Status on_array_end() override { return put(Json::array(end().values)); }

 private:
  struct Open {
    std::vector<std::string> keys;  // of an object
    std::vector<Json> values;
  };

  Status begin() {
    open_.emplace_back();
    return {};
  }
  Open end() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    return closed;
  }
  Status put(Json value) {
    if (open_.empty())
      root_ = std::move(value);
    else
      open_.back().values.push_back(std::move(value));
    return {};
  }

  Json root_;
  std::vector<Open> open_;
};

void write_string(std::string_view text, std::string& out) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[(c >> 4) & 15];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

// Python's repr(float): the fewest digits that read back as the same value, plain between 1e-4 and 1e16.
void write_number(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    return;
  }
  char text[400];  // 1e-4 to 1e16 in plain form is short; scientific form shorter still
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(text, text + sizeof text, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  out.append(text, end);
  if (plain && !std::memchr(text, '.', static_cast<std::size_t>(end - text))) out += ".0";
}

void write_scalar(const Json& value, std::string& out) {
  switch (value.kind()) {
    case Json::Kind::null:
      out += "null";
      break;
    case Json::Kind::boolean:
      out += value.as_bool() ? "true" : "false";
      break;
    case Json::Kind::integer:
      out += concat(value.as_integer());
      break;
    case Json::Kind::number:
      write_number(value.as_double(), out);
      break;
    case Json::Kind::string:
      write_string(value.as_string(), out);
      break;
    case Json::Kind::array:
    case Json::Kind::object:
      break;
  }
}

std::size_t child_count(const Json& value) {
  return value.is_array() ? value.items().size() : value.members().size();
}

}  // namespace

Status parse_json(std::string_view text, std::string_view name, const JsonLimits& limits,
                  JsonHandler& handler) {
  if (text.size() > limits.max_bytes)
    return {Code::format,
            concat(name, ": ", text.size(), " bytes of JSON, at most ", limits.max_bytes, " are read")};
  if (text.empty()) return {Code::format, concat(name, ": byte 0: unexpected end of input")};
  // Two things that nlohmann's lexer lets pass and RFC 8259 does not: it takes a zero byte for the end of the
  // text and skips a byte order mark.
  if (const void* zero = std::memchr(text.data(), 0, text.size()))
    return {Code::format, concat(name, ": byte ", static_cast<const char*>(zero) - text.data(),
                                 ": a zero byte, which JSON must not contain")};
  if (text.starts_with("\xef\xbb\xbf"))
    return {Code::format, concat(name, ": byte 0: a byte order mark, which JSON must not contain")};
  return within_memory(name, [&]() -> Status {
    Bounded bounded(text, name, limits, handler);
    const char* end = text.data() + text.size();
    if (nlohmann::json::sax_parse(Cursor(bounded.at()), Cursor(&end), &bounded)) return {};
    return bounded.take_status();
  });
}

Result<Json> parse_json(std::string_view text, std::string_view name, const JsonLimits& limits) {
  TreeBuilder builder;
  NIB_TRY(parse_json(text, name, limits, builder));
  return builder.take();
}

Json Json::of(bool value) {
  Json json;
  json.kind_ = Kind::boolean;
  json.integer_ = value ? 1 : 0;
  return json;
}
Json Json::of(std::int64_t value) {
  Json json;
  json.kind_ = Kind::integer;
  json.integer_ = value;
  return json;
}
Json Json::of(double value) {
  Json json;
  json.kind_ = Kind::number;
  json.number_ = value;
  return json;
}
Json Json::of(std::string value) {
  Json json;
  json.kind_ = Kind::string;
  json.string_ = std::move(value);
  return json;
}
Json Json::array(std::vector<Json> items) {
  Json json;
  json.kind_ = Kind::array;
  json.items_ = std::move(items);
  return json;
}
Json Json::object(std::vector<Member> members) {
  Json json;
  json.kind_ = Kind::object;
  json.members_ = std::move(members);
  return json;
}

Json::Json(Json&& other) noexcept
    : kind_(std::exchange(other.kind_, Kind::null)),
      integer_(other.integer_),
      number_(other.number_),
      string_(std::move(other.string_)),
      items_(std::move(other.items_)),
      members_(std::move(other.members_)) {}

Json& Json::operator=(Json&& other) noexcept {
  Json taken(std::move(other));
  std::swap(kind_, taken.kind_);
  std::swap(integer_, taken.integer_);
  std::swap(number_, taken.number_);
  string_.swap(taken.string_);
  items_.swap(taken.items_);
  members_.swap(taken.members_);
  return *this;
}

// Tears the tree down in a loop that needs no memory of its own, so it can neither exhaust the stack nor
// fail. `top` is the container at hand; its children are taken off the end. A child that has children itself
// becomes the new top, and the old top waits in that child's first place; who sat there moves to the place in
// the old top that the child has just left, which is why no vector grows.
Json::~Json() {
  const auto has_children = [](const Json& of) { return !of.items_.empty() || !of.members_.empty(); };
  const auto first = [](Json& of) -> Json& {
    return of.items_.empty() ? of.members_.front().second : of.items_.front();
  };
  if (!has_children(*this)) return;
  Json top(std::move(*this));
  while (has_children(top)) {
    const bool is_array = !top.items_.empty();
    Json child = std::move(is_array ? top.items_.back() : top.members_.back().second);
    if (is_array)
      top.items_.pop_back();
    else
      top.members_.pop_back();
    if (!has_children(child)) continue;
    if (has_children(top)) {
      if (is_array)
        top.items_.push_back(std::move(first(child)));
      else
        top.members_.emplace_back(std::string(), std::move(first(child)));
      first(child) = std::move(top);
    }
    top = std::move(child);
  }
}

Json::Json(const Json& other) {
  std::vector<std::pair<const Json*, Json*>> pending = {{&other, this}};
  while (!pending.empty()) {
    const auto [from, to] = pending.back();
    pending.pop_back();
    to->kind_ = from->kind_;
    to->integer_ = from->integer_;
    to->number_ = from->number_;
    to->string_ = from->string_;
    to->items_.resize(from->items_.size());
    for (std::size_t i = 0; i < from->items_.size(); ++i)
      pending.emplace_back(&from->items_[i], &to->items_[i]);
    to->members_.resize(from->members_.size());
    for (std::size_t i = 0; i < from->members_.size(); ++i) {
      to->members_[i].first = from->members_[i].first;
      pending.emplace_back(&from->members_[i].second, &to->members_[i].second);
    }
  }
}

Json& Json::operator=(const Json& other) {
  if (this != &other) *this = Json(other);
  return *this;
}

const Json* Json::find(std::string_view key) const {
  for (auto member = members_.rbegin(); member != members_.rend(); ++member)
    if (member->first == key) return &member->second;
  return nullptr;
}

std::string write_json(const Json& value, bool space) {
  struct Open {
    const Json* container;
    std::size_t next;
  };
  std::string out;
  std::vector<Open> open;
  const auto begin = [&](const Json& of) {
    if (of.is_array() || of.is_object()) {
      out += of.is_array() ? '[' : '{';
      open.push_back({&of, 0});
    } else {
      write_scalar(of, out);
    }
  };
  begin(value);
  while (!open.empty()) {
    const Json& container = *open.back().container;
    const std::size_t i = open.back().next++;
    if (i == child_count(container)) {
      out += container.is_array() ? ']' : '}';
      open.pop_back();
      continue;
    }
    if (i > 0) out += space ? ", " : ",";
    if (container.is_object()) {
      write_string(container.members()[i].first, out);
      out += space ? ": " : ":";
      begin(container.members()[i].second);
    } else {
      begin(container.items()[i]);
    }
  }
  return out;
}

}  // namespace nib::inline v0
