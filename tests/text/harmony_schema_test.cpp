// Harmony, tools as the model is shown them: the texts that the openai-harmony package gave for each schema
// of harmony_schemas.jsonl (harmony_peer.py --record), and the limits.
#include "harmony_rig.hpp"

#include <sstream>

namespace nib::test {
namespace {

Result<Message> with_parameters(std::optional<Json> parameters) {
  DeveloperContent content;
  content.functions.push_back({"f", "", std::move(parameters)});
  return developer_message(content);
}

TEST_CASE("schemas as the reference writes them") {
  std::istringstream lines(read_text(NIBBLE_HARMONY_SCHEMAS));
  int seen = 0;
  for (std::string line; std::getline(lines, line); ++seen) {
    const Json recorded = parse_json(line, "harmony_schemas.jsonl").take();
    CAPTURE(recorded.find("name")->as_string());
    const Json& parameters = *recorded.find("parameters");
    const auto message = with_parameters(parameters.is_null() ? std::nullopt : std::optional(parameters));
    REQUIRE(message.ok());
    CHECK(message->content == recorded.find("text")->as_string());
  }
  CHECK(seen > 15);
}

std::string nested(int depth, const std::string& open, const std::string& close) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += R"({"type": "string"})";
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

TEST_CASE("a schema that nests too deeply is an error, not a crash") {
  const std::pair<const char*, const char*> ways[] = {{R"({"type": "array", "items": )", "}"},
                                                      {R"({"oneOf": [)", "]}"},
                                                      {R"({"type": "object", "properties": {"k": )", "}}"}};
  for (const auto& [open, close] : ways) {
    const auto parameters = [&, begin = open, end = close](int depth) {
      return parse_json(nested(depth, begin, end), "schema", {.max_depth = 100'000}).take();
    };
    CHECK(with_parameters(parameters(63)).ok());
    for (const int depth : {64, 40'000}) {
      const auto refused = with_parameters(parameters(depth));
      CHECK(refused.status().code() == Code::unsupported);
      CHECK(refused.status().message().find("64") != std::string::npos);
    }
  }
}

TEST_CASE("namespaces stand in the order of their names") {
  const auto text = [](std::vector<ToolNamespace> tools) {
    return system_message({.tools = std::move(tools)})->content;
  };
  const ToolNamespace zoo{"zoo", "animals\nof all kinds", {{.name = "feed", .description = ""}}};
  const std::string sorted = text({browser_tools(), python_tool(), zoo});
  CHECK(text({zoo, python_tool(), browser_tools()}) == sorted);
  CHECK(sorted.find("## browser") < sorted.find("## python"));
  CHECK(
      sorted.find("\n\n## zoo\n\n// animals\n// of all kinds\nnamespace zoo {\n\ntype feed = () => any;\n\n} "
                  "// namespace zoo\n\n# Valid") != std::string::npos);
  // A tool without functions is its description, not commented out.
  CHECK(sorted.find("## python\n\nUse this tool to execute Python code in your chain of thought.") !=
        std::string::npos);
}

}  // namespace
}  // namespace nib::test
