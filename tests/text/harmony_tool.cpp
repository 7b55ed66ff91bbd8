// Our side of harmony_peer.py: reads one JSON request a line, answers with one JSON line.
//   {"render": [messages], "drop": bool}   -> {"ids": [...]}
//   {"parse": [ids], "role": "assistant"}  -> {"messages": [...]} or {"error": "..."}
#include <nibble/base/concat.hpp>
#include <nibble/text/harmony.hpp>

#include <fstream>
#include <iostream>
#include <iterator>

namespace {

using namespace nib;

std::string text(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && value->is_string() ? value->as_string() : "";
}
bool flag(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value && value->is_bool() && value->as_bool();
}
Role role_of(const std::string& name) {
  for (const Role role : {Role::system, Role::developer, Role::user, Role::assistant, Role::tool})
    if (role_name(role) == name) return role;
  return Role::user;
}

std::vector<FunctionTool> functions_of(const Json& list) {
  std::vector<FunctionTool> functions;
  for (const Json& tool : list.items()) {
    const Json* parameters = tool.find("parameters");
    functions.push_back({text(tool, "name"), text(tool, "description"),
                         parameters && !parameters->is_null() ? std::optional(*parameters) : std::nullopt});
  }
  return functions;
}

Message message_of(const Json& json, bool has_functions) {
  const Role role = role_of(text(json, "role"));
  if (const Json* system = json.find("system")) {
    SystemContent content;
    content.current_date = text(*system, "date");
    content.reasoning = text(*system, "reasoning");
    if (flag(*system, "browser")) content.tools.push_back(browser_tools());
    if (flag(*system, "python")) content.tools.push_back(python_tool());
    return system_message(content, has_functions).take();
  }
  if (const Json* developer = json.find("developer"))
    return developer_message({text(*developer, "instructions"), functions_of(*developer->find("functions"))})
        .take();
  return {role,
          text(json, "name"),
          text(json, "recipient"),
          text(json, "channel"),
          text(json, "content_type"),
          text(json, "content")};
}

Json answer(const Harmony& harmony, const Json& request) {
  if (const Json* list = request.find("render")) {
    bool has_functions = false;
    for (const Json& m : list->items())
      if (const Json* developer = m.find("developer"))
        has_functions |= !developer->find("functions")->items().empty();
    std::vector<Message> messages;
    for (const Json& m : list->items()) messages.push_back(message_of(m, has_functions));
    const auto ids = harmony.render(messages, {.drop_analysis = flag(request, "drop")});
    std::vector<Json> out;
    for (const Token id : *ids) out.push_back(Json::of(static_cast<std::int64_t>(id)));
    return Json::object({{"ids", Json::array(std::move(out))}});
  }
  HarmonyParser parser(
      harmony, text(request, "role").empty() ? std::nullopt : std::optional(role_of(text(request, "role"))));
  Status status;
  for (const Json& id : request.find("parse")->items())
    if (status = parser.push(static_cast<Token>(id.as_integer())); !status.ok()) break;
  if (status.ok()) status = parser.finish();
  if (!status.ok()) return Json::object({{"error", Json::of(status.message())}});
  std::vector<Json> out;
  for (const Message& m : parser.messages())
    out.push_back(Json::object({{"role", Json::of(std::string(role_name(m.role)))},
                                {"name", Json::of(m.name)},
                                {"recipient", Json::of(m.recipient)},
                                {"channel", Json::of(m.channel)},
                                {"content_type", Json::of(m.content_type)},
                                {"content", Json::of(m.content)}}));
  return Json::object({{"messages", Json::array(std::move(out))}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  const auto tokenizer = Tokenizer::from_json(json, argv[1]);
  if (!tokenizer.ok()) return std::cerr << tokenizer.status().message() << "\n", 1;
  const auto harmony = Harmony::make(*tokenizer);
  if (!harmony.ok()) return std::cerr << harmony.status().message() << "\n", 1;
  for (std::string line; std::getline(std::cin, line);)
    std::cout << write_json(answer(*harmony, parse_json(line, "request").take())) << std::endl;
}
