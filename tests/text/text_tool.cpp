// Our side of template_peer.py and tokenizer_peer.py: reads a JSON request a line, answers with a JSON line.
//   {"template": source, "variables": {...}, "date": [y, m, d, h, min, s] or null} -> {"text": "..."}
//   {"open": "tokenizer.json" or a .gguf file}                                     -> {"opening": [ids]}
//   {"open": a .gguf file, "write": path}: and its vocabulary as a tokenizer.json there
//   {"encode": text, "special": bool}                            -> {"ids": [...], "text": decoded}
// An answer with "error" says why there is no other.
#include <nibble/base/concat.hpp>
#include <nibble/model/gguf_vocabulary.hpp>
#include <nibble/runtime/vocabulary.hpp>
#include <nibble/text/template.hpp>
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

namespace {

using namespace nib;

Json object(std::string key, Json value) {
  std::vector<Json::Member> members;
  members.emplace_back(std::move(key), std::move(value));
  return Json::object(std::move(members));
}
Json error(const Status& status) {
  return object("error", Json::of(concat(code_name(status.code()), ": ", status.message())));
}
Json list(std::span<const Token> ids) {
  std::vector<Json> items;
  for (const Token id : ids) items.push_back(Json::of(std::int64_t{id}));
  return Json::array(std::move(items));
}

Json render(const Json& request) {
  const auto parsed = Template::parse(request.find("template")->as_string(), "template");
  if (!parsed.ok()) return error(parsed.status());
  std::optional<TemplateDate> date;
  if (const Json* given = request.find("date"); given && given->is_array()) {
    const auto part = [&](std::size_t i) { return static_cast<int>(given->items().at(i).as_integer()); };
    date = TemplateDate{part(0), part(1), part(2), part(3), part(4), part(5)};
  }
  const auto text = parsed->render(*request.find("variables"), date);
  return text.ok() ? object("text", Json::of(*text)) : error(text.status());
}

Result<Tokenizer> open(const std::string& path, const Json* write) {
  if (!path.ends_with(".gguf")) {
    std::ifstream file(path, std::ios::binary);
    return Tokenizer::from_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
  }
  NIB_ASSIGN(const Checkpoint checkpoint, open_vocabulary(path));
  NIB_ASSIGN(const TokenizerData data, tokenizer_data_from_gguf(gguf_vocabulary(*checkpoint.gguf), path));
  if (write) {
    NIB_ASSIGN(const std::string json, tokenizer_json_of(data, path));
    std::ofstream(write->as_string(), std::ios::binary) << json;
  }
  return Tokenizer::from(data, path);
}

Json answer(const Json& request, std::optional<Tokenizer>& tokenizer) {
  if (request.find("template")) return render(request);
  if (const Json* path = request.find("open")) {
    auto opened = open(path->as_string(), request.find("write"));
    if (!opened.ok()) return error(opened.status());
    tokenizer = opened.take();
    return object("opening", list(tokenizer->opening()));
  }
  std::vector<Token> ids;
  const Status status =
      tokenizer->encode(request.find("encode")->as_string(),
                        request.find("special")->as_bool() ? Specials::recognised : Specials::ordinary, ids);
  if (!status.ok()) return error(status);
  std::vector<Json::Member> members;
  members.emplace_back("ids", list(ids));
  members.emplace_back("text", Json::of(tokenizer->decode(ids, Specials::recognised)));
  return Json::object(std::move(members));
}

}  // namespace

int main() {
  std::optional<Tokenizer> tokenizer;
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = parse_json(line, "request");
    std::cout << write_json(request.ok() ? answer(*request, tokenizer) : error(request.status()))
              << std::endl;
  }
}
