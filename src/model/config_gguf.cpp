// The keys of a GGUF file, said in the words of config.json, so that one parser checks them all.
#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>
#include <nibble/model/config.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

using Members = std::vector<Json::Member>;

struct Renamed {
  std::string_view key;  // behind the architecture's name
  std::string_view name;
};
constexpr Renamed kRenamed[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_used_count", "num_experts_per_tok"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.layer_norm_epsilon", "layer_norm_eps"},
    {"attention.sliding_window", "sliding_window"},
    {"use_parallel_residual", "use_parallel_residual"},
};
constexpr Renamed kRopeRenamed[] = {
    {"rope.scaling.factor", "factor"},
    {"rope.scaling.original_context_length", "original_max_position_embeddings"},
    {"rope.scaling.yarn_beta_fast", "beta_fast"},
    {"rope.scaling.yarn_beta_slow", "beta_slow"},
    {"rope.scaling.attn_factor", "attention_factor"},
};

class Translator {
 public:
  Translator(const GgufMetadata& metadata, std::string_view architecture)
      : metadata_(metadata), architecture_(architecture) {}

  std::optional<GgufValue> find(std::string_view key) const {
    return metadata_.find(concat(architecture_, ".", key));
  }
  std::optional<double> number(std::string_view key) const {
    const auto value = find(key);
    return value ? value->as_number() : std::nullopt;
  }

  // The value as JSON; what is none of these stays away, and is then missing.
  static std::optional<Json> json(const GgufValue& value) {
    if (const auto flag = value.as_bool()) return Json::of(*flag);
    if (const auto whole = value.as_integer()) return Json::of(*whole);
    if (const auto number = value.as_number()) return Json::of(*number);
    if (const auto text = value.as_string()) return Json::of(std::string(*text));
    return std::nullopt;
  }
  template <std::size_t N>
  void rename(const Renamed (&table)[N], Members& out) const {
    for (const Renamed& pair : table)
      if (const auto value = find(pair.key))
        if (auto translated = json(*value)) out.emplace_back(std::string(pair.name), std::move(*translated));
  }

 private:
  const GgufMetadata& metadata_;
  std::string_view architecture_;
};

// The model_type of config.json that a file of this architecture would have.
std::string model_type(std::string_view architecture, const Translator& keys) {
  if (architecture == "llama") {
    if (keys.number("expert_count").value_or(0) > 0) return "mixtral";
    return keys.number("attention.sliding_window").value_or(0) > 0 ? "mistral" : "llama";
  }
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kNames = {
      {{"gpt-oss", "gpt_oss"}, {"qwen3moe", "qwen3_moe"}, {"gptneox", "gpt_neox"}}};
  for (const auto& [gguf, hugging_face] : kNames)
    if (architecture == gguf) return std::string(hugging_face);
  return std::string(architecture);
}

Json rope(const Translator& keys, std::string_view type) {
  Members members;
  members.emplace_back("rope_type", Json::of(std::string(type)));
  keys.rename(kRopeRenamed, members);
  members.emplace_back("truncate", Json::of(false));
  return Json::object(std::move(members));
}

}  // namespace

Result<ModelConfig> parse_config(const GgufMetadata& metadata, std::string_view name) {
  const auto stated = metadata.find("general.architecture");
  const auto architecture = stated ? stated->as_string() : std::nullopt;
  if (!architecture)
    return Status(Code::format, concat(name, ": key general.architecture is missing or no string"));
  const Translator keys(metadata, *architecture);
  const std::string type = model_type(*architecture, keys);

  Members members;
  members.emplace_back("model_type", Json::of(type));
  keys.rename(kRenamed, members);
  if (const auto experts = keys.find("expert_count"))
    if (auto count = Translator::json(*experts)) {
      members.emplace_back("num_local_experts", *count);
      members.emplace_back("num_experts", std::move(*count));
    }
  if (type == "gpt_oss")  // whose experts are its only feed-forward layers
    if (const auto width = keys.find("expert_feed_forward_length"))
      if (auto count = Translator::json(*width)) members.emplace_back("intermediate_size", std::move(*count));
  if (const auto tokens = metadata.find("tokenizer.ggml.tokens"))
    members.emplace_back("vocab_size", Json::of(static_cast<std::int64_t>(tokens->count())));
  else if (const auto size = keys.number("vocab_size"))
    members.emplace_back("vocab_size", Json::of(static_cast<std::int64_t>(*size)));
  members.emplace_back("rope_theta", Json::of(keys.number("rope.freq_base").value_or(10000.0)));
  const double width = keys.number("embedding_length").value_or(0),
               heads = keys.number("attention.head_count").value_or(0);
  if (const auto turned = keys.number("rope.dimension_count"); turned && type == "gpt_neox" && width > 0)
    members.emplace_back("partial_rotary_factor", Json::of(*turned * heads / width));
  if (const auto scaling = keys.find("rope.scaling.type"))
    if (const auto kind = scaling->as_string(); kind && *kind != "none")
      members.emplace_back("rope_scaling", rope(keys, *kind));
  members.emplace_back("norm_topk_prob", Json::of(true));       // no key says otherwise
  members.emplace_back("tie_word_embeddings", Json::of(true));  // where there is no head

  NIB_ASSIGN(ModelConfig config, parse_config(Json::object(std::move(members)), name));
  // No key says whether there are biases; those that an architecture always has are asked for. GPT-NeoX can go
  // without them in attention.
  for (Presence* bias : {&config.qkv_bias, &config.output_bias, &config.expert_bias})
    if (*bias == Presence::no) *bias = Presence::if_stored;
  if (type == "gpt_neox") config.qkv_bias = config.output_bias = Presence::if_stored;
  return config;
}

Result<ModelConfig> read_config(const Checkpoint& checkpoint) {
  if (checkpoint.gguf) return parse_config(*checkpoint.gguf, checkpoint.path);
  return parse_config(checkpoint.config, join_path(checkpoint.directory, "config.json"));
}

Result<std::vector<std::uint32_t>> read_stop_ids(const Checkpoint& checkpoint) {
  std::vector<std::uint32_t> ids;
  if (checkpoint.gguf) {
    for (const char* name : {"eos", "eot", "eom"})
      if (const auto value = checkpoint.gguf->find(concat("tokenizer.ggml.", name, "_token_id")))
        if (const auto id = value->as_unsigned();
            id && *id <= UINT32_MAX && std::find(ids.begin(), ids.end(), *id) == ids.end())
          ids.push_back(static_cast<std::uint32_t>(*id));
    return ids;
  }
  if (checkpoint.generation_config) {
    NIB_ASSIGN(ids, parse_stop_ids(*checkpoint.generation_config,
                                   join_path(checkpoint.directory, "generation_config.json")));
    if (!ids.empty()) return ids;
  }
  return parse_stop_ids(checkpoint.config, join_path(checkpoint.directory, "config.json"));
}

}  // namespace nib::inline v0
