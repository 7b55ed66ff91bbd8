// What templates call by name: filters, tests, methods; and how they look into values. Private to the room.
#pragma once

#include "template_value.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/template.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// What a rendering may still do.
class TemplateWork {
 public:
  explicit TemplateWork(const TemplateLimits& limits) : limits_(limits), left_(limits.steps) {}
  // Errors: format, when the steps are spent.
  Status spend(std::size_t steps) {
    if (steps > left_) return {Code::format, concat("takes more than ", limits_.steps, " steps")};
    left_ -= steps;
    return {};
  }
  // Before so many bytes of text are made.
  Status spend_text(std::size_t bytes) {
    if (bytes > limits_.output) return {Code::format, concat("makes more than ", limits_.output, " bytes")};
    return spend(bytes / 16 + 1);
  }

 private:
  const TemplateLimits& limits_;
  std::size_t left_;
};

struct TemplateArguments {
  std::vector<TemplateValue> plain;
  std::vector<TemplateValue::Member> named;

  // The one at a place or of a name, or null.
  const TemplateValue* find(std::size_t place, std::string_view name) const {
    if (place < plain.size()) return &plain[place];
    for (const auto& [key, value] : named)
      if (key == name) return &value;
    return nullptr;
  }
};

// All give errors without file and line: format.
Result<TemplateValue> template_attribute(const TemplateValue& of, const std::string& name);  // of.name
Result<TemplateValue> template_item(const TemplateValue& of, const TemplateValue& key);      // of[key]
// What a loop runs over.
Result<std::vector<TemplateValue>> template_items(const TemplateValue& of, TemplateWork& work);
Result<bool> template_contains(const TemplateValue& all, const TemplateValue& one);  // one in all
// -1, 0, 1. `sign` is for the message.
Result<int> template_order(const TemplateValue& a, const TemplateValue& b, std::string_view sign);

Result<TemplateValue> template_filter(std::string_view name, const TemplateValue& in,
                                      const TemplateArguments& arguments, TemplateWork& work);
Result<bool> template_test(std::string_view name, const TemplateValue& in,
                           const std::vector<TemplateValue>& arguments);
Result<TemplateValue> template_method(std::string_view name, const TemplateValue& of,
                                      const TemplateArguments& arguments, TemplateWork& work);
// a + b, -, *, // or % of whole numbers.
Result<TemplateValue> template_whole(std::string_view sign, std::int64_t a, std::int64_t b);
// strftime of Python, in English.
Result<std::string> template_date(std::string_view format, const TemplateDate& date);

}  // namespace nib::inline v0
