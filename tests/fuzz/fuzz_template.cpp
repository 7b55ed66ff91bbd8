// Any text is a template or refused by a sentence about it; what opens renders a conversation, within its
// limits, or refuses, and does so the same way twice.
#include <nibble/text/template.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nib;
  static const Json kVariables =
      parse_json(
          R"({"messages":[{"role":"system","content":"Be \"kind\"."},{"role":"user","content":" h\u00e9 \n"},)"
          R"({"role":"assistant","content":null,"tool_calls":[{"id":"call00001","function":{"name":"f",)"
          R"("arguments":{"x":1,"y":[2.5,true]}}}]},{"role":"tool","content":"1"}],"bos_token":"<s>",)"
          R"("eos_token":"</s>","add_generation_prompt":true,"tools":[{"type":"function","function":{)"
          R"("name":"f","description":"d","parameters":{"type":"object","properties":{"x":{"type":"array",)"
          R"("items":{"oneOf":[{"type":"string"},{"type":"object"}]}}}}}}]})",
          "variables")
          .take();
  const auto check = [](const Status& status) {
    if (!status.message().starts_with("input: ") ||
        (status.code() != Code::format && status.code() != Code::unsupported &&
         status.code() != Code::argument))
      std::abort();
  };
  const auto parsed = Template::parse(std::string_view(reinterpret_cast<const char*>(data), size), "input");
  if (!parsed.ok()) {
    check(parsed.status());
    return 0;
  }
  const TemplateLimits limits{.output = 1 << 16, .steps = 20'000};
  const auto first = parsed->render(kVariables, TemplateDate{2026, 1, 5, 13, 7, 9}, limits);
  const auto second = parsed->render_marked(kVariables, TemplateDate{2026, 1, 5, 13, 7, 9}, limits);
  if (first.ok() != second.ok()) std::abort();
  if (!first.ok()) {
    check(first.status());
    return 0;
  }
  if (first->size() > limits.output || *first != second->text) std::abort();
  // Its own words are parts of it, apart from each other.
  std::size_t end = 0;
  for (const TextRange& range : second->own) {
    if (range.begin < end + (end > 0) || range.end <= range.begin || range.end > first->size()) std::abort();
    end = range.end;
  }
  return 0;
}
