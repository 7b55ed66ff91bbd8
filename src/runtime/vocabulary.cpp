#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/runtime/vocabulary.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kMostTokenizerBytes = std::uint64_t{256} << 20;

// Whether the special tokens are where gpt-oss has them.
bool is_vocabulary_of_gpt_oss(const TokenizerData& data) {
  const auto has = [&](Token id, std::string_view content) {
    return std::any_of(data.added.begin(), data.added.end(), [&](const TokenizerData::Added& token) {
      return token.id == id && token.content == content;
    });
  };
  return has(200006, "<|start|>") && has(200008, "<|message|>");
}

// gpt-oss's vocabulary has reserved ids that tokenizer.json leaves unnamed.
void name_reserved_tokens(std::uint32_t vocabulary, TokenizerData& data) {
  constexpr std::uint32_t kPublishedVocabulary = 201088, kFirstReserved = 200000;
  const bool published =
      vocabulary == 0 ? is_vocabulary_of_gpt_oss(data) : vocabulary == kPublishedVocabulary;
  if (!published || data.tokens.size() > kPublishedVocabulary) return;
  data.tokens.resize(kPublishedVocabulary);
  std::vector<bool> named(kPublishedVocabulary);
  for (Token id = 0; id < kPublishedVocabulary; ++id) named[id] = !data.tokens[id].empty();
  for (const TokenizerData::Added& token : data.added)
    if (token.id < kPublishedVocabulary) named[token.id] = true;
  for (Token id = kFirstReserved; id < kPublishedVocabulary; ++id)
    if (!named[id]) data.added.push_back({.id = id, .content = concat("<|reserved_", id, "|>")});
}

class GgufKeys {
 public:
  explicit GgufKeys(const GgufMetadata& metadata) : metadata_(metadata) {}

  std::string text(std::string_view key) const {
    const auto value = metadata_.find(key);
    return std::string(value ? value->as_string().value_or("") : "");
  }
  std::vector<std::string> texts(std::string_view key) const {
    std::vector<std::string> all;
    if (const auto value = metadata_.find(key))
      for (const std::string_view each : value->strings()) all.emplace_back(each);
    return all;
  }
  // What is no whole number of 32 bits is -1, which is no kind of token.
  std::vector<std::int32_t> kinds(std::string_view key) const {
    std::vector<std::int32_t> all;
    const auto value = metadata_.find(key);
    for (std::uint64_t i = 0; value && value->is_array() && i < value->count(); ++i) {
      const std::int64_t kind = value->integer_at(i).value_or(-1);
      all.push_back(kind == static_cast<std::int32_t>(kind) ? static_cast<std::int32_t>(kind) : -1);
    }
    return all;
  }
  std::vector<float> scores(std::string_view key) const {
    std::vector<float> all;
    const auto value = metadata_.find(key);
    for (std::uint64_t i = 0; value && value->is_array() && i < value->count(); ++i)
      all.push_back(static_cast<float>(value->number_at(i).value_or(0)));
    return all;
  }
  std::optional<Token> id(std::string_view key) const {
    const auto value = metadata_.find(key);
    const auto number = value ? value->as_unsigned() : std::nullopt;
    return number && *number <= UINT32_MAX ? std::optional(static_cast<Token>(*number)) : std::nullopt;
  }
  std::optional<bool> flag(std::string_view key) const {
    const auto value = metadata_.find(key);
    return value ? value->as_bool() : std::nullopt;
  }

 private:
  const GgufMetadata& metadata_;
};

GgufVocabulary gguf_vocabulary(const GgufMetadata& metadata) {
  const GgufKeys keys(metadata);
  GgufVocabulary v;
  v.model = keys.text("tokenizer.ggml.model");
  v.pre = keys.text("tokenizer.ggml.pre");
  if (v.pre.empty()) v.pre = keys.text("general.architecture");
  v.tokens = keys.texts("tokenizer.ggml.tokens");
  v.token_type = keys.kinds("tokenizer.ggml.token_type");
  v.scores = keys.scores("tokenizer.ggml.scores");
  v.merges = keys.texts("tokenizer.ggml.merges");
  v.bos_token_id = keys.id("tokenizer.ggml.bos_token_id");
  v.eos_token_id = keys.id("tokenizer.ggml.eos_token_id");
  v.add_bos_token = keys.flag("tokenizer.ggml.add_bos_token");
  v.add_eos_token = keys.flag("tokenizer.ggml.add_eos_token");
  v.add_space_prefix = keys.flag("tokenizer.ggml.add_space_prefix");
  return v;
}

}  // namespace

Result<Checkpoint> open_vocabulary(const std::string& path, const FileSystem& files) {
  if (!path.ends_with(".json") || path.ends_with(".index.json") || files.is_directory(path))
    return open_checkpoint(path, files, {.config = false, .weights = false});
  Checkpoint checkpoint;
  checkpoint.path = checkpoint.tokenizer_path.emplace(path);
  return checkpoint;
}

Result<std::optional<Tokenizer>> read_tokenizer(const Checkpoint& checkpoint, std::uint32_t vocabulary,
                                                const FileSystem& files) {
  // "no_vocab" is how converters say that there is none.
  const std::string model = checkpoint.gguf ? GgufKeys(*checkpoint.gguf).text("tokenizer.ggml.model") : "";
  if (checkpoint.gguf && checkpoint.gguf->find("tokenizer.ggml.model") && model != "no_vocab")
    return within_memory(checkpoint.path, [&]() -> Result<std::optional<Tokenizer>> {
      NIB_ASSIGN(const TokenizerData data,
                 tokenizer_data_from_gguf(gguf_vocabulary(*checkpoint.gguf), checkpoint.path));
      NIB_ASSIGN(Tokenizer tokenizer, Tokenizer::from(data, checkpoint.path));
      return std::optional<Tokenizer>(std::move(tokenizer));
    });
  if (!checkpoint.tokenizer_path) return std::optional<Tokenizer>();
  NIB_ASSIGN(const std::unique_ptr<File> file, files.open(*checkpoint.tokenizer_path));
  NIB_ASSIGN(const std::string text, read_all(*file, kMostTokenizerBytes));
  return within_memory(file->name(), [&]() -> Result<std::optional<Tokenizer>> {
    NIB_ASSIGN(TokenizerData data, tokenizer_data_from_json(text, file->name()));
    name_reserved_tokens(vocabulary, data);
    NIB_ASSIGN(Tokenizer tokenizer, Tokenizer::from(data, file->name()));
    return std::optional<Tokenizer>(std::move(tokenizer));
  });
}

SpecialNames read_special_names(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  SpecialNames names;
  if (checkpoint.gguf) {
    constexpr std::pair<const char*, const char*> kKeys[] = {
        {"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}};
    for (const auto& [name, key] : kKeys)
      if (const auto id = GgufKeys(*checkpoint.gguf).id(concat("tokenizer.ggml.", key, "_token_id")))
        names.emplace_back(name, tokenizer.bytes(*id));
    return names;
  }
  if (!checkpoint.tokenizer_config) return names;
  for (const auto& [name, value] : checkpoint.tokenizer_config->members()) {
    // The spelling, or an object that describes the token.
    const Json* content = value.is_object() ? value.find("content") : &value;
    if (name.ends_with("_token") && content && content->is_string())
      names.emplace_back(name, content->as_string());
  }
  return names;
}

}  // namespace nib::inline v0
