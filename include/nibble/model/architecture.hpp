// Room model: Architecture: what kinds of models nibble knows, as rows of data: how tensors are named and how
// experts are stored. Adding a model adds a row and a golden test.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// One way to name the tensors of an architecture. "{}" stands for the layer's number.
struct TensorNames {
  std::string_view embedding, final_norm, head;
  std::string_view attention_norm;
  // Either one fused matrix (rows q, then k, then v) or three.
  std::string_view qkv[3], qkv_bias[3];
  std::string_view sinks;
  std::string_view output, output_bias;
  std::string_view mlp_norm;
  std::string_view router, router_bias;
  // [experts, 2 * width, hidden], rows alternating gate, up; and [experts, hidden, width]. Stored without
  // MXFP4 in `plain_experts` order.
  std::string_view gate_up, gate_up_bias, down, down_bias;
  bool fused_qkv() const { return qkv[1].empty(); }
};

struct Architecture {
  std::string_view name;        // as nibble says it: "gpt-oss"
  std::string_view model_type;  // of config.json
  std::span<const TensorNames> dialects;
};

// Every architecture of this build.
std::span<const Architecture> architectures();

// The name of a tensor of one layer: `pattern` with "{}" replaced.
std::string layer_name(std::string_view pattern, unsigned layer);

}  // namespace nib::inline v0
