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
                         const Backend& backend, Numerics numerics, Pool& pool, const Placement& placement,
                         const Device* device)
    : config_(config),
      weights_(weights),
      kv_(kv),
      backend_(backend),
      numerics_(numerics),
      pool_(pool),
      placement_(placement),
      device_(device),
      frequencies_(config.rotary_dim / 2) {
  const FloatScope scope;
  rope_frequencies(config.rope_theta, static_cast<int>(config.rotary_dim), config.rope, frequencies_);
  for (std::size_t i = 0; weights.rope_divisors && i < frequencies_.size(); ++i)
    frequencies_[i] /= weights.rope_divisors[i];
}

template <class Work>
Status Transformer::timed(Op op, Place place, Work&& work) const {
  if (!times_) return work();
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t phases = pool_.phases();
  NIB_TRY(work());
  if (place == Place::device)
    NIB_TRY(device_->download(nullptr, nullptr, 0));  // an op is done when it is done
  OpTimes::Entry& entry = (*times_)[op];
  entry.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  entry.phases += pool_.phases() - phases;
  ++entry.calls;
  return {};
}

// What a workspace has in a place.
static Activations& activations(Place place, Workspace& workspace) {
  return place == Place::host ? static_cast<Activations&>(workspace) : *workspace.on_device;
}

template <class Args>
Status Transformer::run(Op op, Place place, void (*Ops::*here)(const OpContext&, const Args&),
                        DeviceOp<Args> DeviceOps::*there, Workspace& workspace, const Args& args) const {
  const Activations& with = activations(place, workspace);
  const bool on_device = place == Place::device;
  const OpContext context{on_device ? nullptr : &pool_,
                          numerics_,
                          with.packed,
                          with.packed_inner,
                          with.tiles,
                          with.tile_floats,
                          on_device && placement_.may_be_fast};
  return timed(op, place, [&]() -> Status {
    if (on_device) return device_->run(device_->ops().*there, context, args);
    (backend_.ops.*here)(context, args);
    return {};
  });
}

// Whoever is about to read x has it.
Status Transformer::bring_x(Place place, std::int64_t rows, Workspace& workspace) const {
  bool& has = workspace.has_x[static_cast<int>(place)];
  if (has) return {};
  has = true;
  const auto bytes = static_cast<std::size_t>(rows * row_stride(config_.hidden)) * sizeof(float);
  if (place == Place::device) return device_->upload(workspace.on_device->x, workspace.x, bytes);
  return device_->download(workspace.x, workspace.on_device->x, bytes);
}

// And whoever has written it is the only one.
static void x_was_written(Place place, Workspace& workspace) {
  for (int other = 0; other < kPlaces; ++other) workspace.has_x[other] = other == static_cast<int>(place);
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

// On a device whoever writes x does what the norm that follows wants of it, if the same device reads it next.
bool Transformer::norms_mlp(std::uint32_t layer) const {
  const LayerPlacement at = placement_.layer(layer);
  return !config_.parallel_residual && at.attention == Place::device && at.experts == Place::device;
}
// And it goes on with the router.
bool Transformer::routes_when_projected(std::uint32_t layer) const {
  return config_.routed && norms_mlp(layer);
}
bool Transformer::norms_next_layer(std::uint32_t layer) const {
  return layer + 1 < config_.layers && placement_.layer(layer).experts == Place::device &&
         placement_.layer(layer + 1).attention == Place::device;
}
// If it reads all rows.
bool Transformer::norms_head(std::int64_t rows, const Workspace& workspace) const {
  return static_cast<std::int64_t>(workspace.picked.size()) == rows &&
         placement_.layer(config_.layers - 1).experts == Place::device && placement_.head == Place::device;
}

// What depends on positions: cosines, sines and the page tables, the same for all layers of a kind.
Status Transformer::place(std::span<const BatchRow> batch, Workspace& workspace) const {
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
  return workspace.on_device ? workspace.on_device->place(batch, workspace, half) : Status();
}

Status Transformer::attend(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  const std::size_t kind = kv_.kind_of_layer[layer], offset = kv_.layer_offset(layer);
  const Place place = placement_.layer(layer).attention;
  const KvRow* kv_rows = place == Place::device
                             ? workspace.on_device->kv_rows(kind)
                             : workspace.kv_rows.data() + kind * static_cast<std::size_t>(rows);
  const int heads = static_cast<int>(config_.heads);
  NIB_TRY(bring_x(place, rows, workspace));
  const Activations& with = activations(place, workspace);
  const bool is_normed = layer > 0 && norms_next_layer(layer - 1);
  NIB_TRY(run<QkvArgs>(Op::qkv, place, &Ops::qkv, &DeviceOps::qkv, workspace,
                       {.x = with.x,
                        .rows = rows,
                        .norm = norm(w.attention_norm, w.attention_norm_bias),
                        .weight = w.qkv.data(),
                        .bias = w.qkv_bias,
                        .heads = heads,
                        .kv = kv_.layout,
                        .layer_offset = offset,
                        .kv_rows = kv_rows,
                        .cos = with.cos,
                        .sin = with.sin,
                        .normed = with.normed,
                        .qkv = with.qkv,
                        .rotary = static_cast<int>(config_.rotary_dim),
                        .q_norm = w.q_norm,
                        .k_norm = w.k_norm,
                        .parts = static_cast<int>(w.qkv.size()),
                        .squares = with.squares,
                        .is_normed = is_normed}));
  return run<AttentionArgs>(Op::attention, place, &Ops::attention, &DeviceOps::attention, workspace,
                            {.qkv = with.qkv,
                             .qkv_stride = row_stride(config_.qkv_rows()),
                             .rows = rows,
                             .heads = heads,
                             .kv = kv_.layout,
                             .layer_offset = offset,
                             .kv_rows = kv_rows,
                             .window = kv_.kinds[kind].window,
                             .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                             .sinks = w.sinks,
                             .out = with.attention,
                             .out_stride = row_stride(w.output.k)});
}

Status Transformer::project(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  const Place place = placement_.layer(layer).attention;
  const Activations& with = activations(place, workspace);
  NIB_TRY(bring_x(place, rows, workspace));
  ProjectArgs args{
      .in = with.attention, .rows = rows, .weight = &w.output, .bias = w.output_bias, .x = with.x};
  RouteArgs route;
  if (norms_mlp(layer)) args.next = {norm(w.mlp_norm, w.mlp_norm_bias), with.normed, with.squares};
  if (routes_when_projected(layer)) {
    route = route_args(layer, rows, with);
    args.route = &route;
  }
  NIB_TRY(run<ProjectArgs>(Op::project, place, &Ops::project, &DeviceOps::project, workspace, args));
  x_was_written(place, workspace);
  return {};
}

RouteArgs Transformer::route_args(std::uint32_t layer, std::int64_t rows, const Activations& with) const {
  const LayerWeights& w = weights_.layers[layer];
  return {.x = with.x,
          .rows = rows,
          .norm = norm(w.mlp_norm, w.mlp_norm_bias),
          .weight = config_.routed ? &w.router : nullptr,
          .bias = w.router_bias,
          .experts = static_cast<int>(config_.experts),
          .experts_per_token = static_cast<int>(config_.experts_per_token),
          .normed = with.normed,
          .logits = with.router_logits,
          .routing = with.routing,
          .weights_of_all = config_.weights_of_all,
          .width = config_.hidden,
          .squares = with.squares,
          .is_normed = norms_mlp(layer)};
}

Status Transformer::route(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const {
  const Place place = placement_.layer(layer).experts;
  NIB_TRY(bring_x(place, rows, workspace));
  return run<RouteArgs>(Op::route, place, &Ops::route, &DeviceOps::route, workspace,
                        route_args(layer, rows, activations(place, workspace)));
}

Status Transformer::mix_experts(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const {
  const LayerWeights& w = weights_.layers[layer];
  const Place place = placement_.layer(layer).experts;
  const Activations& with = activations(place, workspace);
  NIB_TRY(bring_x(place, rows, workspace));
  NextNorm next{};
  if (layer + 1 == config_.layers) {
    if (norms_head(rows, workspace))
      next = {norm(weights_.final_norm, weights_.final_norm_bias), with.normed, with.squares};
  } else if (norms_next_layer(layer)) {
    const LayerWeights& after = weights_.layers[layer + 1];
    next = {norm(after.attention_norm, after.attention_norm_bias), with.normed, with.squares};
  }
  NIB_TRY(run<ExpertsArgs>(Op::experts, place, &Ops::experts, &DeviceOps::experts, workspace,
                           {.normed = with.normed,
                            .rows = rows,
                            .experts = static_cast<int>(config_.experts),
                            .experts_per_token = static_cast<int>(config_.experts_per_token),
                            .routing = with.routing,
                            .gate_up = w.gate_up.data(),
                            .gate_up_bias = w.gate_up_bias,
                            .down = w.down.data(),
                            .down_bias = w.down_bias,
                            .width = config_.expert_width,
                            .gate = config_.gate,
                            .outputs = with.expert_outputs,
                            .x = with.x,
                            .activation = config_.activation,
                            .up = w.up.empty() ? nullptr : w.up.data(),
                            .slots = w.slots,
                            .norm = norm(w.mlp_norm, w.mlp_norm_bias),
                            .squares = with.squares,
                            .next = next}));
  x_was_written(place, workspace);
  return {};
}

// Logits of the picked rows, where the head is.
Status Transformer::head(Workspace& workspace, bool is_normed) const {
  const Place place = placement_.head;
  const Activations& with = activations(place, workspace);
  const auto count = static_cast<std::int64_t>(workspace.picked.size());
  return run<HeadArgs>(
      Op::head, place, &Ops::head, &DeviceOps::head, workspace,
      {.x = with.x,
       .picked = place == Place::device ? workspace.on_device->picked() : workspace.picked.data(),
       .count = count,
       .norm = norm(weights_.final_norm, weights_.final_norm_bias),
       .weight = &weights_.head,
       .normed = with.normed,
       .logits = with.logits,
       .squares = with.squares,
       .is_normed = is_normed});
}

// For the host.
Status Transformer::bring_logits(Workspace& workspace) const {
  if (placement_.head == Place::host) return {};
  const std::size_t floats = workspace.picked.size() * static_cast<std::size_t>(logit_stride());
  return device_->download(workspace.logits, workspace.on_device->logits, floats * sizeof(float));
}

// Or what the device tells of them.
Status Transformer::digest(Workspace& workspace) const {
  DeviceWorkspace& there = *workspace.on_device;
  return timed(Op::sample, Place::device, [&]() -> Status {
    NIB_TRY(there.digests.digest(*device_, there.logits));
    return there.digests.fetch(*device_);
  });
}

Status Transformer::compute_layer(std::uint32_t layer, std::int64_t rows, Workspace& workspace) const {
  NIB_TRY(attend(layer, rows, workspace));
  // Parallel: what follows attention reads the x that attention read.
  if (config_.parallel_residual) NIB_TRY(route(layer, rows, workspace));
  NIB_TRY(project(layer, rows, workspace));
  if (!config_.parallel_residual && !routes_when_projected(layer)) NIB_TRY(route(layer, rows, workspace));
  return mix_experts(layer, rows, workspace);
}

Status Transformer::forward(std::span<const BatchRow> batch, Workspace& workspace, const Cancel* cancel,
                            std::span<const DrawnRow> drawn) const {
  const FloatScope scope;
  if (workspace.has_remains) NIB_TRY(clear_remains(workspace));
  Status done = pass(batch, workspace, cancel, drawn);
  // What was asked of a device before a pass ended early writes to pages that their session may now let go.
  if (!done.ok() && placement_.uses_device()) {
    const Status ended = device_->download(nullptr, nullptr, 0);
    if (!ended.ok() || done.code() != Code::stopped)
      static_cast<void>(clear_remains(workspace));  // or else before the next pass
  }
  return done;
}

// Kernels that were not launched may be those that should have filled slots, or counted what others had begun
// to count.
Status Transformer::clear_remains(Workspace& workspace) const {
  workspace.has_remains = true;
  NIB_TRY(device_->clear(workspace.on_device->tiles, kScratchCounters * sizeof(std::int32_t)));
  for (const LayerWeights& layer : weights_.layers)
    if (layer.slots.count)
      NIB_TRY(device_->clear(layer.slots.table, slot_table_bytes(config_.experts, layer.slots.count)));
  workspace.has_remains = false;
  return {};
}

Status Transformer::pass(std::span<const BatchRow> batch, Workspace& workspace, const Cancel* cancel,
                         std::span<const DrawnRow> drawn) const {
  const auto rows = static_cast<std::int64_t>(batch.size());
  const bool stays = !drawn.empty() && placement_.head == Place::device;
  NIB_TRY(timed(Op::embed, Place::host, [&] {
    embed(batch, workspace);
    x_was_written(Place::host, workspace);
    return place(batch, workspace);
  }));
  if (stays) NIB_TRY(workspace.on_device->digests.expect(*device_, drawn));
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
    if (cancel && cancel->triggered()) return Status(Code::stopped, "the computation was cancelled");
    NIB_TRY(compute_layer(layer, rows, workspace));
  }
  NIB_TRY(bring_x(placement_.head, rows, workspace));
  if (!workspace.picked.empty()) {
    NIB_TRY(head(workspace, norms_head(rows, workspace)));
    return stays ? digest(workspace) : bring_logits(workspace);
  }
  // What went wrong on a device is found where something comes back from it.
  return placement_.uses_device() ? device_->download(nullptr, nullptr, 0) : Status();
}

Status Transformer::logits_of(std::int64_t first, std::int64_t count, Workspace& workspace) const {
  const FloatScope scope;
  workspace.picked.resize(static_cast<std::size_t>(count));
  std::iota(workspace.picked.begin(), workspace.picked.end(), static_cast<std::int32_t>(first));
  if (placement_.head == Place::device) NIB_TRY(workspace.on_device->pick(workspace.picked));
  NIB_TRY(head(workspace, false));
  return bring_logits(workspace);
}

}  // namespace nib::inline v0
