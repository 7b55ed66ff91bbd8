// Room model: Weights: every tensor of a model in the place and the order where the ops want it.
//
// Two steps over one list. lay_out() needs only headers: it finds each tensor by name, checks its shape, and
// gives it an address in one block of memory; its size is what a plan counts. load() reads and packs into
// that block.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/model/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nib::inline v0 {

// Rows in their natural order and plain format, for lookups: [rows, width].
struct PlainRows {
  Format format = Format::none;
  std::int64_t rows = 0, width = 0;
  const std::byte* data = nullptr;
};

// The tensors of one layer. Shapes in the letters of ops.hpp; vectors are f32, padded with zeros to sixteen.
struct LayerWeights {
  const float* attention_norm = nullptr;  // [H]
  PackedWeight qkv;                       // [(Hq + 2 Hk) D, H]
  const float* qkv_bias = nullptr;
  const float* sinks = nullptr;  // [Hq]
  PackedWeight output;           // [H, Hq D]
  const float* output_bias = nullptr;
  const float* mlp_norm = nullptr;
  PackedWeight router;  // [E, H]
  const float* router_bias = nullptr;
  std::vector<PackedWeight> gate_up;    // [E] of [2 stride(I), H], strips gate, up, gate, up
  const float* gate_up_bias = nullptr;  // [E][2 stride(I)] in the order of the strips
  std::vector<PackedWeight> down;       // [E] of [H, I]
  const float* down_bias = nullptr;     // [E][stride(H)]
};

struct Weights {
  PlainRows embedding;  // [V, H]
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;
  PackedWeight head;  // [V, H]
  Buffer memory;      // holds all of it
};

// What a plan reports: bytes by kind of tensor, as they will lie in memory.
struct WeightGroup {
  std::string name;     // "experts (mxfp4)", "attention (bf16)", "embedding (bf16)", "head (bf16)", "vectors"
  std::uint64_t bytes;  // in memory
  std::uint64_t decode_bytes;  // of these, read for one token at batch 1
  std::uint64_t parameters;
  std::uint64_t active_parameters;  // multiplied for one token
};

class WeightLayout {
 public:
  // Errors: not_found (a tensor is missing, by name), format (its shape is wrong: found and expected),
  // unsupported (its format cannot be multiplied, by name).
  static Result<WeightLayout> make(const Checkpoint& checkpoint, const ModelConfig& config);

  std::uint64_t bytes() const { return bytes_; }
  // Scratch that load() takes while it runs, for this many threads.
  std::uint64_t staging_bytes(int threads) const;
  const std::vector<WeightGroup>& groups() const { return groups_; }

  // Reads and packs everything. The pool's threads read and pack; progress is called on the calling thread,
  // between tensors. Errors: those of reading (io), format (a scale that is not a number, by tensor), memory,
  // budget, stopped.
  Result<Weights> load(const Checkpoint& checkpoint, const ModelConfig& config, const Backend& backend,
                       Numerics numerics, Memory& memory, Pool& pool, ProgressSink progress = {},
                       const Cancel* cancel = nullptr) const;

 private:
  friend class WeightLoader;
  // A matrix to pack: its rows come from one tensor after another, `expert` of each.
  struct Matrix {
    std::vector<const CheckpointTensor*> parts;
    Format format = Format::none;
    std::int64_t rows = 0, k = 0;  // logical; rows already padded when interleaved
    std::int64_t width = 0;        // interleaved: units; natural rows 2u (gate) and 2u + 1 (up)
    std::int64_t experts = 1;
    bool interleaved = false;
    bool transposed = false;   // stored [experts, k, rows]
    std::uint64_t offset = 0;  // of expert 0; the others follow
    PackedWeight shape() const { return {format, rows, k, nullptr, nullptr}; }
  };
  // A vector to widen to f32, `lists` of them, each padded to sixteen.
  struct Vector {
    std::vector<const CheckpointTensor*> parts;
    std::int64_t width = 0;  // of one list
    std::int64_t lists = 1;
    bool interleaved = false;
    std::uint64_t offset = 0;
    std::int64_t padded() const {
      return interleaved ? 2 * round_up(width / 2, std::int64_t{16}) : round_up(width, std::int64_t{16});
    }
  };
  struct Layer {
    Vector attention_norm, qkv_bias, sinks, output_bias, mlp_norm, router_bias, gate_up_bias, down_bias;
    Matrix qkv, output, router, gate_up, down;
  };

  std::uint64_t reserve(std::uint64_t bytes);

  const CheckpointTensor* embedding_ = nullptr;
  std::uint64_t embedding_offset_ = 0;
  std::vector<Layer> layers_;
  Vector final_norm_;
  Matrix head_;
  std::uint64_t bytes_ = 0;
  std::vector<WeightGroup> groups_;
};

}  // namespace nib::inline v0
