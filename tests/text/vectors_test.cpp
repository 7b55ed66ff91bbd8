// Real vocabularies and the ids that other implementations computed.
#include "support/data.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;

namespace {

Json parse(std::string_view text, std::string_view name) {
  auto tree = parse_json(text, name);
  REQUIRE_MESSAGE(tree.ok(), tree.status().message());
  return tree.take();
}

void check_vectors(const Tokenizer& tokenizer, const std::string& path) {
  const std::string lines = test::read_text(path);
  std::size_t count = 0;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const Json line = parse(std::string_view(lines).substr(at, end - at), path);
    at = end + 1;
    const std::string& text = line.find("text")->as_string();
    const Specials specials = line.find("special")->as_bool() ? Specials::recognised : Specials::ordinary;
    std::vector<Token> expected, ids;
    for (const Json& id : line.find("ids")->items()) expected.push_back(static_cast<Token>(id.as_integer()));
    const Status status = tokenizer.encode(text, specials, ids);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK_MESSAGE(ids == expected, line.find("id")->as_string());
    CHECK_MESSAGE(tokenizer.decode(expected, Specials::recognised) == text, line.find("id")->as_string());
    ++count;
  }
  CHECK(count > 150);
}

Tokenizer open(const std::string& path, std::span<const Tokenizer::Extra> extra = {}) {
  auto tokenizer = Tokenizer::from_json(test::read_text(path), path, extra);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

}  // namespace

TEST_CASE("gpt-oss: recorded ids") {
  NIB_REQUIRE_DATA(root);
  std::vector<Tokenizer::Extra> reserved;
  for (Token id = 200000; id < 201088; ++id) reserved.push_back({concat("<|reserved_", id, "|>"), id});
  const Tokenizer tokenizer = open(root + "/tokenizers/gpt-oss.tokenizer.json", reserved);
  check_vectors(tokenizer, root + "/tokenizers/vectors/o200k_harmony.jsonl");
  CHECK(tokenizer.size() == 201088);
  CHECK(tokenizer.find_special("<|start|>") == Token{200006});
  CHECK(tokenizer.find_special("<|return|>") == Token{200002});
  CHECK(tokenizer.find_special("<|reserved_201087|>") == Token{201087});
  CHECK(!tokenizer.find_special("<|reserved_200006|>"));
}

TEST_CASE("Llama 3: recorded ids") {
  NIB_REQUIRE_DATA(root);
  const Tokenizer tokenizer = open(root + "/tokenizers/llama-3.tokenizer.json");
  check_vectors(tokenizer, root + "/tokenizers/vectors/llama-3.jsonl");
  CHECK(tokenizer.size() == 128256);
}

TEST_CASE("the vocabularies of others are refused by name") {
  NIB_REQUIRE_DATA(root);
  for (const auto& [file, reason] : {std::pair{"gpt-neox-20b", "NFC"}, std::pair{"mistral", "normalizer"}}) {
    const std::string path = root + "/tokenizers/" + file + ".tokenizer.json";
    const auto tokenizer = Tokenizer::from_json(test::read_text(path), path);
    REQUIRE(!tokenizer.ok());
    CHECK(tokenizer.status().code() == Code::unsupported);
    CHECK(tokenizer.status().message().find(reason) != std::string::npos);
  }
}

TEST_CASE("tales: prompts and answers as recorded") {
  NIB_REQUIRE_DATA(root);
  const Tokenizer tokenizer = open(root + "/models/tales/tokenizer.json");
  CHECK(tokenizer.size() == 4096);
  const Json golden = parse(test::read_text(root + "/models/tales/golden.json"), "golden.json");
  const std::string tensors = test::read_text(root + "/models/tales/golden.safetensors");
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, tensors.data(), 8);
  const Json header = parse(std::string_view(tensors).substr(8, header_size), "golden.safetensors");
  const auto recorded = [&](const std::string& name) {
    const Json& range = *header.find(name)->find("data_offsets");
    std::vector<Token> ids;
    for (auto at = range.items()[0].as_integer(); at < range.items()[1].as_integer(); at += 8) {
      std::int64_t id = 0;
      std::memcpy(&id, tensors.data() + 8 + header_size + static_cast<std::size_t>(at), 8);
      ids.push_back(static_cast<Token>(id));
    }
    return ids;
  };
  for (const std::string name : {"once", "dog", "book"}) {
    const Json& story = *golden.find(name);
    std::vector<Token> ids;
    REQUIRE(tokenizer.encode(story.find("prompt")->as_string(), Specials::recognised, ids).ok());
    CHECK(ids == recorded("greedy_" + name + "_prompt"));
    CHECK(tokenizer.decode(recorded("greedy_" + name), Specials::recognised) ==
          story.find("text")->as_string());
  }
}
