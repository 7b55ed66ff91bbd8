#include "gguf_keys.hpp"

#include "config_writer.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kMostTokenizerBytes = std::uint64_t{256} << 20;

// Bytes that are to be read back as if they were in a file.
class BytesFile final : public File {
 public:
  explicit BytesFile(std::string bytes) : File("the GGUF header to be written"), bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset)
      return {Code::io, concat(name(), ": ends before byte ", offset + out.size())};
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }

 private:
  std::string bytes_;
};

// general.architecture of a model_type.
std::string_view gguf_architecture(std::string_view model_type) {
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {{"gpt_oss", "gpt-oss"},
                                                                      {"mistral", "llama"},
                                                                      {"mixtral", "llama"},
                                                                      {"qwen3_moe", "qwen3moe"},
                                                                      {"gpt_neox", "gptneox"}};
  for (const auto& [hugging_face, gguf] : kNames)
    if (model_type == hugging_face) return gguf;
  return model_type;
}

class KeyWriter {
 public:
  KeyWriter(const Checkpoint& checkpoint, const ModelConfig& config, const FileSystem& files,
            std::vector<std::string>& notes)
      : checkpoint_(checkpoint),
        config_(config),
        files_(files),
        notes_(notes),
        architecture_(gguf_architecture(config.architecture->model_type)) {}

  Result<GgufPairs> write(std::uint32_t file_type) {
    out_.add("general.architecture", std::string_view(architecture_));
    out_.add("general.type", "model");
    std::string name = checkpoint_.directory;
    while (name.size() > 1 && name.ends_with('/')) name.pop_back();
    if (name = name_of(name); name != "." && name != "..") out_.add("general.name", std::string_view(name));
    out_.add("general.file_type", file_type);
    out_.add("general.quantization_version", std::uint32_t{2});
    write_model();
    write_rope();
    NIB_TRY(write_tokenizer());
    if (checkpoint_.chat_template)
      out_.add("tokenizer.chat_template", std::string_view(*checkpoint_.chat_template));
    NIB_TRY(read_back());
    return std::move(out_);
  }

 private:
  template <class T>
  void add(std::string_view key, T value) {
    out_.add(concat(architecture_, ".", key), value);
  }

  void write_model() {
    const ModelConfig& c = config_;
    add("block_count", c.layers);
    add("context_length", c.max_context);
    add("embedding_length", c.hidden);
    // Of models with layers of experts alone, what the layers would be wide without them.
    const Json* dense = checkpoint_.config.find("intermediate_size");
    const bool own = c.routed && dense && dense->is_integer() && dense->as_integer() > 0 &&
                     dense->as_integer() <= UINT32_MAX;
    add("feed_forward_length", own ? static_cast<std::uint32_t>(dense->as_integer()) : c.expert_width);
    add("attention.head_count", c.heads);
    add("attention.head_count_kv", c.kv_heads);
    add("attention.key_length", c.head_dim);
    add("attention.value_length", c.head_dim);
    add(c.architecture->norm == NormKind::rms ? "attention.layer_norm_rms_epsilon"
                                              : "attention.layer_norm_epsilon",
        c.norm_epsilon);
    if (const auto widest = *std::max_element(c.windows.begin(), c.windows.end()); widest > 0)
      add("attention.sliding_window", widest);
    if (c.routed) {
      add("expert_count", c.experts);
      add("expert_used_count", c.experts_per_token);
      if (c.architecture->model_type != "mixtral") add("expert_feed_forward_length", c.expert_width);
    }
    if (c.architecture->norm == NormKind::layer) add("use_parallel_residual", c.parallel_residual);
    add("vocab_size", c.vocabulary);
  }

  void write_rope() {
    const RopeScaling& rope = config_.rope;
    add("rope.dimension_count", config_.rotary_dim);
    add("rope.freq_base", static_cast<float>(config_.rope_theta));
    if (rope.kind != RopeKind::linear && rope.kind != RopeKind::yarn) return;
    add("rope.scaling.type", rope.kind == RopeKind::linear ? "linear" : "yarn");
    add("rope.scaling.factor", static_cast<float>(rope.factor));
    if (rope.kind == RopeKind::linear) return;
    add("rope.scaling.original_context_length", static_cast<std::uint32_t>(rope.original_context));
    add("rope.scaling.yarn_beta_fast", static_cast<float>(rope.fast));
    add("rope.scaling.yarn_beta_slow", static_cast<float>(rope.slow));
  }

  Status write_tokenizer() {
    if (!checkpoint_.tokenizer_path) {
      notes_.push_back("there is no tokenizer.json, so the file has no tokenizer either");
      out_.add("tokenizer.ggml.model", std::string_view("no_vocab"));  // without it llama.cpp refuses the file
      return {};
    }
    NIB_ASSIGN(const std::unique_ptr<File> file, files_.open(*checkpoint_.tokenizer_path));
    NIB_ASSIGN(const std::string text, read_all(*file, kMostTokenizerBytes));
    NIB_ASSIGN(const TokenizerData data, tokenizer_data_from_json(text, file->name()));
    NIB_ASSIGN(const GgufVocabulary vocabulary, gguf_vocabulary_of(data, config_.vocabulary, file->name()));
    out_.add("tokenizer.ggml.model", std::string_view(vocabulary.model));
    out_.add("tokenizer.ggml.pre", std::string_view(vocabulary.pre));
    add_texts("tokenizer.ggml.tokens", vocabulary.tokens);
    if (!vocabulary.scores.empty()) out_.add("tokenizer.ggml.scores", std::span(vocabulary.scores));
    out_.add("tokenizer.ggml.token_type", std::span(vocabulary.token_type));
    if (!vocabulary.merges.empty()) add_texts("tokenizer.ggml.merges", vocabulary.merges);
    NIB_TRY(write_ids(vocabulary));
    out_.add("tokenizer.ggml.add_bos_token", *vocabulary.add_bos_token);
    out_.add("tokenizer.ggml.add_eos_token", *vocabulary.add_eos_token);
    if (vocabulary.add_space_prefix)
      out_.add("tokenizer.ggml.add_space_prefix", *vocabulary.add_space_prefix);
    return {};
  }

  void add_texts(std::string_view key, const std::vector<std::string>& texts) {
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    out_.add(key, std::span(views));
  }

  Status write_ids(const GgufVocabulary& vocabulary) {
    constexpr const char* kEnds[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"};
    NIB_ASSIGN(std::vector<std::uint32_t> stops, read_stop_ids(checkpoint_));
    if (const auto closing = vocabulary.eos_token_id) {  // what is put behind a text must be the first
      std::erase(stops, *closing);
      stops.insert(stops.begin(), *closing);
    }
    for (std::size_t i = 0; i < stops.size() && i < std::size(kEnds); ++i) out_.add(kEnds[i], stops[i]);
    if (stops.size() > std::size(kEnds))
      notes_.push_back(concat("of ", stops.size(), " ids that end a text, GGUF has keys for 3: ", stops[3],
                              " and what follows it is left out"));
    std::optional<std::uint32_t> bos = vocabulary.bos_token_id;
    if (!bos) bos = id("bos_token_id");
    if (bos) out_.add("tokenizer.ggml.bos_token_id", *bos);
    for (std::uint32_t i = 0; i < vocabulary.token_type.size(); ++i)
      if (vocabulary.token_type[i] == 2) {
        out_.add("tokenizer.ggml.unknown_token_id", i);
        break;
      }
    if (const auto padding = id("pad_token_id")) out_.add("tokenizer.ggml.padding_token_id", *padding);
    return {};
  }

  // Of generation_config.json or config.json.
  std::optional<std::uint32_t> id(std::string_view key) const {
    const Json* value = checkpoint_.generation_config ? checkpoint_.generation_config->find(key) : nullptr;
    if (!value || !value->is_integer()) value = checkpoint_.config.find(key);
    if (!value || !value->is_integer() || value->as_integer() < 0 ||
        value->as_integer() >= config_.vocabulary)
      return std::nullopt;
    return static_cast<std::uint32_t>(value->as_integer());
  }

  Status read_back() const {
    NIB_ASSIGN(std::string bytes, gguf_header(out_, {}));
    NIB_ASSIGN(const GgufHeader header, read_gguf_header(BytesFile(std::move(bytes))));
    NIB_ASSIGN(const ModelConfig again, parse_config(header.metadata, checkpoint_.path));
    ModelConfig sayable = config_;
    if (config_.rope.kind == RopeKind::llama3) sayable.rope = {};  // a tensor says it
    const std::string_view difference = first_difference(sayable, again);
    if (difference.empty()) return {};
    return {Code::unsupported,
            concat(checkpoint_.path, ": no GGUF key says what this model has as ", difference)};
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const FileSystem& files_;
  std::vector<std::string>& notes_;
  std::string architecture_;
  GgufPairs out_;
};

}  // namespace

Result<GgufPairs> gguf_keys(const Checkpoint& checkpoint, const ModelConfig& config, std::uint32_t file_type,
                            const FileSystem& files, std::vector<std::string>& notes) {
  return KeyWriter(checkpoint, config, files, notes).write(file_type);
}

GgufPairs gguf_keys_of(const GgufMetadata& metadata, std::uint32_t file_type) {
  GgufPairs out;
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    const std::string_view key = metadata.key(i);
    if (key == "general.file_type" || key == "general.quantization_version" || key.starts_with("split."))
      continue;
    out.add(key, metadata.value(i));
  }
  out.add("general.file_type", file_type);
  out.add("general.quantization_version", std::uint32_t{2});
  return out;
}

}  // namespace nib::inline v0
