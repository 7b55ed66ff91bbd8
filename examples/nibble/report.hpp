// Reports: aligned columns for people, JSON for programs.
#pragma once

#include <nibble/base/json.hpp>

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::program {

// Rows of cells; each column as wide as its widest cell, two spaces between. The text says for each column
// 'l' (left) or 'r' (right).
class Table {
 public:
  explicit Table(std::string_view alignment, std::string_view indent = "")
      : alignment_(alignment), indent_(indent) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;

 private:
  std::string alignment_, indent_;
  std::vector<std::vector<std::string>> rows_;
};

// JSON values of what reports are made of.
template <std::integral T>
Json json(T number) {
  return Json::of(static_cast<std::int64_t>(number));
}
inline Json json(bool value) { return Json::of(value); }
inline Json json(double number) { return Json::of(number); }
inline Json json(std::string_view text) { return Json::of(std::string(text)); }
inline Json json(const char* text) { return Json::of(std::string(text)); }
inline Json json(const std::string& text) { return Json::of(text); }
inline Json json_or_null(const std::string& text) { return text.empty() ? Json() : json(text); }

}  // namespace nib::program
