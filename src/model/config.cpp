#include "config_reader.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/config.hpp>

#include <algorithm>
#include <limits>
#include <optional>

namespace nib::inline v0 {
namespace {

// Limits of what a config may ask for: far above any published model, low enough that sizes cannot overflow.
constexpr std::uint32_t kMostLayers = 1024;
constexpr std::uint32_t kMostWidth = 1u << 20;
constexpr std::uint32_t kMostVocabulary = 1u << 24;
constexpr std::uint32_t kMostExperts = 4096;
constexpr std::uint32_t kMostExpertsPerToken = 32;
constexpr std::uint32_t kMostHeadDim = 256;
constexpr std::uint32_t kMostContext = 1u << 24;

// The kinds of scaling by their names in config.json. Dynamic scaling changes nothing up to
// max_position_embeddings, which is as far as nibble lets a context grow.
void read_scaling(Reader& scaling, ModelConfig& config) {
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  RopeScaling& rope = config.rope;
  if (type == "default" || type == "dynamic") return;
  rope.factor = scaling.positive("factor");
  if (type == "linear") {
    rope.kind = RopeKind::linear;
  } else if (type == "llama3") {
    rope.kind = RopeKind::llama3;
    rope.original_context = scaling.positive("original_max_position_embeddings");
    rope.fast = scaling.positive("high_freq_factor");
    rope.slow = scaling.positive("low_freq_factor");
    if (rope.fast <= rope.slow) scaling.fail("high_freq_factor", "more than low_freq_factor");
  } else if (type == "yarn") {
    rope.kind = RopeKind::yarn;
    rope.original_context = scaling.positive("original_max_position_embeddings", config.max_context);
    rope.fast = scaling.positive("beta_fast", 32.0);
    rope.slow = scaling.positive("beta_slow", 1.0);
    rope.truncate = scaling.flag("truncate", true);
    double attention = yarn_attention(rope.factor);
    if (scaling.find("mscale") && scaling.find("mscale_all_dim"))
      attention = yarn_attention(rope.factor, scaling.positive("mscale")) /
                  yarn_attention(rope.factor, scaling.positive("mscale_all_dim"));
    rope.attention = scaling.positive("attention_factor", attention);
  } else {
    scaling.refuse(
        concat("rope_type \"", type, "\" is not supported (known: default, linear, dynamic, yarn, llama3)"));
  }
}

// Theta, the share of a head that is rotated, and the scaling stand in the object itself with rope_scaling
// inside it, or all in rope_parameters. GPT-NeoX has names of its own.
void read_rope(Reader& reader, std::string_view name, ModelConfig& config) {
  const Json* newer = reader.find("rope_parameters");
  const std::string_view key = newer ? "rope_parameters" : "rope_scaling";
  const Json* scaling = newer ? newer : reader.find(key);
  const Architecture& row = *config.architecture;
  config.rope_theta = reader.positive("rope_theta", reader.positive(row.theta_key, row.default_theta));
  double share = reader.share("partial_rotary_factor", reader.share(row.rotary_key, row.default_rotary));
  if (scaling && !scaling->is_object()) return reader.fail(key, "an object");
  if (scaling) {
    Reader inner(*scaling, name);
    if (newer) config.rope_theta = inner.positive("rope_theta", config.rope_theta);
    if (newer) share = inner.share("partial_rotary_factor", share);
    read_scaling(inner, config);
    if (inner.status().code() == Code::unsupported) return reader.take(inner.status());
    if (!inner.status().ok()) reader.fail(key, "known keys in range: " + inner.status().message());
  }
  config.rotary_dim = static_cast<std::uint32_t>(config.head_dim * share);
  if (config.rotary_dim == 0 || config.rotary_dim % 2 != 0)
    reader.fail("head_dim", concat("an even number of dimensions to rotate, found ", config.rotary_dim));
}

// The layers that slide, by the architecture's rule: the first of them and the distance to the next.
struct SlidingLayers {
  std::uint32_t first, step;
};
std::optional<SlidingLayers> sliding_layers(Reader& reader, const ModelConfig& config) {
  switch (config.architecture->windows) {
    case WindowRule::none:
      return std::nullopt;
    case WindowRule::even_layers:
      return SlidingLayers{0, 2};
    case WindowRule::all_layers:
      return SlidingLayers{0, 1};
    case WindowRule::upper_layers:
      if (!reader.flag("use_sliding_window", false)) return std::nullopt;
      return SlidingLayers{reader.whole("max_window_layers", kMostLayers, 28), 1};
  }
  return std::nullopt;
}

void read_windows(Reader& reader, ModelConfig& config) {
  config.windows.assign(config.layers, 0);
  const auto rule = sliding_layers(reader, config);
  const bool required = config.architecture->windows == WindowRule::even_layers;
  if (!rule || (!required && !reader.find("sliding_window"))) return;
  const std::uint32_t window = reader.count("sliding_window", kMostContext);
  const Json* types = reader.find("layer_types");
  if (!types) {
    for (std::uint32_t i = rule->first; i < config.layers; i += rule->step) config.windows[i] = window;
    return;
  }
  if (!types->is_array() || types->items().size() != config.layers)
    return reader.fail("layer_types",
                       concat("a list of ", config.layers, " texts, as num_hidden_layers says"));
  for (std::uint32_t i = 0; i < config.layers; ++i) {
    const Json& type = types->items()[i];
    if (type.is_string() && type.as_string() == "sliding_attention")
      config.windows[i] = window;
    else if (!type.is_string() || type.as_string() != "full_attention")
      return reader.fail("layer_types", "sliding_attention or full_attention in every place");
  }
}

void read_shared(Reader& reader, ModelConfig& config) {
  config.layers = reader.count("num_hidden_layers", kMostLayers);
  config.hidden = reader.count("hidden_size", kMostWidth);
  config.vocabulary = reader.count("vocab_size", kMostVocabulary);
  config.heads = reader.count("num_attention_heads", 4096);
  config.kv_heads = reader.count("num_key_value_heads", 4096, config.heads);
  config.head_dim = reader.count("head_dim", kMostHeadDim, std::max(1u, config.hidden / config.heads));
  config.expert_width = reader.count(config.architecture->width_key, kMostWidth);
  config.gate.limit = static_cast<float>(reader.positive("swiglu_limit", 7.0));
  config.gate.alpha = static_cast<float>(reader.positive("swiglu_alpha", 1.702));
  config.activation = config.architecture->activation;
  if (config.heads % config.kv_heads != 0)
    reader.fail("num_key_value_heads", concat("a divisor of num_attention_heads, ", config.heads));
  if (config.head_dim % 2 != 0) reader.fail("head_dim", "an even number");
  config.rotary_dim = config.head_dim;
}

// hidden_act says which form of an activation without a gate; of the gated ones it names the only one there
// is.
void read_activation(Reader& reader, ModelConfig& config) {
  const bool gated = is_gated(config.activation);
  const std::string name = reader.text("hidden_act", gated ? "silu" : "gelu");
  if (gated ? name == "silu" : name == "gelu") return;
  if (!gated && (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh")) {
    config.activation = Activation::gelu_tanh;
    return;
  }
  reader.refuse(concat("hidden_act \"", name, "\" is not supported for ", config.architecture->model_type));
}

void read_experts(Reader& reader, ModelConfig& config) {
  const Architecture& row = *config.architecture;
  config.routed = !row.experts_key.empty();
  if (!config.routed) return;
  // transformers 5 writes for all what of these each had for itself.
  constexpr std::string_view kLater = "num_local_experts";
  config.experts = reader.count(
      reader.find(row.experts_key) || !reader.find(kLater) ? row.experts_key : kLater, kMostExperts);
  config.experts_per_token = reader.count("num_experts_per_tok", kMostExpertsPerToken,
                                          reader.count("experts_per_token", kMostExpertsPerToken, 4));
  if (reader.find("norm_topk_prob"))
    config.weights_of_all = !reader.flag("norm_topk_prob", true);
  else
    config.weights_of_all = row.model_type == "qwen3_moe";  // whose class weights by all unless told
  const Json* dense = reader.find("mlp_only_layers");
  if (reader.count("decoder_sparse_step", kMostLayers, 1) != 1 ||
      (dense && dense->is_array() && !dense->items().empty()))
    reader.refuse("models that mix dense layers with layers of experts are not supported");
}

void read_hugging_face(Reader& reader, std::string_view name, ModelConfig& config) {
  const Architecture& row = *config.architecture;
  read_experts(reader, config);
  read_activation(reader, config);
  config.max_context = reader.count("max_position_embeddings", kMostContext);
  config.norm_epsilon = static_cast<float>(reader.positive(row.epsilon_key, row.default_epsilon));
  config.tied_embeddings = reader.flag("tie_word_embeddings", false);
  config.parallel_residual = row.norm == NormKind::layer && reader.flag("use_parallel_residual", true);
  const auto presence = [&](std::string_view key, bool otherwise) {
    return reader.flag(key, otherwise) ? Presence::yes : Presence::no;
  };
  config.output_bias = presence("attention_bias", row.output_bias);
  // Qwen2's class has these three biases whatever its config says.
  config.qkv_bias =
      row.qkv_bias && !row.output_bias ? Presence::yes : presence("attention_bias", row.qkv_bias);
  config.expert_bias = row.expert_bias ? Presence::yes : presence("mlp_bias", false);
  read_rope(reader, name, config);
  read_windows(reader, config);
}

// original/config.json of gpt-oss: other names, and what it leaves out is the reference's default.
void read_original(Reader& reader, ModelConfig& config) {
  config.experts = reader.count("num_experts", kMostExperts);
  config.experts_per_token = reader.count("experts_per_token", kMostExpertsPerToken, 4);
  config.rope_theta = reader.positive("rope_theta", 150000.0);
  RopeScaling& rope = config.rope;
  rope.kind = RopeKind::yarn;
  rope.factor = reader.positive("rope_scaling_factor", 32.0);
  rope.original_context = reader.positive("initial_context_length", 4096.0);
  rope.slow = reader.positive("rope_ntk_alpha", 1.0);
  rope.fast = reader.positive("rope_ntk_beta", 32.0);
  rope.truncate = false;
  rope.attention = yarn_attention(rope.factor);
  const double context = rope.original_context * rope.factor;
  if (context > kMostContext) reader.fail("initial_context_length", "less");
  config.max_context = static_cast<std::uint32_t>(std::min(context, static_cast<double>(kMostContext)));
  read_windows(reader, config);
}

const Architecture* find_architecture(std::string_view model_type) {
  for (const Architecture& row : architectures())
    if (row.model_type == model_type) return &row;
  return nullptr;
}

}  // namespace

Result<ModelConfig> parse_config(const Json& json, std::string_view name) {
  if (!json.is_object()) return Status(Code::format, concat(name, ": expected an object"));
  Reader reader(json, name);
  ModelConfig config;
  const bool original =
      !reader.find("model_type") && reader.find("num_experts") && reader.find("rope_ntk_alpha");
  const std::string type = original ? "gpt_oss" : reader.text("model_type", "");
  if (!reader.status().ok()) return reader.status();
  config.architecture = find_architecture(type);
  if (!config.architecture) {
    if (type.empty()) return Status(Code::format, concat(name, ": key \"model_type\" is missing"));
    std::string known;
    for (const Architecture& row : architectures())
      known += concat(known.empty() ? "" : ", ", row.model_type);
    return Status(Code::unsupported,
                  concat(name, ": model_type \"", type, "\" is not supported (known: ", known, ")"));
  }
  read_shared(reader, config);
  if (reader.status().ok())
    original ? read_original(reader, config) : read_hugging_face(reader, name, config);
  if (reader.status().ok() && config.experts_per_token > config.experts)
    reader.fail(original ? "experts_per_token" : "num_experts_per_tok",
                concat("at most the number of experts, ", config.experts));
  if (!reader.status().ok()) return reader.status();
  return config;
}

Result<std::vector<std::uint32_t>> parse_stop_ids(const Json& config, std::string_view name) {
  std::vector<std::uint32_t> ids;
  const Json* value = config.find("eos_token_id");
  if (!value || value->is_null()) return ids;
  const auto add = [&](const Json& id) {
    if (!id.is_integer() || id.as_integer() < 0 ||
        id.as_integer() > std::numeric_limits<std::uint32_t>::max())
      return false;
    ids.push_back(static_cast<std::uint32_t>(id.as_integer()));
    return true;
  };
  bool good = true;
  if (value->is_array())
    for (const Json& id : value->items()) good = good && add(id);
  else
    good = add(*value);
  if (!good)
    return Status(Code::format,
                  concat(name, ": key \"eos_token_id\": expected a token id or a list of them"));
  return ids;
}

}  // namespace nib::inline v0
