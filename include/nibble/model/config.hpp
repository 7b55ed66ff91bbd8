// Room model: ModelConfig: the hyper-parameters of a model, read from its config.json and checked once, so
// that later code may trust them.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/kernels/ops.hpp>
#include <nibble/kernels/rope.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace nib::inline v0 {

struct Architecture;

// Whether a model has a tensor: as its files please, where they are the only ones that know.
enum class Presence : std::uint8_t { no, yes, if_stored };

// Every number is at least 1 unless said otherwise, and small enough that products of two fit 63 bits.
struct ModelConfig {
  const Architecture* architecture = nullptr;  // never null after parsing
  std::uint32_t layers = 0;
  std::uint32_t hidden = 0;
  std::uint32_t vocabulary = 0;
  std::uint32_t heads = 0, kv_heads = 0,
                head_dim = 0;  // heads is a multiple of kv_heads, head_dim even, at most 256
  bool routed = true;          // false: a dense layer, which is one expert without a router
  std::uint32_t experts = 1, experts_per_token = 1, expert_width = 0;
  bool weights_of_all = false;         // experts are weighted by the softmax over all, not over the chosen
  std::uint32_t max_context = 0;       // positions the model was made for
  std::vector<std::uint32_t> windows;  // [layers] keys visible including the token's own; 0: all
  float norm_epsilon = 1e-5f;
  double rope_theta = 10000;
  std::uint32_t rotary_dim = 0;  // dimensions of a head that are rotated; even
  RopeScaling rope;
  bool parallel_residual = false;  // attention and experts read the same x
  Activation activation = Activation::clamped_swiglu;
  GateLimits gate{1.702f, 7.0f};
  Presence qkv_bias = Presence::yes, output_bias = Presence::yes, expert_bias = Presence::yes;
  bool tied_embeddings = false;

  std::uint32_t qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
};

// Reads a config.json object: Hugging Face's keys, or those of gpt-oss's original/ directory (told apart by
// the missing model_type). `name` is the file, for messages. Errors: unsupported (an architecture or a choice
// nibble does not know, by name), format (a key missing, of the wrong type or out of range; the message names
// it and what was expected).
Result<ModelConfig> parse_config(const Json& config, std::string_view name);

// The same from the keys of a GGUF file. `name` is the file. What config.json calls otherwise is named as
// there.
Result<ModelConfig> parse_config(const GgufMetadata& metadata, std::string_view name);

// The configuration of an open checkpoint, whichever of the two it has.
Result<ModelConfig> read_config(const Checkpoint& checkpoint);

// eos_token_id of a configuration: one id or a list; empty when absent. Errors: format.
Result<std::vector<std::uint32_t>> parse_stop_ids(const Json& config, std::string_view name);

// The same of an open checkpoint: of generation_config.json where it has any, else of config.json; of a GGUF
// file the ids that end a text, a turn or a message. The model itself need not be known. Errors: format.
Result<std::vector<std::uint32_t>> read_stop_ids(const Checkpoint& checkpoint);

}  // namespace nib::inline v0
