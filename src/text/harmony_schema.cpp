#include "harmony_schema.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>

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

// "default: ..." of a schema, or nothing. Strings are quoted, but the value of an enum only inside a nested
// union.
std::string default_comment(const Json& schema, bool quote_enum = false) {
  const Json* value = schema.find("default");
  if (!value) return "";
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

  // Alternatives, each on a line of its own with its comments behind it.
  std::string union_type(const std::vector<Json>& variants, const std::string& indent) {
    std::string text;
    for (const Json& variant : variants) {
      text += concat("\n", indent, " | ", nullable_type(variant, indent + "   "));
      std::string comment;
      if (const std::string* description = text_of(variant, "description")) comment = *description;
      if (const std::string fallback = default_comment(variant, true); !fallback.empty())
        comment += concat(comment.empty() ? "" : " ", fallback);
      if (!comment.empty()) text += concat(" // ", comment);
    }
    return text;
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
    const Json* properties = schema.find("properties");
    if (properties && properties->is_object())
      for (const auto& [key, value] : properties->members()) {
        const auto* required = list_of(schema, "required");
        const bool optional =
            !required || std::none_of(required->begin(), required->end(), [&](const Json& name) {
              return name.is_string() && name.as_string() == key;
            });
        property(key, value, optional, indent, text);
      }
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
    for (std::size_t i = 0; i < variants.size(); ++i) {
      const Json& variant = variants[i];
      text += concat(indent, " | ", nullable_type(variant, indent + "   "));
      std::string comment;
      const std::string* own = text_of(variant, "description");
      if (own && !(description && (i == 0 || *own == *description))) comment = *own;
      if (const std::string fallback = default_comment(variant); !fallback.empty())
        comment += concat(comment.empty() ? "" : " ", fallback);
      if (!comment.empty()) text += concat(" // ", comment);
      text += "\n";
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
  for (const ToolNamespace& space : namespaces) {
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
