// Room model: Architecture: what kinds of models nibble knows, as rows of data: how tensors are named and how
// experts are stored. Adding a model adds a row and a golden test.
#pragma once

#include <nibble/kernels/ops.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// The order of the rows of stored query, key and value matrices.
enum class QkvOrder : std::uint8_t {
  heads,     // heads of q, of k, of v, each in halves as they are rotated
  per_head,  // GPT-NeoX: of the first head q, k, v, then of the second
  pairs,     // GGUF's llama: q and k in the order of neighbouring pairs
};

// One way to name the tensors of an architecture. "{}" stands for the layer's number and "<>", where each
// expert is a tensor of its own, for the expert's. An empty name: the architecture has no such tensor.
struct TensorNames {
  std::string_view embedding = {}, final_norm = {}, final_norm_bias = {}, head = {};
  std::string_view attention_norm = {}, attention_norm_bias = {};
  // Either one fused matrix or three.
  std::string_view qkv[3] = {}, qkv_bias[3] = {};
  QkvOrder qkv_order = QkvOrder::heads;
  std::string_view q_norm = {}, k_norm = {};  // of each head
  std::string_view sinks = {};
  std::string_view output = {}, output_bias = {};
  std::string_view mlp_norm = {}, mlp_norm_bias = {};
  std::string_view router = {}, router_bias = {};
  // [width, hidden] each; or `gate` alone: [experts, 2 * width, hidden], rows alternating gate, up; or `up`
  // alone, where there is no gate. [hidden, width] below. With a leading dimension of experts unless the name
  // has "<>" or the layer is dense. Alternating ones that are stored in a plain format are stored in x out.
  std::string_view gate = {}, gate_bias = {}, up = {}, up_bias = {}, down = {}, down_bias = {};
  std::string_view rope_divisors = {};  // [rotary / 2] divisors of the frequencies, where the file has them

  bool fused_qkv() const { return qkv[1].empty(); }
  bool alternating() const { return up.empty(); }
};

// What of a model slides: which layers see a window only, unless layer_types says it.
enum class WindowRule : std::uint8_t {
  none,
  even_layers,
  all_layers,
  upper_layers,  // from max_window_layers on, when use_sliding_window says so
};

struct Architecture {
  std::string_view name = {};         // as nibble says it: "gpt-oss"
  std::string_view model_type = {};   // of config.json
  std::string_view model_class = {};  // "architectures" there
  std::span<const TensorNames> dialects = {};
  NormKind norm = NormKind::rms;
  Activation activation = Activation::swiglu;
  // Keys of config.json that differ between architectures; an empty experts key: dense layers.
  std::string_view epsilon_key = "rms_norm_eps", experts_key = "", width_key = "intermediate_size",
                   theta_key = "rope_theta", rotary_key = "partial_rotary_factor";
  double default_epsilon = 1e-6, default_theta = 10000, default_rotary = 1;
  WindowRule windows = WindowRule::none;
  // Without attention_bias (or mlp_bias) in config.json.
  bool qkv_bias = false, output_bias = false, expert_bias = false;
};

// Every architecture of this build.
std::span<const Architecture> architectures();

// `pattern` with "{}" replaced by the layer's number, and "<>" by the expert's.
std::string tensor_name(std::string_view pattern, unsigned layer, unsigned expert = 0);

}  // namespace nib::inline v0
