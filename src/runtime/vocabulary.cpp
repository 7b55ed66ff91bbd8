#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/model/gguf_vocabulary.hpp>
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
  if (checkpoint.gguf && has_vocabulary(*checkpoint.gguf))
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
    for (const auto& [name, id] : gguf_named_tokens(*checkpoint.gguf))
      names.emplace_back(concat(name, "_token"), tokenizer.bytes(id));
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
