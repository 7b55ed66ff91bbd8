#include "take_routing.hpp"
#include <nibble/model/transformer.hpp>

#include <algorithm>

namespace nib::inline v0 {

// The list of arrays, once: `take(pointer, count)` is called for each, to add up their bytes or to give them
// addresses.
template <class Take>
void Workspace::carve(const ModelConfig& config, int threads, Take&& take) {
  const std::int64_t hidden = row_stride(config.hidden), qkv_width = row_stride(config.qkv_rows());
  const std::int64_t heads_width = row_stride(std::int64_t{config.heads} * config.head_dim);
  const std::int64_t entries = rows * config.experts_per_token;
  const std::int64_t expert_width = row_stride(config.expert_width);
  const auto packed_bytes = [](std::int64_t count, std::int64_t width) {
    return count * static_cast<std::int64_t>(most_activation_bytes(width));
  };
  take(x, rows * hidden);
  take(normed, std::max(rows, logit_rows) * hidden);
  take(qkv, rows * qkv_width);
  take(attention, rows * heads_width);
  take(cos, rows * config.head_dim / 2);
  take(sin, rows * config.head_dim / 2);
  take(router_logits, rows * row_stride(config.experts));
  take_routing(routing, config, rows, take);
  take(expert_outputs, entries * hidden);
  take(logits, logit_rows * row_stride(config.vocabulary));
  take(packed, std::max({packed_bytes(entries, hidden), packed_bytes(rows, heads_width),
                         packed_bytes(logit_rows, hidden)}));
  take(packed_inner, packed_bytes(entries, expert_width));
  tile_floats = std::max(rows, logit_rows) * kGroupStrips * kStripRows;
  if (threads > 1) {  // one alone keeps nothing
    const KvLayout kv{{}, static_cast<int>(config.kv_heads), static_cast<int>(config.head_dim)};
    tile_floats = std::max(tile_floats, kept_tile_floats(static_cast<int>(config.heads), kv));
  }
  take(tiles, threads * tile_floats);
}

std::uint64_t Workspace::bytes(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                               int threads) {
  Workspace shape;
  shape.rows = rows;
  shape.logit_rows = logit_rows;
  std::uint64_t total = 0;
  shape.carve(config, threads, [&](auto*& pointer, std::int64_t count) {
    total += round_up(static_cast<std::uint64_t>(count) * sizeof *pointer, std::uint64_t{64});
  });
  return total;
}

Result<Workspace> Workspace::make(const ModelConfig& config, std::int64_t rows, std::int64_t logit_rows,
                                  int threads, Memory& memory) {
  Workspace workspace;
  workspace.rows = rows;
  workspace.logit_rows = logit_rows;
  NIB_ASSIGN(workspace.memory_, Buffer::make(bytes(config, rows, logit_rows, threads), memory,
                                             Purpose::activations, "the activations of a forward pass"));
  std::byte* next = workspace.memory_.data();
  // Strides beyond widths are read as zeros by the ops: everything begins as zero.
  std::fill(next, next + workspace.memory_.size(), std::byte{0});
  workspace.carve(config, threads, [&](auto*& pointer, std::int64_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
    next += round_up(static_cast<std::uint64_t>(count) * sizeof *pointer, std::uint64_t{64});
  });
  workspace.picked.reserve(static_cast<std::size_t>(logit_rows));
  return workspace;
}

}  // namespace nib::inline v0
