// Room base: a bounded JSON reader. It lives in base because both io (configs, safetensors headers) and text
// (tokenizers, tool schemas) read JSON, and neither may include the other.
//
// Two faces over one parser (nlohmann-json's SAX interface, private to src/base/json.cpp):
//   parse_json(text, limits, handler)   events, for large documents (tokenizer.json is 12 MB)
//   parse_json(text, limits)            a Json tree, for small ones (config.json)
// Strict RFC 8259: UTF-8 checked, no trailing text, no comments, no NaN. Depth, size and number of values are
// limited; nothing recurses on input (trees are torn down iteratively too).
#pragma once

#include <nibble/base/status.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;  // of the document
  std::size_t max_depth = 64;                     // nested arrays and objects
  std::size_t max_values = 10'000'000;            // scalars, keys, arrays and objects together
};

// Receives a document in order. Each function returns a Status; anything but ok ends the parse with it.
// Strings are unescaped UTF-8, valid only during the call.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual Status on_null() = 0;
  virtual Status on_bool(bool value) = 0;
  virtual Status on_integer(std::int64_t value) = 0;  // any number without fraction or exponent that fits
  virtual Status on_number(double value) = 0;         // every other number (finite)
  virtual Status on_string(std::string_view value) = 0;
  virtual Status on_key(std::string_view key) = 0;
  virtual Status on_object_begin() = 0;
  virtual Status on_object_end() = 0;
  virtual Status on_array_begin() = 0;
  virtual Status on_array_end() = 0;
};

// Parses `text`. `name` is the file (or what else the text is), used in messages: "config.json: byte 17:
// ...". Errors: format (not JSON, or over a limit), or what the handler returned. Any thread.
Status parse_json(std::string_view text, std::string_view name, const JsonLimits& limits,
                  JsonHandler& handler);

// A JSON value. Objects keep their order and their duplicates (find gives the last, as Python does).
class Json {
 public:
  enum class Kind : std::uint8_t { null, boolean, integer, number, string, array, object };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  ~Json();
  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;
  Json(const Json&);
  Json& operator=(const Json&);

  static Json of(bool value);
  static Json of(std::int64_t value);
  static Json of(double value);
  static Json of(std::string value);
  static Json array(std::vector<Json> items);
  static Json object(std::vector<Member> members);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_bool() const { return kind_ == Kind::boolean; }
  bool is_integer() const { return kind_ == Kind::integer; }
  bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::number; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }

  // Each requires the matching kind; as_double takes integers too.
  bool as_bool() const { return integer_ != 0; }
  std::int64_t as_integer() const { return integer_; }
  double as_double() const { return kind_ == Kind::integer ? static_cast<double>(integer_) : number_; }
  const std::string& as_string() const { return string_; }
  const std::vector<Json>& items() const { return items_; }        // array
  const std::vector<Member>& members() const { return members_; }  // object

  // The last member of that key, or null pointer (also when this is no object).
  const Json* find(std::string_view key) const;

 private:
  Kind kind_ = Kind::null;
  std::int64_t integer_ = 0;
  double number_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

// The tree of `text`; errors as above.
Result<Json> parse_json(std::string_view text, std::string_view name, const JsonLimits& limits = {});

// Compact text as Python's json.dumps(value, ensure_ascii=False, separators=(",", ":")) writes it, with
// `space` after ':' and ',' as its default separators do.
std::string write_json(const Json& value, bool space = false);

}  // namespace nib::inline v0
