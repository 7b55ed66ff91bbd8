// Models that are a tokenizer and nothing else: recorded ids of every vocabulary, through the C interface.
#include "support.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

using namespace nib::test;

namespace {

ModelHandle open_vocabulary(nib_runtime* runtime, const std::string& path) {
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.flags = NIB_MODEL_VOCABULARY_ONLY;
  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open(runtime, path.data(), path.size(), &options, &out, &error) == NIB_OK,
                  error.text());
  return ModelHandle(out);
}

// encode() and decode() of a session's tests want no specials; these say.
std::vector<nib_token> encode_text(const nib_model* model, const std::string& text, std::uint32_t flags) {
  std::size_t count = 0;
  REQUIRE(nib_model_encode(model, text.data(), text.size(), flags, nullptr, 0, &count, nullptr) == NIB_OK);
  std::vector<nib_token> ids(count);
  REQUIRE(nib_model_encode(model, text.data(), text.size(), flags, ids.data(), count, &count, nullptr) ==
          NIB_OK);
  CHECK(count == ids.size());
  return ids;
}

void check_vectors(nib_runtime* runtime, const std::string& path, const std::string& vectors, bool lossless) {
  CAPTURE(path);
  const ModelHandle model = open_vocabulary(runtime, path);
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  CHECK((info.flags & NIB_MODEL_HAS_TOKENIZER) != 0);
  const std::string lines = read_text(vectors);
  std::size_t checked = 0;
  for (std::size_t at = 0; at < lines.size(); ++checked) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const auto line = nib::parse_json(std::string_view(lines).substr(at, end - at), vectors);
    REQUIRE(line.ok());
    at = end + 1;
    std::vector<nib_token> ids;
    for (const nib::Json& id : line->find("ids")->items())
      ids.push_back(static_cast<nib_token>(id.as_integer()));
    const std::string& text = line->find("text")->as_string();
    const std::uint32_t flags = line->find("special")->as_bool() ? NIB_TEXT_SPECIALS : 0;
    CAPTURE(line->find("id")->as_string());
    CHECK(encode_text(model.get(), text, flags) == ids);
    const std::string back = decode(model.get(), ids, NIB_TEXT_SPECIALS);
    if (lossless) CHECK(back == text);
    CHECK(encode_text(model.get(), back, flags) == ids);
  }
  CHECK(checked > 20);
}

}  // namespace

TEST_CASE("recorded ids of every vocabulary in the folder, from a file and from a folder with nothing else") {
  NIB_REQUIRE_DATA(data);
  const RuntimeHandle runtime = make_runtime(1);
  const std::string folder = data + "/tokenizers/";
  const std::multimap<std::string, std::string> also = {
      {"o200k_harmony", "gpt-oss"}, {"llama-2", "llama-spm"}, {"gpt-neox-20b", "gpt-neox"}};
  const std::filesystem::path own = std::filesystem::temp_directory_path() / "nibble_capi_vocabulary";
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "vectors")) {
    const std::string stem = entry.path().stem().string(), vectors = entry.path().string();
    if (entry.path().extension() != ".jsonl") continue;
    ++files;
    std::vector<std::string> names = {stem};
    for (auto [at, end] = also.equal_range(stem); at != end; ++at) names.push_back(at->second);
    const bool lossless = stem == "o200k_harmony" || stem == "gpt-2" || stem == "llama-3";
    std::size_t opened = 0;
    for (const std::string& name : names)
      for (const std::string& file :
           {folder + name + ".tokenizer.json", folder + "ggml-vocab-" + name + ".gguf"}) {
        if (!std::filesystem::exists(file)) continue;
        check_vectors(runtime.get(), file, vectors, lossless);
        std::filesystem::remove_all(own);
        std::filesystem::create_directory(own);
        std::filesystem::copy(file, own / (file.ends_with(".gguf") ? "vocabulary.gguf" : "tokenizer.json"));
        check_vectors(runtime.get(), own.string(), vectors, lossless);
        ++opened;
      }
    CHECK_MESSAGE(opened > 0, stem);
  }
  std::filesystem::remove_all(own);
  CHECK(files > 0);
}

TEST_CASE("a vocabulary alone needs no weights, no configuration and no memory for a model") {
  const std::filesystem::path own = std::filesystem::temp_directory_path() / "nibble_capi_alone";
  std::filesystem::remove_all(own);
  std::filesystem::create_directory(own);
  std::filesystem::copy(model_path() + std::string("/tokenizer.json"), own / "other name.json");
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_vocabulary(runtime.get(), (own / "other name.json").string());
  const std::string text = "<|start|>user<|message|>A small dog.<|end|>";
  const auto plain = encode_text(model.get(), text, 0),
             special = encode_text(model.get(), text, NIB_TEXT_SPECIALS);
  CHECK(special.size() < plain.size());
  CHECK(decode(model.get(), plain) == text);
  CHECK(decode(model.get(), special) == "userA small dog.");
  CHECK(decode(model.get(), special, NIB_TEXT_SPECIALS) == text);

  // Nothing is a vocabulary; neither are a folder without one, or half of one.
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.flags = NIB_MODEL_VOCABULARY_ONLY;
  Error error;
  const auto refused = [&](const std::string& path) {
    nib_model* out = garbage<nib_model>();
    const nib_status status = nib_model_open(runtime.get(), path.data(), path.size(), &options, &out, &error);
    CHECK(out == nullptr);
    return status;
  };
  CHECK(refused((own / "none.json").string()) == NIB_E_NOT_FOUND);
  std::filesystem::rename(own / "other name.json", own / "tokenizer.txt");
  CHECK(refused(own.string()) == NIB_E_NOT_FOUND);
  std::ofstream(own / "half.json") << R"({"model":{"type":"BPE")";
  CHECK(refused((own / "half.json").string()) == NIB_E_FORMAT);
  CHECK(error.says("half.json"));
  std::filesystem::remove_all(own);
}
