#include "config_writer.hpp"

#include <nibble/kernels/rope.hpp>
#include <nibble/model/architecture.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

namespace nib::inline v0 {
namespace {

// A number that was an f32 somewhere, with the digits that it has as one: 1e-05, not 9.999999747378752e-06.
double decimal(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  char digits[32];
  const char* end = std::to_chars(digits, digits + sizeof digits, narrow).ptr;
  double back = value;
  std::from_chars(digits, end, back);
  return back;
}

// To the precision of an f32, in which a GGUF file has them and the digits of `decimal` are enough.
bool same(double a, double b) { return std::fabs(a - b) <= 2e-7 * std::fabs(a); }

class Writer {
 public:
  explicit Writer(const ModelConfig& config) : c_(config), row_(*config.architecture) {}

  std::vector<Json::Member> write() {
    put("architectures", Json::array({Json::of(std::string(row_.model_class))}));
    put("model_type", Json::of(std::string(row_.model_type)));
    put("num_hidden_layers", c_.layers);
    put("hidden_size", c_.hidden);
    put("vocab_size", c_.vocabulary);
    put("num_attention_heads", c_.heads);
    put("num_key_value_heads", c_.kv_heads);
    put("head_dim", c_.head_dim);
    put(row_.width_key, c_.expert_width);
    put("max_position_embeddings", c_.max_context);
    put(row_.epsilon_key, decimal(c_.norm_epsilon));
    put("tie_word_embeddings", c_.tied_embeddings);
    if (row_.norm == NormKind::layer) put("use_parallel_residual", c_.parallel_residual);
    write_activation();
    write_experts();
    write_biases();
    write_rope();
    write_windows();
    return std::move(out_);
  }

 private:
  void put(std::string_view key, Json value) { out_.emplace_back(std::string(key), std::move(value)); }
  void put(std::string_view key, std::uint32_t value) { put(key, Json::of(std::int64_t{value})); }
  void put(std::string_view key, double value) { put(key, Json::of(value)); }
  void put(std::string_view key, bool value) { put(key, Json::of(value)); }

  void write_activation() {
    put("hidden_act", Json::of(std::string(is_gated(c_.activation)                  ? "silu"
                                           : c_.activation == Activation::gelu_tanh ? "gelu_pytorch_tanh"
                                                                                    : "gelu")));
    if (c_.activation != Activation::clamped_swiglu) return;
    put("swiglu_alpha", decimal(c_.gate.alpha));
    put("swiglu_limit", decimal(c_.gate.limit));
  }

  void write_experts() {
    if (!c_.routed) return;
    put(row_.experts_key, c_.experts);
    put("num_experts_per_tok", c_.experts_per_token);
    if (row_.model_type == "qwen3_moe") put("norm_topk_prob", !c_.weights_of_all);
  }

  // Qwen2's class has its biases whatever its config says, and no key for another.
  void write_biases() {
    if (!row_.qkv_bias || row_.output_bias) put("attention_bias", c_.qkv_bias == Presence::yes);
    if (!row_.expert_bias && c_.expert_bias == Presence::yes) put("mlp_bias", true);
  }

  // Readers multiply by it and cut off what is behind the point.
  double rotary_share() const {
    const double share = static_cast<double>(c_.rotary_dim) / c_.head_dim;
    return share * c_.head_dim < c_.rotary_dim ? std::nextafter(share, 1.0) : share;
  }

  void write_rope() {
    put(row_.theta_key, decimal(c_.rope_theta));
    if (c_.rotary_dim != c_.head_dim || row_.default_rotary != 1) put(row_.rotary_key, rotary_share());
    const RopeScaling& rope = c_.rope;
    if (rope.kind == RopeKind::plain) {
      // gpt-oss's class scales unless it is told not to.
      if (row_.model_type == "gpt_oss")
        put("rope_scaling", Json::object({{"rope_type", Json::of(std::string("default"))}}));
      return;
    }
    const bool yarn = rope.kind == RopeKind::yarn, llama3 = rope.kind == RopeKind::llama3;
    std::vector<Json::Member> members = {{"factor", Json::of(decimal(rope.factor))},
                                         {"rope_type", Json::of(std::string(yarn     ? "yarn"
                                                                            : llama3 ? "llama3"
                                                                                     : "linear"))}};
    if (yarn || llama3) {
      members.emplace_back(yarn ? "beta_fast" : "high_freq_factor", Json::of(decimal(rope.fast)));
      members.emplace_back(yarn ? "beta_slow" : "low_freq_factor", Json::of(decimal(rope.slow)));
      const auto context = static_cast<std::int64_t>(rope.original_context);
      const bool whole = static_cast<double>(context) == rope.original_context;
      members.emplace_back("original_max_position_embeddings",
                           whole ? Json::of(context) : Json::of(rope.original_context));
    }
    if (yarn) members.emplace_back("truncate", Json::of(rope.truncate));
    if (yarn && !same(rope.attention, yarn_attention(rope.factor)))
      members.emplace_back("attention_factor", Json::of(decimal(rope.attention)));
    put("rope_scaling", Json::object(std::move(members)));
  }

  void write_windows() {
    if (row_.windows == WindowRule::none) return;
    const std::uint32_t widest = *std::max_element(c_.windows.begin(), c_.windows.end());
    put("sliding_window", widest > 0 ? Json::of(std::int64_t{widest}) : Json());
    if (row_.windows == WindowRule::upper_layers) {
      const auto first = std::find(c_.windows.begin(), c_.windows.end(), widest);
      put("use_sliding_window", widest > 0);
      put("max_window_layers",
          widest > 0 ? static_cast<std::uint32_t>(first - c_.windows.begin()) : c_.layers);
    }
    if (row_.windows == WindowRule::all_layers || widest == 0) return;
    std::vector<Json> types;
    for (const std::uint32_t window : c_.windows)
      types.push_back(Json::of(std::string(window > 0 ? "sliding_attention" : "full_attention")));
    put("layer_types", Json::array(std::move(types)));
  }

  const ModelConfig& c_;
  const Architecture& row_;
  std::vector<Json::Member> out_;
};

std::string_view rope_difference(const RopeScaling& a, const RopeScaling& b) {
  if (a.kind != b.kind || (a.kind != RopeKind::plain && !same(a.factor, b.factor))) return "rope_scaling";
  const bool ramp = a.kind == RopeKind::yarn || a.kind == RopeKind::llama3;
  if (ramp &&
      (!same(a.original_context, b.original_context) || !same(a.fast, b.fast) || !same(a.slow, b.slow)))
    return "rope_scaling";
  if (a.kind == RopeKind::yarn && (a.truncate != b.truncate || !same(a.attention, b.attention)))
    return "rope_scaling of type yarn";
  return {};
}

}  // namespace

std::vector<Json::Member> config_members(const ModelConfig& config) { return Writer(config).write(); }

Json dtype_json(Format plain) {
  return Json::of(std::string(plain == Format::f16    ? "float16"
                              : plain == Format::bf16 ? "bfloat16"
                                                      : "float32"));
}

std::string_view first_difference(const ModelConfig& a, const ModelConfig& b) {
  if (a.layers != b.layers) return "num_hidden_layers";
  if (a.hidden != b.hidden) return "hidden_size";
  if (a.vocabulary != b.vocabulary) return "vocab_size";
  if (a.heads != b.heads) return "num_attention_heads";
  if (a.kv_heads != b.kv_heads) return "num_key_value_heads";
  if (a.head_dim != b.head_dim) return "head_dim";
  if (a.routed != b.routed || a.experts != b.experts) return "the number of experts";
  if (a.experts_per_token != b.experts_per_token) return "num_experts_per_tok";
  if (a.expert_width != b.expert_width) return "intermediate_size";
  if (a.weights_of_all != b.weights_of_all) return "norm_topk_prob";
  if (a.max_context != b.max_context) return "max_position_embeddings";
  if (a.windows != b.windows) return "the layers with a sliding window";
  if (a.norm_epsilon != b.norm_epsilon) return "the epsilon of its norms";
  if (a.rotary_dim != b.rotary_dim) return "partial_rotary_factor";
  if (a.parallel_residual != b.parallel_residual) return "use_parallel_residual";
  if (a.activation != b.activation) return "hidden_act";
  if (a.activation == Activation::clamped_swiglu &&
      (a.gate.alpha != b.gate.alpha || a.gate.limit != b.gate.limit))
    return "swiglu_limit or swiglu_alpha";
  if (!same(a.rope_theta, b.rope_theta)) return "rope_theta";
  return rope_difference(a.rope, b.rope);
}

}  // namespace nib::inline v0
