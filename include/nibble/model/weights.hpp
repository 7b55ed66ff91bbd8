// Room model: Weights: every tensor of a model in the place and the order where the ops want it.
//
// Two steps over one list. make() needs only headers: it finds each tensor by name, checks its shape, and
// gives it an address in one block of memory, the host's or a device's; their sizes are what a plan counts.
// load() reads and packs into these blocks.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/kernels/device_layout.hpp>
#include <nibble/kernels/pack.hpp>
#include <nibble/model/config.hpp>
#include <nibble/model/placement.hpp>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct TensorNames;

// Rows in their natural order and plain format, for lookups: [rows, width].
struct PlainRows {
  Format format = Format::none;
  std::int64_t rows = 0, width = 0;
  const std::byte* data = nullptr;
};

// The tensors of one layer. Shapes in the letters of ops.hpp; vectors are f32, padded with zeros to sixteen,
// and null where the model has none. What a device computes has its tensors there; PackedWeights then have no
// kernel.
struct LayerWeights {
  const float *attention_norm = nullptr, *attention_norm_bias = nullptr;  // [H]
  std::vector<PackedWeight> qkv;  // [(Hq + 2 Hk) D, H], or its parts where formats differ: see QkvArgs
  const float* qkv_bias = nullptr;
  const float *q_norm = nullptr, *k_norm = nullptr;  // [D]
  const float* sinks = nullptr;                      // [Hq]
  PackedWeight output;                               // [H, Hq D]
  const float* output_bias = nullptr;
  const float *mlp_norm = nullptr, *mlp_norm_bias = nullptr;
  PackedWeight router;  // [E, H]; without rows in a dense layer
  const float* router_bias = nullptr;
  std::vector<PackedWeight>
      gate_up;                   // [E] of [2 stride(I), H], strips gate, up, gate, up; [I, H] without a gate
  std::vector<PackedWeight> up;  // [E] of [I, H] where its format is not the gate's; then gate_up is [I, H]
  const float* gate_up_bias = nullptr;  // [E][its rows] in the order of the strips
  std::vector<PackedWeight> down;       // [E] of [H, I]
  const float* down_bias = nullptr;     // [E][stride(H)]
  // If any: gate_up and down lie in page-locked memory of the host, in the device's order, and take turns in
  // these slots of its memory.
  ExpertSlots slots{};
};

struct Weights {
  PlainRows embedding;  // [V, H]
  std::vector<LayerWeights> layers;
  const float *final_norm = nullptr, *final_norm_bias = nullptr;
  PackedWeight head;                            // [V, H]
  const float* rope_divisors = nullptr;         // [rotary / 2] of the frequencies, or null
  Buffer memory, device_memory, locked_memory;  // hold all of it
};

// What a plan reports: bytes by kind of tensor.
struct WeightGroup {
  std::string name;            // "experts (mxfp4)", "attention (bf16)", "embedding (bf16)", "head (bf16)",
                               // "norms, biases, sinks"
  std::uint64_t bytes;         // in memory
  std::uint64_t decode_bytes;  // of these, read for one token at batch 1
  std::uint64_t stored_bytes;  // in the files, each tensor counted once
  std::uint64_t parameters;    // of the same tensors
  std::uint64_t active_parameters;  // multiplied for one token
  Place place;
};

// One matrix or vector as it lies in memory.
struct WeightPart {
  std::string name;     // of its tensors: "model.layers.0.self_attn.{q,k,v}_proj.weight"; "*" is every expert
  std::string_view op;  // that reads it: "embed", "qkv", "attention", "project", "route", "experts", "head"
  Format format;        // of the tensors
  std::uint64_t bytes;
  std::uint64_t decode_bytes;  // of these, read for one token at batch 1
  const PackedWeight* weight;  // of expert 0; null for what is no matrix
  Place place;
  std::uint32_t slots = 0;         // of experts that take turns there, `bytes` in all; 0: every one is there
  std::uint64_t locked_bytes = 0;  // of all of them then, in page-locked memory of the host
};

// A device and the account of its memory; both null where there is none.
struct DeviceMemory {
  const Device* device = nullptr;
  Memory* memory = nullptr;
};

class WeightLayout {
 public:
  // expert_cache: bytes of the device's memory for the experts that it computes; 0: as many as they take.
  // Where they do not fit, all layers have equally many slots, in which their experts take turns. Errors:
  // not_found (a tensor is missing, by name), format (its shape is wrong: found and expected), unsupported
  // (its format cannot be multiplied, or not where it is placed, by name), argument (a placement of another
  // number of layers; a cache without experts on the device), budget (a cache that has no slot for each
  // expert of a token: the smallest that has).
  static Result<WeightLayout> make(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const Placement& placement = {}, std::uint64_t expert_cache = 0);

  std::uint64_t bytes(Place place = Place::host) const { return bytes_[static_cast<int>(place)]; }
  // Page-locked memory of the host, beside bytes().
  std::uint64_t locked_bytes() const { return locked_bytes_; }
  // Of each layer whose experts take turns; 0: none do.
  std::uint32_t expert_slots() const { return slots_; }
  // The cache that has so many slots in each layer whose experts the device computes.
  std::uint64_t expert_cache_bytes(std::int64_t slots) const;
  // Scratch that load() takes while it runs, for this many threads.
  std::uint64_t staging_bytes(int threads) const;
  const std::vector<WeightGroup>& groups() const { return groups_; }

  // What `loaded`, loaded by this layout, consists of, in the order of the graph; pointers are into it. Valid
  // while the checkpoint is.
  std::vector<WeightPart> parts(const ModelConfig& config, const Weights& loaded) const;

  // Whether int8 numerics can multiply every matrix but the routers, or bf16 holds its weights exactly.
  // Error: unsupported, naming the first that is neither.
  Status check_int8(const Checkpoint& checkpoint, const Backend& backend) const;

  // Reads and packs everything. The pool's threads read and pack; progress is called on the calling thread,
  // between tensors. With a placement that uses one, the device's part goes to `device`. Errors: those of
  // reading (io), format (a scale that is not a number, by tensor), unsupported (scales that the device
  // cannot hold, by tensor), memory, budget, device, stopped.
  Result<Weights> load(const Checkpoint& checkpoint, const ModelConfig& config, const Backend& backend,
                       Numerics numerics, Memory& memory, Pool& pool, ProgressSink progress = {},
                       const Cancel* cancel = nullptr, DeviceMemory device = {}) const;

 private:
  friend class WeightLoader;
  friend class WeightPacker;
  friend class WeightUploader;
  // Of staging, what matrices on their way to a device take.
  std::uint64_t upload_bytes() const;
  friend class Preparation;
  // What follows is the same for all layers: how rows of the file become rows of a packed matrix or values of
  // a vector.
  struct RowMap {
    enum class Order : std::uint8_t {
      stacked,      // the parts one after another
      alternating,  // one part, rows 2u (gate) and 2u + 1 (up), to strips gate, up, gate, up
      halves,       // two parts, gate and up, to the same strips
      per_head,     // QkvOrder::per_head
      pairs,        // QkvOrder::pairs
    };
    Order order = Order::stacked;
    std::int64_t units = 0;                        // of alternating and halves
    std::vector<std::int64_t> part_rows;           // rows of each part
    std::int64_t head_dim = 0, rotated_heads = 0;  // of per_head and pairs; heads of q (and k) in one part

    struct Source {
      std::size_t part;
      std::int64_t row;  // of that part
    };
    bool in_strips() const { return order == Order::alternating || order == Order::halves; }
    // Rows of the result, padding of the strips included.
    std::int64_t rows() const;
    // Where row `row` of the result comes from; false: it is padding.
    bool find(std::int64_t row, Source& source) const;
  };
  // The tensors of a matrix or vector: `map.part_rows.size()` for each expert, or for all when the tensors
  // have a leading dimension of experts.
  struct Stored {
    std::vector<const CheckpointTensor*> tensors;
    RowMap map;
    std::int64_t experts = 1;
    bool experts_inside = false;

    const CheckpointTensor& tensor(std::int64_t expert, std::size_t part) const {
      const std::size_t of_expert = experts_inside ? 0 : static_cast<std::size_t>(expert);
      return *tensors[of_expert * map.part_rows.size() + part];
    }
    // Row of the tensor at which the part of an expert begins.
    std::int64_t first_row(std::int64_t expert, std::size_t part) const {
      return experts_inside ? expert * map.part_rows[part] : 0;
    }
  };
  struct Matrix {
    Stored stored;
    Format format = Format::none;  // as stored
    std::int64_t k = 0;
    std::int64_t scale_run = 0;  // of formats with shared scales
    bool transposed = false;     // stored [experts, k, rows]
    std::uint64_t offset = 0;    // of expert 0; the others follow
    std::int64_t active = 1;     // experts that one token reads
    Place place = Place::host;
    std::int64_t slots = 0;    // if any: `offset` is the first one's, and of expert 0 it is
    std::uint64_t locked = 0;  // in page-locked memory
    std::int64_t rotary = 0;   // dimensions of each head that are rotated, where rows are heads
    bool exists() const { return !stored.tensors.empty(); }
    // Null where the checkpoint is not prepared, or lacks this one.
    const PreparedMatrix* prepared_in(const Checkpoint& checkpoint) const {
      if (!checkpoint.prepared) return nullptr;
      const auto found = checkpoint.prepared->matrices.find(stored.tensors[0]->name);
      return found == checkpoint.prepared->matrices.end() ? nullptr : &found->second;
    }
    PackedWeight shape() const {
      return {tile_format(format), stored.map.rows(), k, nullptr, nullptr, scale_run};
    }
    DeviceRows device_rows() const {
      if (rotary > 0 && heads_in_pairs(shape(), stored.map.head_dim, rotary))
        return {DeviceRows::heads, static_cast<std::int32_t>(stored.map.head_dim)};
      return stored.map.in_strips() ? DeviceRows::gate_up : DeviceRows::consecutive;
    }
    // Of one expert, where it is placed.
    std::uint64_t expert_bytes() const {
      return place == Place::device ? device_bytes(shape()) : shape().bytes();
    }
    std::uint64_t bytes() const {
      return expert_bytes() * static_cast<std::uint64_t>(slots ? slots : stored.experts);
    }
    std::uint64_t locked_bytes() const {
      return slots ? expert_bytes() * static_cast<std::uint64_t>(stored.experts) : 0;
    }
    std::uint64_t decode_bytes() const { return expert_bytes() * static_cast<std::uint64_t>(active); }
  };
  // To be widened to f32, one list for each expert, each padded to sixteen.
  struct Vector {
    Stored stored;
    std::uint64_t offset = 0;
    std::int64_t active = 1;  // experts that one token reads
    Place place = Place::host;
    bool exists() const { return !stored.tensors.empty(); }
    std::uint64_t bytes() const { return static_cast<std::uint64_t>(values()) * sizeof(float); }
    std::uint64_t decode_bytes() const {
      return static_cast<std::uint64_t>(active * padded()) * sizeof(float);
    }
    std::int64_t padded() const { return round_up(stored.map.rows(), std::int64_t{16}); }
    std::int64_t values() const { return stored.experts * padded(); }
  };
  struct Layer {
    Vector attention_norm, attention_norm_bias, qkv_bias, q_norm, k_norm, sinks, output_bias, mlp_norm,
        mlp_norm_bias, router_bias, gate_up_bias, down_bias;
    std::vector<Matrix> qkv;  // one, or parts in a format each
    Matrix output, router, gate_up, up, down;
    std::uint64_t slot_table = 0;  // where experts take turns: offset of their table
  };
  // Every matrix that the model has, in the order of the graph.
  template <class Visit>
  void each_matrix(Visit&& visit) const {
    const auto one = [&](const Matrix& m) {
      if (m.exists()) visit(m);
    };
    for (const Layer& layer : layers_) {
      for (const Matrix& m : layer.qkv) one(m);
      for (const Matrix* m : {&layer.output, &layer.router, &layer.gate_up, &layer.up, &layer.down}) one(*m);
    }
    one(head_);
  }
  // And every vector.
  template <class Visit>
  void each_vector(Visit&& visit) const {
    const auto all = [&](std::initializer_list<const Vector*> vectors) {
      for (const Vector* v : vectors)
        if (v->exists()) visit(*v);
    };
    for (const Layer& layer : layers_)
      all({&layer.attention_norm, &layer.attention_norm_bias, &layer.qkv_bias, &layer.q_norm, &layer.k_norm,
           &layer.sinks, &layer.output_bias, &layer.mlp_norm, &layer.mlp_norm_bias, &layer.router_bias,
           &layer.gate_up_bias, &layer.down_bias});
    all({&final_norm_, &final_norm_bias_, &rope_divisors_});
  }
  class Builder;
  static void add_attention(Builder& builder, const TensorNames& names, const ModelConfig& config,
                            unsigned index, Layer& layer);
  static void add_experts(Builder& builder, const TensorNames& names, const ModelConfig& config,
                          unsigned index, Layer& layer);
  static bool has(const Builder& builder, Presence presence, std::string_view pattern, unsigned layer);
  static Result<WeightLayout> make_with(const Checkpoint& checkpoint, const ModelConfig& config,
                                        const Placement& placement, std::uint32_t slots);

  const CheckpointTensor* embedding_ = nullptr;
  std::uint64_t embedding_offset_ = 0;
  std::vector<Layer> layers_;
  Vector final_norm_, final_norm_bias_, rope_divisors_;
  Matrix head_;
  std::uint64_t bytes_[kPlaces] = {}, locked_bytes_ = 0;
  std::uint32_t slots_ = 0;
  std::vector<WeightGroup> groups_;
};

}  // namespace nib::inline v0
