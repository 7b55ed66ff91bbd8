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
#include <nibble/model/config.hpp>
#include <nibble/model/kv_cache.hpp>
#include <nibble/model/op_times.hpp>
#include <nibble/model/weights.hpp>

#include <cstdint>
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

// Named scratch for the largest batch, in one buffer. Belongs to one forward pass at a time.
class Workspace {
 public:
  // Bytes for `rows` rows of which at most `logit_rows` want logits, on `threads` threads. What a plan
  // counts.
  static std::uint64_t bytes(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                             int threads);
  static Result<Workspace> make(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                                int threads, Memory& memory);

  std::int64_t rows = 0, logit_rows = 0;
  float *x = nullptr, *normed = nullptr, *qkv = nullptr, *attention = nullptr;  // [rows][...]
  float *cos = nullptr, *sin = nullptr;                                         // [rows][D / 2]
  float* router_logits = nullptr;                                               // [rows][E]
  Routing routing{};
  float* expert_outputs = nullptr;                       // [rows T][H]
  float* logits = nullptr;                               // [logit_rows][V]
  std::byte *packed = nullptr, *packed_inner = nullptr;  // packed activations
  float* tiles = nullptr;                                // [threads][tile_floats]
  std::int64_t tile_floats = 0;
  std::vector<KvRow> kv_rows;  // [kinds][rows]
  std::vector<std::int32_t> picked;

 private:
  template <class Take>
  void carve(const ModelConfig& config, int threads, Take&& take);
  Buffer memory_;
};

class Transformer {
 public:
  // Everything is borrowed and outlives it.
  Transformer(const ModelConfig& config, const Weights& weights, const KvGeometry& kv, const Backend& backend,
              Numerics numerics, Pool& pool);

  // Computes keys and values of all rows and logits of those that want them: the i-th such row's are
  // workspace.logits + i * logit_stride(), valid until the next call. The batch fits the workspace. Errors:
  // stopped (cancel is looked at before each layer); the caches are then as before, for advance() was not
  // called.
  Status forward(std::span<const BatchRow> batch, Workspace& workspace, const Cancel* cancel = nullptr) const;

  // Logits of more rows of the batch that forward() computed last, `first` and those after it, at most
  // workspace.logit_rows at once: so all rows can be asked for without room for all. In place of the logits
  // before; the same bits as those of a row that wanted them.
  void logits_of(std::int64_t first, std::int64_t count, Workspace& workspace) const;

  std::int64_t logit_stride() const { return row_stride(config_.vocabulary); }

  // From now on the time of every op is added to `times`, which is borrowed; null: of none. Not during a
  // pass.
  void time_ops(OpTimes* times) { times_ = times; }

 private:
  template <class Work>
  void timed(Op op, Work&& work) const;
  void embed(std::span<const BatchRow> batch, Workspace& workspace) const;
  void place(std::span<const BatchRow> batch, Workspace& workspace) const;
  void attend(std::uint32_t layer, std::int64_t rows, const OpContext& context, Workspace& workspace) const;
  void project(std::uint32_t layer, std::int64_t rows, const OpContext& context, Workspace& workspace) const;
  void route(std::uint32_t layer, std::int64_t rows, const OpContext& context, Workspace& workspace) const;
  void head(const OpContext& context, Workspace& workspace) const;
  OpContext context(Workspace& workspace) const;
  Norm norm(const float* weight, const float* bias) const;
  void mix_experts(std::uint32_t layer, std::int64_t rows, const OpContext& context,
                   Workspace& workspace) const;

  const ModelConfig& config_;
  const Weights& weights_;
  const KvGeometry& kv_;
  const Backend& backend_;
  Numerics numerics_;
  Pool& pool_;
  std::vector<float> frequencies_;
  OpTimes* times_ = nullptr;
};

}  // namespace nib::inline v0
