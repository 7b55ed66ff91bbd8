#include "../bodies/grouped.cuh"
#include "../experts.hpp"
#include <nibble/base/concat.hpp>

#include <type_traits>

namespace nib::inline v0::cuda {
namespace {

// What both matrices have in common: items are the tiles of the experts that have entries, expert after
// expert.
struct OfExperts {
  const ExpertLists& lists;
  int tiles;

  NIB_DEVICE int items() const { return *lists.active_count * tiles; }
  NIB_DEVICE int expert(int item) const { return lists.active[item / tiles]; }
  NIB_DEVICE int tile(int item) const { return item % tiles; }
  // The entry of column i, or where there are fewer that of the first; and how many there are.
  NIB_DEVICE int entry(int item, int i) const {
    const int from = lists.first[expert(item)];
    return from + i < lists.first[expert(item) + 1] ? from + i : from;
  }
  NIB_DEVICE int matrices() const { return *lists.active_count; }
  NIB_DEVICE int columns(int matrix) const { return entries(matrix * tiles); }
  NIB_DEVICE int entries(int item) const { return lists.first[expert(item) + 1] - lists.first[expert(item)]; }
};

NIB_DEVICE float clamped_swiglu(float gate, float value, float alpha, float limit) {
  const float g = gate < limit ? gate : limit;
  const float u = value < -limit ? -limit : value > limit ? limit : value;
  return g / (1 + exponential(-alpha * g)) * (u + 1);
}

struct GateUp {
  const ExpertsMxfp4& call;
  OfExperts experts{call.lists, static_cast<int>(call.gate_up.tiles())};

  NIB_DEVICE int items() const { return experts.items(); }
  NIB_DEVICE int matrices() const { return experts.matrices(); }
  NIB_DEVICE int columns(int matrix) const { return experts.columns(matrix); }
  NIB_DEVICE const Mxfp4Tiles& shape() const { return call.gate_up; }
  NIB_DEVICE const std::byte* tile(int item) const {
    return call.gate_up_weights + experts.expert(item) * call.gate_up.bytes() +
           experts.tile(item) * call.gate_up.tile_bytes();
  }
  NIB_DEVICE const std::uint16_t* column(int item, int i) const {
    return call.x + call.lists.token[experts.entry(item, i)] * call.x_stride;
  }
  // A lane's first two elements are the gates of a unit, the others its values (gate_up_rows).
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const int expert = experts.expert(item),
              unit = experts.tile(item) * (kTileRows / 2) + row_of_element(lane, 0);
    if (unit >= call.units) return;
    const float factor = call.gate_up_factors[expert];
    const float* const bias = call.gate_up_bias + 2 * (std::int64_t{expert} * call.units + unit);
    const int entries = experts.entries(item);
    NIB_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int column = first_column + column_of_element(lane, i);
      if (column >= entries) continue;
      const float gate = sums.at[i] * factor + bias[0], value = sums.at[2 + i] * factor + bias[1];
      call.hidden[(call.lists.first[expert] + column) * call.hidden_stride + unit] =
          round_to_bf16(clamped_swiglu(gate, value, call.alpha, call.limit));
    }
  }
};

// Leaves weighted outputs of each entry.
struct DownOutputs {
  const ExpertsMxfp4& call;
  OfExperts experts{call.lists, static_cast<int>(call.down.tiles())};

  NIB_DEVICE int items() const { return experts.items(); }
  NIB_DEVICE int matrices() const { return experts.matrices(); }
  NIB_DEVICE int columns(int matrix) const { return experts.columns(matrix); }
  NIB_DEVICE const Mxfp4Tiles& shape() const { return call.down; }
  NIB_DEVICE const std::byte* tile(int item) const {
    return call.down_weights + experts.expert(item) * call.down.bytes() +
           experts.tile(item) * call.down.tile_bytes();
  }
  NIB_DEVICE const std::uint16_t* column(int item, int i) const {
    return call.hidden + experts.entry(item, i) * call.hidden_stride;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const int expert = experts.expert(item), entries = experts.entries(item), tile = experts.tile(item);
    const float factor = call.down_factors[expert];
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = std::int64_t{tile} * kTileRows + row_of_element(lane, i);
      const int column = first_column + column_of_element(lane, i);
      if (row >= call.down.rows || column >= entries) continue;
      const int entry = call.lists.first[expert] + column;
      const float bias = call.down_bias[expert * call.down.rows + row];
      call.outputs[entry * call.down.rows + row] = (sums.at[i] * factor + bias) * call.lists.weight[entry];
    }
  }
};

// A token's outputs, in increasing order of experts, and what is there already.
NIB_DEVICE void add_to_residual(const ExpertsMxfp4& call, int token, std::int64_t row) {
  float sum = 0;
  for (int j = 0; j < call.chosen; ++j)
    sum += call.outputs[call.lists.entry_of_token[token * call.chosen + j] * call.down.rows + row];
  call.residual[token * call.residual_stride + row] += sum;
}

// For up to eight tokens: the expert that comes last to a tile adds up what all have left.
struct DownAndAdd : DownOutputs {
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums) const {
    DownOutputs::finish(item, lane, sums);
    const int tile = experts.tile(item);
    if (!is_last_expert(tile, lane)) return;
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = std::int64_t{tile} * kTileRows + row_of_element(lane, i);
      const int token = column_of_element(lane, i);
      if (row < call.down.rows && token < call.tokens) add_to_residual(call, token, row);
    }
  }

 private:
  // Of those that compute this tile.
  NIB_DEVICE bool is_last_expert(int tile, int lane) const {
    sync_warp();  // what the lanes left in memory comes before what is counted
    int before = 0;
    if (lane == 0) {
      before = add_in_order(call.tile_counters + tile, 1);
      if (before + 1 == *call.lists.active_count) call.tile_counters[tile] = 0;
    }
    return shuffle(before, 0) + 1 == *call.lists.active_count;
  }
};

template <class Problem>
NIB_DEVICE Problem problem_of(const ExpertsMxfp4& call) {
  if constexpr (std::is_same_v<Problem, DownAndAdd>)
    return {{call}};
  else
    return {call};
}

template <class Math, class Problem>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit) experts_kernel(ExpertsMxfp4 call) {
  multiply_stripes<Math>(problem_of<Problem>(call),
                         CutItems{reinterpret_cast<WarpSums*>(call.scratch), call.counters});
}

template <class Math, class Problem>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) grouped_kernel(ExpertsMxfp4 call) {
  multiply_grouped<Math>(problem_of<Problem>(call));
}

NIB_KERNEL void NIB_FITS(kStripeThreads, 1) add_kernel(ExpertsMxfp4 call) {
  const std::int64_t all = call.tokens * call.down.rows;
  for (std::int64_t i = std::int64_t{block_index()} * kStripeThreads + thread_index(); i < all;
       i += std::int64_t{block_count()} * kStripeThreads)
    add_to_residual(call, static_cast<int>(i / call.down.rows), i % call.down.rows);
}

template <class Math>
Status launch_grouped(const ExpertsMxfp4& call, int blocks, Stream stream) {
  const LaunchShape shape{blocks, kStripeThreads, sizeof(GroupedShared<Math::kWide>)};
  NIB_TRY((launch(grouped_kernel<Math, GateUp>, shape, stream, call)));
  NIB_TRY((launch(grouped_kernel<Math, DownOutputs>, shape, stream, call)));
  return launch(add_kernel, {blocks, kStripeThreads, 0}, stream, call);
}

template <class Math>
Status launch_experts(const ExpertsMxfp4& call, int blocks, Stream stream) {
  const LaunchShape shape{blocks, kStripeThreads, sizeof(StripeShared<Math::kStages>)};
  NIB_TRY((launch(experts_kernel<Math, GateUp>, shape, stream, call)));
  return launch(experts_kernel<Math, DownAndAdd>, shape, stream, call);
}

}  // namespace

Status experts_mxfp4(const ExpertsMxfp4& call, bool tensor_cores, int blocks, Stream stream) {
  if (call.tokens < 1 || call.tokens > kColumns)
    return Status(Code::argument, concat("tokens: expected 1 to ", kColumns, ", found ", call.tokens));
  return tensor_cores ? launch_experts<TensorMath>(call, blocks, stream)
                      : launch_experts<SimtMath>(call, blocks, stream);
}

Status experts_mxfp4_grouped(const ExpertsMxfp4& call, bool tensor_cores, int blocks, Stream stream) {
  if (call.tokens < 1)
    return Status(Code::argument, concat("tokens: expected 1 or more, found ", call.tokens));
  return tensor_cores ? launch_grouped<TensorMath>(call, blocks, stream)
                      : launch_grouped<SimtMath>(call, blocks, stream);
}

}  // namespace nib::inline v0::cuda
