// Real vocabularies and the ids that other implementations computed.
#include "support/data.hpp"
#include "text/gguf.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
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

struct Vector {
  std::string id, text;
  Specials specials;
  std::vector<Token> ids;
};

std::vector<Vector> read_vectors(const std::string& path) {
  const std::string lines = test::read_text(path);
  std::vector<Vector> vectors;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const Json line = parse(std::string_view(lines).substr(at, end - at), path);
    at = end + 1;
    Vector vector{line.find("id")->as_string(),
                  line.find("text")->as_string(),
                  line.find("special")->as_bool() ? Specials::recognised : Specials::ordinary,
                  {}};
    for (const Json& id : line.find("ids")->items())
      vector.ids.push_back(static_cast<Token>(id.as_integer()));
    vectors.push_back(std::move(vector));
  }
  return vectors;
}

// Decoding gives the text back; where it was normalized, a text that encodes to the same ids.
void check_vectors(const Tokenizer& tokenizer, const std::string& path) {
  CAPTURE(path);
  const std::vector<Vector> vectors = read_vectors(path);
  CHECK(vectors.size() > 20);
  std::size_t changed = 0;
  for (const Vector& vector : vectors) {
    CAPTURE(vector.id);
    std::vector<Token> ids, again;
    const Status status = tokenizer.encode(vector.text, vector.specials, ids);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(ids == vector.ids);
    const std::string back = tokenizer.decode(vector.ids, Specials::recognised);
    REQUIRE(tokenizer.encode(back, vector.specials, again).ok());
    CHECK(again == vector.ids);
    if (back != vector.text) ++changed;
    if (tokenizer.lossless()) CHECK(back == vector.text);
  }
  CHECK(changed * 10 <= vectors.size());
}

Tokenizer open_json(const std::string& path, std::span<const Tokenizer::Extra> extra = {}) {
  auto tokenizer = Tokenizer::from_json(test::read_text(path), path, extra);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

// The vocabulary of a GGUF file, written as tokenizer.json and opened from there.
Tokenizer through_json(const std::string& gguf) {
  const auto data = tokenizer_data_from_gguf(test::TrustedGguf::vocabulary(gguf), gguf);
  REQUIRE_MESSAGE(data.ok(), data.status().message());
  const auto json = tokenizer_json_of(*data, gguf);
  REQUIRE_MESSAGE(json.ok(), json.status().message());
  auto tokenizer = Tokenizer::from_json(*json, gguf);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

// Names that tokenizer.json leaves out.
std::vector<Tokenizer::Extra> reserved_of_harmony() {
  std::vector<Tokenizer::Extra> reserved;
  for (Token id = 200000; id < 201088; ++id) reserved.push_back({concat("<|reserved_", id, "|>"), id});
  return reserved;
}

// A published example of llama.cpp: texts behind each other, and a line of ids for each.
void check_examples(const Tokenizer& tokenizer, const std::string& path) {
  CAPTURE(path);
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  std::string texts = test::read_text(path + ".inp"), lines = test::read_text(path + ".out");
  std::size_t count = 0;
  for (std::size_t at = 0, line = 0; at < texts.size() && line < lines.size(); ++count) {
    const std::size_t end = std::min(texts.find(kBetween, at), texts.size());
    std::vector<Token> ids, expected;
    REQUIRE(tokenizer.encode(texts.substr(at, end - at), Specials::ordinary, ids).ok());
    at = end + kBetween.size();
    const std::size_t line_end = std::min(lines.find('\n', line), lines.size());
    std::istringstream numbers(lines.substr(line, line_end - line));
    for (Token id; numbers >> id;) expected.push_back(id);
    line = line_end + 1;
    CHECK_MESSAGE(ids == expected, count);
  }
  CHECK(count > 20);
}

}  // namespace

TEST_CASE("slow: recorded ids of every vocabulary in the folder") {
  NIB_REQUIRE_DATA(root);
  const std::string folder = root + "/tokenizers/";
  // Where the vectors' name is not that of the vocabulary.
  const std::multimap<std::string, std::string> also = {
      {"o200k_harmony", "gpt-oss"}, {"llama-2", "llama-spm"}, {"gpt-neox-20b", "gpt-neox"}};
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "vectors")) {
    const std::string vectors = entry.path().string(), stem = entry.path().stem().string();
    if (entry.path().extension() != ".jsonl") continue;
    std::vector<std::string> names = {stem};
    for (auto [at, end] = also.equal_range(stem); at != end; ++at) names.push_back(at->second);
    std::size_t opened = 0;
    for (const std::string& name : names) {
      const std::string json = folder + name + ".tokenizer.json",
                        gguf = folder + "ggml-vocab-" + name + ".gguf";
      if (std::filesystem::exists(json)) {
        const auto extra = stem == "o200k_harmony" ? reserved_of_harmony() : std::vector<Tokenizer::Extra>();
        check_vectors(open_json(json, extra), vectors);
        ++opened;
      }
      if (std::filesystem::exists(gguf)) {
        check_vectors(test::open_gguf(gguf), vectors);
        check_vectors(through_json(gguf), vectors);
        ++opened;
      }
    }
    CHECK_MESSAGE(opened > 0, "no vocabulary for " << vectors);
    ++files;
  }
  CHECK(files > 0);
}

TEST_CASE("slow: llama.cpp's examples of every vocabulary in the folder") {
  NIB_REQUIRE_DATA(root);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/tokenizers")) {
    if (entry.path().extension() != ".inp") continue;
    const std::string gguf = entry.path().string().substr(0, entry.path().string().size() - 4);
    // The one whose vocabulary is there only as tokenizer.json.
    const std::string json = root + "/tokenizers/llama-3.tokenizer.json";
    if (std::filesystem::exists(gguf)) {
      check_examples(test::open_gguf(gguf), gguf);
      check_examples(through_json(gguf), gguf);
    } else if (gguf.ends_with("llama-bpe.gguf")) {
      check_examples(open_json(json), gguf);
    } else {
      FAIL_CHECK("no vocabulary for " << gguf);
    }
    ++files;
  }
  CHECK(files > 0);
}

TEST_CASE("what vocabularies say beside their tokens") {
  NIB_REQUIRE_DATA(root);
  const std::string folder = root + "/tokenizers/";
  const Tokenizer harmony = open_json(folder + "gpt-oss.tokenizer.json", reserved_of_harmony());
  CHECK(harmony.size() == 201088);
  CHECK(harmony.find_special("<|start|>") == Token{200006});
  CHECK(harmony.find_special("<|return|>") == Token{200002});
  CHECK(harmony.find_special("<|reserved_201087|>") == Token{201087});
  CHECK(!harmony.find_special("<|reserved_200006|>"));
  CHECK(harmony.opening().empty());
  CHECK(harmony.lossless());
  CHECK(open_json(folder + "llama-3.tokenizer.json").size() == 128256);
  for (const Tokenizer& llama : {open_json(folder + "mistral.tokenizer.json"),
                                 test::open_gguf(folder + "ggml-vocab-llama-spm.gguf")}) {
    REQUIRE(llama.opening().size() == 1);
    CHECK(llama.opening()[0] == 1);
    CHECK(llama.closing().empty());
    CHECK(!llama.lossless());
    std::vector<Token> ids;
    REQUIRE(llama.encode("<s>a\n</s> b", Specials::recognised, ids).ok());
    CHECK(ids.front() == 1);
    CHECK(llama.decode(ids, Specials::recognised) == "<s> a\n</s>  b");
    CHECK(llama.decode(ids, Specials::ordinary) == "a\n  b");
  }
}

TEST_CASE("tales: prompts and answers as recorded") {
  NIB_REQUIRE_DATA(root);
  const Tokenizer tokenizer = open_json(root + "/models/tales/tokenizer.json");
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
