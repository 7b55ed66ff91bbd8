// Room model: Transformer: rows of tokens to logits. The graph itself, straight over the ops of a backend.
//
// A forward pass takes a ragged batch of rows: any number of sessions, each with any number of consecutive
// positions. One session decoding is one row; a prompt is many rows of one session. There is no second path,
// and a row's bits do not depend on the rows beside it.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/model/config.hpp>
#include <nibble/model/device_digests.hpp>
#include <nibble/model/kv_cache.hpp>
#include <nibble/model/op_times.hpp>
#include <nibble/model/placement.hpp>
#include <nibble/model/weights.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace nib::inline v0 {

// One token of one session. Rows of a session stand in order of position; its cache is extended over them.
struct BatchRow {
  const KvCache* cache;
  std::uint32_t token;  // below the vocabulary
  std::int64_t position;
  bool wants_logits;
};

class Workspace;

// The arrays that ops of one place work with, for the largest batch.
struct Activations {
  float *x = nullptr, *normed = nullptr, *qkv = nullptr, *attention = nullptr;  // [rows][...]
  float* squares = nullptr;              // of a device: [rows][norm_squares(H)]
  float *cos = nullptr, *sin = nullptr;  // [rows][D / 2]
  float* router_logits = nullptr;        // [rows][E]
  Routing routing{};
  float* expert_outputs = nullptr;                       // [rows T][H]
  float* logits = nullptr;                               // [logit_rows][V]
  std::byte *packed = nullptr, *packed_inner = nullptr;  // packed activations
  float* tiles = nullptr;                                // [threads][tile_floats]; scratch of a device's ops
  std::int64_t tile_floats = 0;
};

// The same on a device, with what ops there need to know of the batch. Belongs to a Workspace.
class DeviceWorkspace : public Activations {
 public:
  // page_addresses: of all sessions of a batch, in the kinds of `kv` that are on the device. What a plan
  // counts.
  static std::uint64_t bytes(const ModelConfig& config, const KvGeometry& kv, std::int64_t rows,
                             std::int64_t logit_rows, std::uint64_t page_addresses);
  // Errors: budget, memory, device.
  static Result<std::unique_ptr<DeviceWorkspace>> make(const Device& device, const ModelConfig& config,
                                                       const KvGeometry& kv, std::int64_t rows,
                                                       std::int64_t logit_rows, std::uint64_t page_addresses,
                                                       Memory& memory);

  // Sends what depends on positions, after which `cos`, `sin`, `picked` and kv_rows() are those of the batch;
  // angles and picks come from `host`. Errors: internal (more pages than there is room for), device.
  Status place(std::span<const BatchRow> batch, const Workspace& host, std::size_t half_rotary);
  // Sends other picks. Errors: device.
  Status pick(std::span<const std::int32_t> rows);

  const KvRow* kv_rows(std::size_t kind) const { return kv_rows_[kind]; }  // [rows]
  const std::int32_t* picked() const { return picked_; }

  DeviceDigests digests;  // of logits that stay there

 private:
  DeviceWorkspace() = default;
  template <class Take>
  void carve(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows, Take&& take);

  const Device* device_ = nullptr;
  const KvGeometry* kv_ = nullptr;
  Buffer memory_;
  std::byte* inputs_ = nullptr;  // of a pass: cos, sin, kv_rows, page tables
  std::int64_t input_bytes_ = 0;
  std::int32_t* picked_ = nullptr;
  std::vector<const KvRow*> kv_rows_;
  std::vector<std::byte> staged_;
};

// Named scratch for the largest batch, in one buffer, and beside it that of a device. Belongs to one forward
// pass at a time.
class Workspace : public Activations {
 public:
  // Bytes for `rows` rows of which at most `logit_rows` want logits, on `threads` threads. What a plan
  // counts.
  static std::uint64_t bytes(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                             int threads);
  static Result<Workspace> make(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                                int threads, Memory& memory);

  std::int64_t rows = 0, logit_rows = 0;
  std::vector<KvRow> kv_rows;  // [kinds][rows]
  std::vector<std::int32_t> picked;
  std::unique_ptr<DeviceWorkspace> on_device;  // null: the placement uses none
  bool has_x[kPlaces] = {};                    // whether x is up to date there
  bool has_remains = false;                    // of a pass that failed, on the device

 private:
  template <class Take>
  void carve(const ModelConfig& config, int threads, Take&& take);
  Buffer memory_;
};

class Transformer {
 public:
  // Everything is borrowed and outlives it. Weights and pages lie as `placement` says.
  Transformer(const ModelConfig& config, const Weights& weights, const KvGeometry& kv, const Backend& backend,
              Numerics numerics, Pool& pool, const Placement& placement = {}, const Device* device = nullptr);

  // Computes keys and values of all rows and logits of those that want them: the i-th such row's are
  // workspace.logits + i * logit_stride(), valid until the next call. The batch fits the workspace. Errors:
  // stopped (cancel is looked at before each layer), device; the caches are then as before, for advance() was
  // not called, and nothing of the pass is still to happen on the device. With `drawn`, one for each row that
  // wants logits, those stay on the device where the head is there: workspace.on_device has them, and
  // its digests of them.
  Status forward(std::span<const BatchRow> batch, Workspace& workspace, const Cancel* cancel = nullptr,
                 std::span<const DrawnRow> drawn = {}) const;

  // Logits of more rows of the batch that forward() computed last, `first` and those after it, at most
  // workspace.logit_rows at once: so all rows can be asked for without room for all. In place of the logits
  // before; the same bits as those of a row that wanted them. Errors: device.
  Status logits_of(std::int64_t first, std::int64_t count, Workspace& workspace) const;

  // Where logits are computed.
  Place head_place() const { return placement_.head; }
  std::int64_t logit_stride() const { return row_stride(config_.vocabulary); }

  // From now on the time of every op is added to `times`, which is borrowed; null: of none. Not during a
  // pass.
  void time_ops(OpTimes* times) { times_ = times; }
  // Time that was spent on an op elsewhere; while no pass is at work.
  void add_time(Op op, double seconds) const {
    if (times_) (*times_)[op].seconds += seconds;
  }

 private:
  template <class Work>
  Status timed(Op op, Place place, Work&& work) const;
  template <class Args>
  Status run(Op op, Place place, void (*Ops::*here)(const OpContext&, const Args&),
             DeviceOp<Args> DeviceOps::*there, Workspace& workspace, const Args& args) const;
  void embed(std::span<const BatchRow> batch, Workspace& workspace) const;
  Status place(std::span<const BatchRow> batch, Workspace& workspace) const;
  Status bring_x(Place place, std::int64_t rows, Workspace& workspace) const;
  Status attend(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const;
  Status project(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const;
  RouteArgs route_args(std::uint32_t layer, std::int64_t rows, const Activations& with) const;
  Status route(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const;
  Status mix_experts(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const;
  Status pass(std::span<const BatchRow> batch, Workspace& workspace, const Cancel* cancel,
              std::span<const DrawnRow> drawn) const;
  Status compute_layer(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const;
  Status head(Workspace& workspace, bool is_normed) const;
  Status bring_logits(Workspace& workspace) const;
  Status digest(Workspace& workspace) const;
  Status clear_remains(Workspace& workspace) const;
  Norm norm(const float* weight, const float* bias) const;
  bool norms_mlp(std::uint32_t layer) const;              // who writes x before the layer's router
  bool routes_when_projected(std::uint32_t layer) const;  // the same
  bool norms_next_layer(std::uint32_t layer) const;       // who writes it after its experts
  bool norms_head(std::int64_t rows, const Workspace& workspace) const;  // who writes it at last

  const ModelConfig& config_;
  const Weights& weights_;
  const KvGeometry& kv_;
  const Backend& backend_;
  Numerics numerics_;
  Pool& pool_;
  Placement placement_;
  const Device* device_;
  std::vector<float> frequencies_;
  OpTimes* times_ = nullptr;
};

}  // namespace nib::inline v0
