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

// Reads keys of one object; the first problem is kept and every later read gives a harmless value.
class Reader {
 public:
  Reader(const Json& object, std::string_view name) : object_(object), name_(name) {}

  const Status& status() const { return status_; }
  const Json* find(std::string_view key) const {
    const Json* value = object_.find(key);
    return value && value->is_null() ? nullptr : value;
  }

  std::uint32_t count(std::string_view key, std::uint32_t most, std::optional<std::uint32_t> otherwise = {}) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_integer() || value->as_integer() < 1 || value->as_integer() > most)
      return fail(key, concat("a whole number from 1 to ", most)), 1u;
    return static_cast<std::uint32_t>(value->as_integer());
  }
  double positive(std::string_view key, std::optional<double> otherwise = {}) {
    const Json* value = find(key);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_number() || !(value->as_double() > 0) || !(value->as_double() < 1e30))
      return fail(key, "a positive number"), 1.0;
    return value->as_double();
  }
  bool flag(std::string_view key, bool otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_bool()) return fail(key, "true or false"), otherwise;
    return value->as_bool();
  }
  std::string text(std::string_view key, std::string_view otherwise) {
    const Json* value = find(key);
    if (!value) return std::string(otherwise);
    if (!value->is_string()) return fail(key, "a text"), std::string(otherwise);
    return value->as_string();
  }

  void fail(std::string_view key, std::string_view expected) {
    if (!status_.ok()) return;
    const Json* value = object_.find(key);
    status_ =
        Status(Code::format, concat(name_, ": key \"", key, "\" ", value ? "is " : "is missing",
                                    value ? write_json(*value).substr(0, 80) : "", ", expected ", expected));
  }
  void refuse(std::string_view sentence) {
    if (status_.ok()) status_ = Status(Code::unsupported, concat(name_, ": ", sentence));
  }

 private:
  const Json& object_;
  std::string_view name_;
  Status status_;
};

// rope_theta and the scaling stand in the object itself with rope_scaling inside it, or both in
// rope_parameters.
void read_rope(Reader& reader, std::string_view name, ModelConfig& config) {
  const Json* newer = reader.find("rope_parameters");
  const Json* scaling = newer ? newer : reader.find("rope_scaling");
  if (!newer) config.rope_theta = reader.positive("rope_theta", 10000.0);
  if (!scaling) return;
  if (!scaling->is_object()) return reader.fail(newer ? "rope_parameters" : "rope_scaling", "an object");
  Reader inner(*scaling, name);
  if (newer) config.rope_theta = inner.positive("rope_theta", 10000.0);
  const std::string type = inner.text("rope_type", inner.text("type", "default"));
  if (type == "yarn") {
    RopeScaling& rope = config.rope;
    rope.factor = inner.positive("factor");
    rope.original_context = inner.positive("original_max_position_embeddings", config.max_context);
    rope.beta_fast = inner.positive("beta_fast", 32.0);
    rope.beta_slow = inner.positive("beta_slow", 1.0);
    rope.truncate = inner.flag("truncate", true);
    rope.attention = inner.positive("attention_factor", yarn_attention(rope.factor));
  } else if (type != "default") {
    reader.refuse(concat("rope_type \"", type, "\" is not supported (known: default, yarn)"));
  }
  if (!inner.status().ok())
    reader.fail(newer ? "rope_parameters" : "rope_scaling",
                "known keys in range: " + inner.status().message());
}

void read_windows(Reader& reader, ModelConfig& config) {
  const std::uint32_t window = reader.count("sliding_window", kMostContext);
  config.windows.assign(config.layers, 0);
  const Json* types = reader.find("layer_types");
  if (!types) {  // the published rule: even layers slide
    for (std::uint32_t i = 0; i < config.layers; i += 2) config.windows[i] = window;
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
  config.expert_width = reader.count("intermediate_size", kMostWidth);
  config.gate.limit = static_cast<float>(reader.positive("swiglu_limit", 7.0));
  config.gate.alpha = static_cast<float>(reader.positive("swiglu_alpha", 1.702));
  if (config.heads % config.kv_heads != 0)
    reader.fail("num_key_value_heads", concat("a divisor of num_attention_heads, ", config.heads));
  if (config.head_dim % 2 != 0) reader.fail("head_dim", "an even number");
}

void read_hugging_face(Reader& reader, std::string_view name, ModelConfig& config) {
  config.experts = reader.count("num_local_experts", kMostExperts);
  config.experts_per_token = reader.count("num_experts_per_tok", kMostExpertsPerToken,
                                          reader.count("experts_per_token", kMostExpertsPerToken, 4));
  config.max_context = reader.count("max_position_embeddings", kMostContext);
  config.norm_epsilon = static_cast<float>(reader.positive("rms_norm_eps", 1e-5));
  config.tied_embeddings = reader.flag("tie_word_embeddings", false);
  if (!reader.flag("attention_bias", true))
    reader.refuse("attention_bias false is not supported for gpt_oss");
  read_rope(reader, name, config);
  read_windows(reader, config);
}

// original/config.json: other names, and what it leaves out is the reference's default.
void read_original(Reader& reader, ModelConfig& config) {
  config.experts = reader.count("num_experts", kMostExperts);
  config.experts_per_token = reader.count("experts_per_token", kMostExpertsPerToken, 4);
  config.rope_theta = reader.positive("rope_theta", 150000.0);
  RopeScaling& rope = config.rope;
  rope.factor = reader.positive("rope_scaling_factor", 32.0);
  rope.original_context = reader.positive("initial_context_length", 4096.0);
  rope.beta_slow = reader.positive("rope_ntk_alpha", 1.0);
  rope.beta_fast = reader.positive("rope_ntk_beta", 32.0);
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
  config.architecture = find_architecture(type);
  if (reader.status().ok() && !config.architecture) {
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
  NIB_ASSIGN(config.stop_ids, parse_stop_ids(json, name));
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
