#include <nibble/base/concat.hpp>
#include <nibble/model/gguf_vocabulary.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace nib::inline v0 {
namespace {

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

}  // namespace

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

// "no_vocab" is how converters say that there is none.
bool has_vocabulary(const GgufMetadata& metadata) {
  const auto model = metadata.find("tokenizer.ggml.model");
  return model && model->as_string() != "no_vocab";
}

std::vector<NamedToken> gguf_named_tokens(const GgufMetadata& metadata) {
  constexpr std::pair<std::string_view, std::string_view> kKeys[] = {
      {"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}};
  std::vector<NamedToken> tokens;
  for (const auto& [name, key] : kKeys)
    if (const auto id = GgufKeys(metadata).id(concat("tokenizer.ggml.", key, "_token_id")))
      tokens.push_back({name, *id});
  return tokens;
}

}  // namespace nib::inline v0
