// Whose words a text has.
#include "template_value.hpp"

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

using Kind = TemplateValue::Kind;
using Value = TemplateValue;

Result<Value> message_of(const Json& message) {
  constexpr std::uint32_t kDepth = 2;
  if (!message.is_object()) return Value::from(message, kDepth);
  std::vector<Value::Member> members;
  for (const auto& [key, item] : message.members()) {
    NIB_ASSIGN(Value value, Value::from(item, kDepth + 1));
    if (key == "role" && item.is_string()) value = Value::own(item.as_string());
    members.emplace_back(key, std::move(value));
  }
  return Value::dict(std::move(members));
}

}  // namespace

Result<Value> template_variables(const Json& variables) {
  std::vector<Value::Member> members;
  for (const auto& [key, item] : variables.members()) {
    NIB_ASSIGN(Value value, Value::from(item, 1));
    if (key.ends_with("_token") && item.is_string()) value = Value::own(item.as_string());
    if (key == "messages" && item.is_array()) {
      std::vector<Value> messages;
      for (const Json& message : item.items()) {
        NIB_ASSIGN(messages.emplace_back(), message_of(message));
      }
      NIB_ASSIGN(value, Value::list(std::move(messages)));
    }
    members.emplace_back(key, std::move(value));
  }
  return Value::dict(std::move(members));
}

void TemplateText::add_own(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::size_t begin = bytes_.size();
  bytes_ += bytes;
  if (!own_.empty() && own_.back().end == begin)
    own_.back().end = bytes_.size();
  else
    own_.push_back({begin, bytes_.size()});
}

void TemplateText::add_part(const TemplateText& text, std::string_view piece) {
  if (piece.empty()) return;
  const auto begin = static_cast<std::size_t>(piece.data() - text.bytes_.data()), end = begin + piece.size();
  auto range = std::upper_bound(text.own_.begin(), text.own_.end(), begin,
                                [](std::size_t at, const TextRange& own) { return at < own.end; });
  for (std::size_t at = begin; at < end; ++range) {
    const std::size_t own = range == text.own_.end() ? end : std::clamp(range->begin, at, end);
    add_given(piece.substr(at - begin, own - at));
    if (own == end) break;
    at = std::min(range->end, end);
    add_own(piece.substr(own - begin, at - own));
  }
}

void TemplateText::add(const TemplateValue& value) {
  if (value.is(Kind::string)) return add(value.marked());
  std::string text;
  value.print(text);
  // Numbers, truth values and None can say nothing that a template would not.
  if (value.is_number() || value.is(Kind::none))
    add_own(text);
  else
    add_given(text);
}

}  // namespace nib::inline v0
