#include <nibble/base/float16.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/formats/reference.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/transformer.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

namespace nib::inline v0 {

Transformer::Transformer(const ModelConfig& config, const Weights& weights, const KvGeometry& kv,
                         const Backend& backend, Numerics numerics, Pool& pool)
    : config_(config),
      weights_(weights),
      kv_(kv),
      backend_(backend),
      numerics_(numerics),
      pool_(pool),
      frequencies_(config.rotary_dim / 2) {
  const FloatScope scope;
  rope_frequencies(config.rope_theta, static_cast<int>(config.rotary_dim), config.rope, frequencies_);
  for (std::size_t i = 0; weights.rope_divisors && i < frequencies_.size(); ++i)
    frequencies_[i] /= weights.rope_divisors[i];
}

template <class Work>
void Transformer::timed(Op op, Work&& work) const {
  if (!times_) return work();
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t phases = pool_.phases();
  work();
  OpTimes::Entry& entry = (*times_)[op];
  entry.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  entry.phases += pool_.phases() - phases;
  ++entry.calls;
}

// x = the tokens' rows of the embedding, widened.
void Transformer::embed(std::span<const BatchRow> batch, Workspace& workspace) const {
  const PlainRows& table = weights_.embedding;
  const std::int64_t stride = row_stride(table.width);
  for (std::size_t r = 0; r < batch.size(); ++r) {
    float* out = workspace.x + static_cast<std::int64_t>(r) * stride;
    const std::int64_t first = std::int64_t{batch[r].token} * table.width;
    if (format_info(table.format).group > 1) {
      decode_row(EncodedMatrix{table.format, table.rows, table.width, table.data}, batch[r].token, out);
    } else if (table.format == Format::f32) {
      std::memcpy(out, table.data + first * 4, static_cast<std::size_t>(table.width) * 4);
    } else {
      for (std::int64_t i = 0; i < table.width; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, table.data + (first + i) * 2, sizeof bits);
        out[i] = table.format == Format::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
      }
    }
    std::fill(out + table.width, out + stride, 0.0f);
  }
}

Norm Transformer::norm(const float* weight, const float* bias) const {
  return {weight, config_.norm_epsilon, config_.architecture->norm, bias};
}

// What depends on positions: cosines, sines and the page tables, the same for all layers of a kind.
void Transformer::place(std::span<const BatchRow> batch, Workspace& workspace) const {
  const std::size_t half = frequencies_.size();
  workspace.kv_rows.clear();
  workspace.picked.clear();
  for (std::size_t kind = 0; kind < kv_.kinds.size(); ++kind)
    for (const BatchRow& row : batch) workspace.kv_rows.push_back(row.cache->row(kind, row.position));
  for (std::size_t r = 0; r < batch.size(); ++r) {
    rope_angles(batch[r].position, frequencies_, config_.rope.attention, workspace.cos + r * half,
                workspace.sin + r * half);
    if (batch[r].wants_logits) workspace.picked.push_back(static_cast<std::int32_t>(r));
  }
}

void Transformer::attend(std::uint32_t layer, std::int64_t rows, const OpContext& context,
                         Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  const std::size_t kind = kv_.kind_of_layer[layer], offset = kv_.layer_offset(layer);
  const KvRow* kv_rows = workspace.kv_rows.data() + kind * static_cast<std::size_t>(rows);
  const int heads = static_cast<int>(config_.heads);
  timed(Op::qkv, [&] {
    backend_.ops.qkv(context, {.x = workspace.x,
                               .rows = rows,
                               .norm = norm(w.attention_norm, w.attention_norm_bias),
                               .weight = w.qkv.data(),
                               .bias = w.qkv_bias,
                               .heads = heads,
                               .kv = kv_.layout,
                               .layer_offset = offset,
                               .kv_rows = kv_rows,
                               .cos = workspace.cos,
                               .sin = workspace.sin,
                               .normed = workspace.normed,
                               .qkv = workspace.qkv,
                               .rotary = static_cast<int>(config_.rotary_dim),
                               .q_norm = w.q_norm,
                               .k_norm = w.k_norm,
                               .parts = static_cast<int>(w.qkv.size())});
  });
  timed(Op::attention, [&] {
    backend_.ops.attention(context, {.qkv = workspace.qkv,
                                     .qkv_stride = row_stride(config_.qkv_rows()),
                                     .rows = rows,
                                     .heads = heads,
                                     .kv = kv_.layout,
                                     .layer_offset = offset,
                                     .kv_rows = kv_rows,
                                     .window = kv_.kinds[kind].window,
                                     .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                                     .sinks = w.sinks,
                                     .out = workspace.attention,
                                     .out_stride = row_stride(w.output.k)});
  });
}

void Transformer::project(std::uint32_t layer, std::int64_t rows, const OpContext& context,
                          Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  timed(Op::project, [&] {
    backend_.ops.project(context, {.in = workspace.attention,
                                   .rows = rows,
                                   .weight = &w.output,
                                   .bias = w.output_bias,
                                   .x = workspace.x});
  });
}

void Transformer::route(std::uint32_t layer, std::int64_t rows, const OpContext& context,
                        Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  timed(Op::route, [&] {
    backend_.ops.route(context, {.x = workspace.x,
                                 .rows = rows,
                                 .norm = norm(w.mlp_norm, w.mlp_norm_bias),
                                 .weight = config_.routed ? &w.router : nullptr,
                                 .bias = w.router_bias,
                                 .experts = static_cast<int>(config_.experts),
                                 .experts_per_token = static_cast<int>(config_.experts_per_token),
                                 .normed = workspace.normed,
                                 .logits = workspace.router_logits,
                                 .routing = workspace.routing,
                                 .weights_of_all = config_.weights_of_all,
                                 .width = config_.hidden});
  });
}

void Transformer::mix_experts(std::uint32_t layer, std::int64_t rows, const OpContext& context,
                              Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  timed(Op::experts, [&] {
    backend_.ops.experts(context, {.normed = workspace.normed,
                                   .rows = rows,
                                   .experts = static_cast<int>(config_.experts),
                                   .experts_per_token = static_cast<int>(config_.experts_per_token),
                                   .routing = workspace.routing,
                                   .gate_up = w.gate_up.data(),
                                   .gate_up_bias = w.gate_up_bias,
                                   .down = w.down.data(),
                                   .down_bias = w.down_bias,
                                   .width = config_.expert_width,
                                   .gate = config_.gate,
                                   .outputs = workspace.expert_outputs,
                                   .x = workspace.x,
                                   .activation = config_.activation,
                                   .up = w.up.empty() ? nullptr : w.up.data()});
  });
}

void Transformer::head(const OpContext& context, Workspace& workspace) const {
  timed(Op::head, [&] {
    backend_.ops.head(context, {.x = workspace.x,
                                .picked = workspace.picked.data(),
                                .count = static_cast<std::int64_t>(workspace.picked.size()),
                                .norm = norm(weights_.final_norm, weights_.final_norm_bias),
                                .weight = &weights_.head,
                                .normed = workspace.normed,
                                .logits = workspace.logits});
  });
}

OpContext Transformer::context(Workspace& workspace) const {
  return {
      &pool_, numerics_, workspace.packed, workspace.packed_inner, workspace.tiles, workspace.tile_floats};
}

Status Transformer::forward(std::span<const BatchRow> batch, Workspace& workspace,
                            const Cancel* cancel) const {
  const FloatScope scope;
  const auto rows = static_cast<std::int64_t>(batch.size());
  const OpContext context = this->context(workspace);
  timed(Op::embed, [&] {
    embed(batch, workspace);
    place(batch, workspace);
  });
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
    if (cancel && cancel->triggered()) return Status(Code::stopped, "the computation was cancelled");
    attend(layer, rows, context, workspace);
    // Parallel: what follows attention reads the x that attention read.
    if (config_.parallel_residual) route(layer, rows, context, workspace);
    project(layer, rows, context, workspace);
    if (!config_.parallel_residual) route(layer, rows, context, workspace);
    mix_experts(layer, rows, context, workspace);
  }
  if (!workspace.picked.empty()) head(context, workspace);
  return {};
}

void Transformer::logits_of(std::int64_t first, std::int64_t count, Workspace& workspace) const {
  const FloatScope scope;
  workspace.picked.resize(static_cast<std::size_t>(count));
  std::iota(workspace.picked.begin(), workspace.picked.end(), static_cast<std::int32_t>(first));
  head(context(workspace), workspace);
}

}  // namespace nib::inline v0
