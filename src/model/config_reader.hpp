// Reads the keys of a JSON object with their limits, and says of the first that is wrong what was expected.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// Reads keys of one object; the first problem is kept and every later read gives a harmless value.
class Reader {
 public:
  Reader(const Json& object, std::string_view name) : object_(object), name_(name) {}

  const Status& status() const { return status_; }
  const Json* find(std::string_view key) const {
    const Json* value = object_.find(key);
    return value && value->is_null() ? nullptr : value;
  }

  std::uint32_t count(std::string_view key, std::uint32_t most, std::optional<std::uint32_t> otherwise = {}) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_integer() || value->as_integer() < 1 || value->as_integer() > most)
      return fail(key, concat("a whole number from 1 to ", most)), 1u;
    return static_cast<std::uint32_t>(value->as_integer());
  }
  std::uint32_t whole(std::string_view key, std::uint32_t most, std::uint32_t otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_integer() || value->as_integer() < 0 || value->as_integer() > most)
      return fail(key, concat("a whole number from 0 to ", most)), otherwise;
    return static_cast<std::uint32_t>(value->as_integer());
  }
  double positive(std::string_view key, std::optional<double> otherwise = {}) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_number() || !(value->as_double() > 0) || !(value->as_double() < 1e30))
      return fail(key, "a positive number"), 1.0;
    return value->as_double();
  }
  double share(std::string_view key, double otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number() || !(value->as_double() > 0) || !(value->as_double() <= 1))
      return fail(key, "a number above 0 and up to 1"), otherwise;
    return value->as_double();
  }
  bool flag(std::string_view key, bool otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_bool()) return fail(key, "true or false"), otherwise;
    return value->as_bool();
  }
  std::string text(std::string_view key, std::string_view otherwise) {
    const Json* value = find(key);
    if (!value) return std::string(otherwise);
    if (!value->is_string()) return fail(key, "a text"), std::string(otherwise);
    return value->as_string();
  }

  void fail(std::string_view key, std::string_view expected) {
    if (!status_.ok()) return;
    const Json* value = object_.find(key);
    status_ =
        Status(Code::format, concat(name_, ": key \"", key, "\" ", value ? "is " : "is missing",
                                    value ? write_json(*value).substr(0, 80) : "", ", expected ", expected));
  }
  void refuse(std::string_view sentence) {
    if (status_.ok()) status_ = Status(Code::unsupported, concat(name_, ": ", sentence));
  }
  // Takes over what the reader of an inner object found.
  void take(const Status& inner) {
    if (status_.ok()) status_ = inner;
  }

 private:
  const Json& object_;
  std::string_view name_;
  Status status_;
};

}  // namespace nib::inline v0
