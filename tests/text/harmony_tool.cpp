// Our side of harmony_peer.py: reads a JSON request a line, answers with a JSON line.
//   {"render": [messages], "drop": bool, "next": "assistant" or null}  -> {"ids": [...]}
//   {"parse": [ids], "role": "assistant" or null, "lenient": bool}     -> {"messages": [...]}
// An answer with "error" says why there is no other.
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
const std::vector<Json>& list(const Json& object, std::string_view key) {
  static const std::vector<Json> empty;
  const Json* value = object.find(key);
  return value && value->is_array() ? value->items() : empty;
}
std::optional<Role> role(const Json& object, std::string_view key) {
  for (const Role role : {Role::system, Role::developer, Role::user, Role::assistant, Role::tool})
    if (role_name(role) == text(object, key)) return role;
  return {};
}

std::vector<FunctionTool> functions_of(const std::vector<Json>& tools) {
  std::vector<FunctionTool> functions;
  for (const Json& tool : tools) {
    const Json* parameters = tool.find("parameters");
    functions.push_back({text(tool, "name"), text(tool, "description"),
                         parameters && !parameters->is_null() ? std::optional(*parameters) : std::nullopt});
  }
  return functions;
}

SystemContent system_of(const Json& json) {
  SystemContent content{.identity = text(json, "identity"),
                        .knowledge_cutoff = text(json, "cutoff"),
                        .current_date = text(json, "date"),
                        .reasoning = text(json, "reasoning"),
                        .channels = {},
                        .channel_required = flag(json, "required")};
  for (const Json& channel : list(json, "channels")) content.channels.push_back(channel.as_string());
  for (const Json& tool : list(json, "tools")) {
    if (tool.is_string())
      content.tools.push_back(tool.as_string() == "browser" ? browser_tools() : python_tool());
    else
      content.tools.push_back(
          {text(tool, "name"), text(tool, "description"), functions_of(list(tool, "tools"))});
  }
  return content;
}

Result<Message> message_of(const Json& json, bool has_functions) {
  if (const Json* system = json.find("system")) return system_message(system_of(*system), has_functions);
  if (const Json* developer = json.find("developer"))
    return developer_message({.instructions = text(*developer, "instructions"),
                              .functions = functions_of(list(*developer, "functions"))});
  return Message{role(json, "role").value(), text(json, "name"),         text(json, "recipient"),
                 text(json, "channel"),      text(json, "content_type"), text(json, "content")};
}

Result<Json> render(const Harmony& harmony, const Json& request) {
  bool has_functions = false;
  for (const Json& m : list(request, "render"))
    if (const Json* developer = m.find("developer")) has_functions |= !list(*developer, "functions").empty();
  std::vector<Message> messages;
  for (const Json& m : list(request, "render")) {
    NIB_ASSIGN(Message message, message_of(m, has_functions));
    messages.push_back(std::move(message));
  }
  NIB_ASSIGN(const std::vector<Token> ids,
             harmony.render(messages, {flag(request, "drop"), role(request, "next")}));
  std::vector<Json> out;
  for (const Token id : ids) out.push_back(Json::of(static_cast<std::int64_t>(id)));
  return Json::object({{"ids", Json::array(std::move(out))}});
}

Result<Json> parse(const Harmony& harmony, const Json& request) {
  HarmonyParser parser(harmony, role(request, "role"),
                       flag(request, "lenient") ? Strictness::lenient : Strictness::strict);
  std::string deltas, contents;
  for (const Json& id : list(request, "parse")) {
    NIB_TRY(parser.push(static_cast<Token>(id.as_integer())));
    deltas += parser.delta();
  }
  NIB_TRY(parser.finish());
  deltas += parser.delta();
  std::vector<Json> out;
  for (const Message& m : parser.messages()) {
    contents += m.content;
    out.push_back(Json::object({{"role", Json::of(std::string(role_name(m.role)))},
                                {"name", Json::of(m.name)},
                                {"recipient", Json::of(m.recipient)},
                                {"channel", Json::of(m.channel)},
                                {"content_type", Json::of(m.content_type)},
                                {"content", Json::of(m.content)}}));
  }
  if (deltas != contents) return Status(Code::internal, concat("the deltas are ", deltas));
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
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = parse_json(line, "request");
    if (!request.ok()) return std::cerr << request.status().message() << "\n", 1;
    auto answer = request->find("render") ? render(*harmony, *request) : parse(*harmony, *request);
    if (!answer.ok()) answer = Json::object({{"error", Json::of(answer.status().message())}});
    std::cout << write_json(*answer) << std::endl;
  }
}
