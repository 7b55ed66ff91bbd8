#include "harmony_schema.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>
#include <charconv>
#include <set>

namespace nib::inline v0 {
namespace {

constexpr int kDeepest = 64;  // nested schemas; JSON read with default limits is not deeper either

const std::string* text_of(const Json& schema, std::string_view key) {
  const Json* value = schema.find(key);
  return value && value->is_string() ? &value->as_string() : nullptr;
}
const std::vector<Json>* list_of(const Json& schema, std::string_view key) {
  const Json* value = schema.find(key);
  return value && value->is_array() ? &value->items() : nullptr;
}
bool is_enum(const Json& schema) {
  const auto* values = list_of(schema, "enum");
  return values && !values->empty();
}

// A number with its shortest digits, as the reference writes them: plain from 0.00001 to 16 digits, with an
// exponent elsewhere.
std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));  // "-1.25e+07"
  const std::size_t e = text.find('e');
  const std::string sign = value < 0 || text.front() == '-' ? "-" : "";
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  int exponent = 0;
  std::from_chars(text.data() + e + 1 + (text[e + 1] == '+'), text.data() + text.size(), exponent);
  const int point = exponent + 1;  // where it stands, counted from the first digit
  const int count = static_cast<int>(digits.size());
  const auto zeros = [](int n) { return std::string(static_cast<std::size_t>(n), '0'); };
  if (point > 16 || point <= -5)
    return concat(sign, digits.substr(0, 1), count > 1 ? "." : "", digits.substr(1), "e", exponent);
  if (point <= 0) return concat(sign, "0.", zeros(-point), digits);
  if (point >= count) return concat(sign, digits, zeros(point - count), ".0");
  return concat(sign, digits.substr(0, static_cast<std::size_t>(point)), ".",
                digits.substr(static_cast<std::size_t>(point)));
}

// "default: ..." of a schema, or nothing. Strings are quoted, but the value of an enum only inside a nested
// union.
std::string default_comment(const Json& schema, bool quote_enum = false) {
  const Json* value = schema.find("default");
  if (!value) return "";
  if (value->kind() == Json::Kind::number) return concat("default: ", number_text(value->as_double()));
  if (!value->is_string()) return concat("default: ", write_json(*value));
  const char* quote = is_enum(schema) && !quote_enum ? "" : "\"";
  return concat("default: ", quote, value->as_string(), quote);
}

// The type text of one schema, as the model was trained to read it.
class TypeWriter {
 public:
  std::string type(const Json& schema, const std::string& indent) {
    if (++depth_ > kDeepest) {
      too_deep_ = true;
      --depth_;
      return "any";
    }
    std::string text = one_type(schema, indent);
    --depth_;
    return text;
  }
  bool too_deep() const { return too_deep_; }

 private:
  std::string one_type(const Json& schema, const std::string& indent) {
    if (const auto* variants = list_of(schema, "oneOf")) return union_type(*variants, indent);
    if (const auto* types = list_of(schema, "type")) {
      std::string joined;
      for (const Json& type : *types)
        if (type.is_string())
          joined += concat(joined.empty() ? "" : " | ",
                           type.as_string() == "integer" ? "number" : type.as_string());
      if (!joined.empty()) return joined;
    }
    const std::string* name = text_of(schema, "type");
    if (!name) return "any";
    if (*name == "object") return object_type(schema, indent);
    if (*name == "string") return string_type(schema);
    if (*name == "number" || *name == "integer") return "number";
    if (*name == "boolean") return "boolean";
    if (*name == "array") {
      const Json* items = schema.find("items");
      return items ? type(*items, indent) + "[]" : "Array<any>";
    }
    return "any";
  }

  // Alternatives, each on a line of its own.
  std::string union_type(const std::vector<Json>& variants, const std::string& indent) {
    std::string text;
    for (const Json& variant : variants)
      text += "\n" +
              variant_line(variant, text_of(variant, "description"), default_comment(variant, true), indent);
    return text;
  }

  std::string variant_line(const Json& variant, const std::string* description, const std::string& fallback,
                           const std::string& indent) {
    std::string line = concat(indent, " | ", nullable_type(variant, indent + "   "));
    if (description || !fallback.empty()) line += " // ";
    if (description) line += *description;
    if (description && !fallback.empty()) line += ' ';
    return line + fallback;
  }

  static std::string string_type(const Json& schema) {
    const auto* values = list_of(schema, "enum");
    if (!values) return "string";
    std::string joined;
    for (const Json& value : *values)
      if (value.is_string()) joined += concat(joined.empty() ? "" : " | ", "\"", value.as_string(), "\"");
    return joined.empty() ? "string" : joined;
  }

  std::string object_type(const Json& schema, const std::string& indent) {
    std::string text;
    if (const std::string* description = text_of(schema, "description"))
      text += concat(indent, "// ", *description, "\n");
    text += "{\n";
    std::set<std::string_view> required;
    if (const auto* names = list_of(schema, "required"))
      for (const Json& name : *names)
        if (name.is_string()) required.insert(name.as_string());
    const Json* properties = schema.find("properties");
    if (properties && properties->is_object())
      for (const auto& [key, value] : properties->members())
        property(key, value, !required.count(key), indent, text);
    return text + indent + "}";
  }

  void property(const std::string& key, const Json& value, bool optional, const std::string& indent,
                std::string& text) {
    const auto* variants = list_of(value, "oneOf");
    const std::string* description = text_of(value, "description");
    if (const std::string* title = text_of(value, "title"))
      text += concat(indent, "// ", *title, "\n", indent, "//\n");
    if (!value.find("oneOf") && description) text += concat(indent, "// ", *description, "\n");
    if (const auto* examples = list_of(value, "examples"); examples && !examples->empty()) {
      text += concat(indent, "// Examples:\n");
      for (const Json& example : *examples)
        if (example.is_string()) text += concat(indent, "// - \"", example.as_string(), "\"\n");
    }
    const char* mark = optional ? "?" : "";
    if (variants) return union_property(key, value, *variants, mark, indent, text);
    const std::string type_text = nullable_type(value, indent + "    ");
    text += concat(indent, key, mark, ": ", type_text, ",");
    if (const std::string fallback = default_comment(value); !fallback.empty())
      text += concat(" // ", fallback);
    text += "\n";
  }

  std::string nullable_type(const Json& value, const std::string& indent) {
    std::string text = type(value, indent);
    const Json* nullable = value.find("nullable");
    if (nullable && nullable->is_bool() && nullable->as_bool() && text.find("null") == std::string::npos)
      text += " | null";
    return text;
  }

  // A property that is one of several: its comments stand above it, the alternatives below, the comma last.
  void union_property(const std::string& key, const Json& value, const std::vector<Json>& variants,
                      const char* mark, const std::string& indent, std::string& text) {
    const std::string* description = text_of(value, "description");
    const std::string* first = variants.empty() ? nullptr : text_of(variants.front(), "description");
    const bool repeated = description && first && *description == *first;
    if (description && !repeated) text += concat(indent, "// ", *description, "\n");
    if (const std::string fallback = default_comment(value); !fallback.empty())
      text += concat(indent, "// ", fallback, "\n");
    text += concat(indent, key, mark, ":\n");
    for (const Json& variant : variants) {
      const std::string* own = text_of(variant, "description");
      const bool said_above = description && own && (&variant == &variants.front() || *own == *description);
      text += variant_line(variant, said_above ? nullptr : own, default_comment(variant), indent) + "\n";
    }
    text += concat(indent, ",\n");
  }

  int depth_ = 0;
  bool too_deep_ = false;
};

// Calls each(line) for the lines of a text; a last line end begins no line.
template <class Each>
void for_each_line(std::string_view text, Each&& each) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    each(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

Result<std::string> tools_section(const std::vector<ToolNamespace>& namespaces) {
  std::string text = "# Tools";
  TypeWriter writer;
  // In the order of their names, whatever order the caller had: so the model was trained to see them.
  std::vector<const ToolNamespace*> sorted;
  for (const ToolNamespace& space : namespaces) sorted.push_back(&space);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return a->name < b->name; });
  for (const ToolNamespace* next : sorted) {
    const ToolNamespace& space = *next;
    text += concat("\n\n## ", space.name, "\n");
    for_each_line(space.description, [&](std::string_view line) {
      text += concat("\n", space.tools.empty() ? "" : "// ", line);
    });
    if (space.tools.empty()) continue;
    text += concat("\nnamespace ", space.name, " {\n");
    for (const FunctionTool& tool : space.tools) {
      for_each_line(tool.description, [&](std::string_view line) { text += concat("\n// ", line); });
      text += concat("\ntype ", tool.name, " = (",
                     tool.parameters ? "_: " + writer.type(*tool.parameters, "") : "", ") => any;\n");
    }
    text += concat("\n} // namespace ", space.name);
  }
  if (writer.too_deep())
    return Status(Code::unsupported, concat("tools: a schema is nested deeper than ", kDeepest));
  return text;
}

}  // namespace nib::inline v0
