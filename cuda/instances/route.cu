#include "../bodies/dense.cuh"
#include "../bodies/weights_bf16.cuh"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = kStripeThreads, kWarps = kThreads / 32;

struct Route {
  int rows, experts, chosen;  // of a row
  const float* logits;        // [rows][logit_stride]
  std::int64_t logit_stride;
  bool weights_of_all;
  Routing to;
};

// Larger numbers for larger logits, and for the lower id among equal ones; every number is above zero. NaN
// comes after all that are numbers, so that any logits give distinct experts.
NIB_DEVICE std::uint64_t rank_of(float logit, int id) {
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0f);  // -0 is 0
  const std::uint32_t ordered = logit != logit ? 0 : bits >> 31 ? ~bits : bits | 0x8000'0000u;
  return std::uint64_t{ordered} << 32 | static_cast<std::uint32_t>(~id);
}

// The experts of one row, by a warp; lane l has those with id l modulo 32.
NIB_DEVICE void choose(const Route& call, int row, int lane) {
  const float* const logits = call.logits + row * call.logit_stride;
  std::int32_t* const ids = call.to.chosen + std::int64_t{row} * call.chosen;
  float* const weights = call.to.chosen_weight + std::int64_t{row} * call.chosen;
  std::uint64_t bound = ~std::uint64_t{0};
  float largest = 0, total = 0;
  for (int j = 0; j < call.chosen; ++j) {
    std::uint64_t best = 0;  // of those below the one that was chosen before
    for (int id = lane; id < call.experts; id += 32) {
      const std::uint64_t rank = rank_of(logits[id], id);
      if (rank < bound && rank > best) best = rank;
    }
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) {
      const std::uint64_t other = shuffle_xor(best, by);
      best = other > best ? other : best;
    }
    bound = best;
    const auto id = static_cast<int>(~static_cast<std::uint32_t>(best));
    if (j == 0) largest = logits[id];
    const float weight = exponential(logits[id] - largest);
    total += weight;
    if (lane == 0) {
      ids[j] = id;
      weights[j] = weight;
    }
  }
  if (call.weights_of_all) {
    total = 0;
    for (int id = lane; id < call.experts; id += 32) total += exponential(logits[id] - largest);
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) total += shuffle_xor(total, by);
  }
  if (lane == 0)
    for (int j = 0; j < call.chosen; ++j) weights[j] /= total;
}

// The entries of one expert, by a warp: how many choices are of experts before it, then, choice after choice,
// those that are its own.
NIB_DEVICE void list(const Route& call, int expert, int lane) {
  const std::int32_t* const ids = call.to.chosen;
  const int choices = call.rows * call.chosen;
  int before = 0;
  for (int i = lane; i < choices; i += 32) before += ids[i] < expert;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) before += shuffle_xor(before, by);
  if (lane == 0) {
    call.to.first[expert] = before;
    if (expert == 0) call.to.first[call.experts] = choices;
  }
  for (int begin = 0; begin < choices; begin += 32) {
    const int i = begin + lane;
    const bool mine = i < choices && ids[i] == expert;
    int count = mine;  // of those up to this lane
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) {
      const int other = shuffle_up(count, by);
      if (lane >= by) count += other;
    }
    if (mine) {
      const int entry = before + count - 1, row = i / call.chosen;
      int place = 0;  // among the row's experts
      for (int j = 0; j < call.chosen; ++j) place += ids[row * call.chosen + j] < expert;
      call.to.row[entry] = row;
      call.to.weight[entry] = call.to.chosen_weight[i];
      call.to.entry_of_row[row * call.chosen + place] = entry;
    }
    before += shuffle(count, 31);
  }
}

NIB_KERNEL void NIB_FITS(kThreads, 1) choose_kernel(Route call) {
  wait_for_kernel_before();
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  for (int row = block_index() * kWarps + warp; row < call.rows; row += block_count() * kWarps)
    choose(call, row, lane);
}

NIB_KERNEL void NIB_FITS(kThreads, 1) list_kernel(Route call) {
  wait_for_kernel_before();
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  for (int expert = block_index() * kWarps + warp; expert < call.experts; expert += block_count() * kWarps)
    list(call, expert, lane);
}

// Both, in one block: for as many rows as it has warps it takes less time than another launch.
NIB_DEVICE void choose_and_list(const Route& call) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (warp < call.rows) choose(call, warp, lane);
  sync_block();
  for (int expert = warp; expert < call.experts; expert += kWarps) list(call, expert, lane);
}
NIB_KERNEL void NIB_FITS(kThreads, 1) choose_and_list_kernel(Route call) {
  wait_for_kernel_before();
  choose_and_list(call);
}

// Logits of up to eight rows, of which tiles are counted: the block that comes last goes on with all of them.
template <class Tiles>
struct Logits : Dense<Tiles> {
  std::int32_t* counter;  // zero, before and after
  std::int32_t& is_last;  // in shared memory

  NIB_DEVICE void begin(float (&row_factors)[kColumns]) const {
    Dense<Tiles>::begin(row_factors);
    if (thread_index() == 0) is_last = 0;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums) const {
    Dense<Tiles>::finish(item, lane, sums);
    sync_warp();  // what the lanes left in memory comes before what is counted
    if (lane != 0 || add_in_order(counter, 1) + 1 != this->tiles()) return;
    *counter = 0;
    is_last = 1;
  }
};

template <class Math>
struct RouteShared {
  StripeShared<Math> stripes;
  std::int32_t is_last;
};

template <class Math>
NIB_KERNEL void NIB_FITS(kThreads, Math::kBlocksThatFit)
    route_kernel(DenseCallOf<Math> product, CutItems cut, std::int32_t* counter, Route call) {
  if constexpr (Math::kHasCode) {
    auto& shared = shared_memory<RouteShared<Math>>();
    const RowFactors factors = RowFactors::of(product.norm, shared.stripes.row_factors);
    const Logits<typename Math::Weights::Tiles> logits{{product, factors}, counter, shared.is_last};
    multiply_stripes<Math>(logits, cut, shared.stripes);
    sync_block();
    if (shared.is_last) choose_and_list(call);
  } else {
    fail_without_code();
  }
}

template <class Math>
Status launch_route(const Queue& queue, const OpContext& context, const Multiply& logits, const Route& call) {
  static_assert(sizeof(RouteShared<Math>) <= Math::kMostShared);
  const auto product = DenseCallOf<Math>::of(logits);
  const Scratch scratch(context);
  const int blocks = blocks_of(queue, Math::kBlocksThatFit, sizeof(RouteShared<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(scratch, blocks, product.tiles.slices(), 1));
  return launch(route_kernel<Math>, {blocks, kThreads, sizeof(RouteShared<Math>)}, queue.stream, product, cut,
                scratch.counters, call);
}

Status check(const RouteArgs& args) {
  if (args.experts_per_token < 1 || args.rows < 0 ||
      args.rows > std::numeric_limits<std::int32_t>::max() / args.experts_per_token)
    return Status(Code::argument,
                  concat("rows: found ", args.rows, " of ", args.experts_per_token, " experts each"));
  if (!args.weight) return {};
  if (args.weight->rows != args.experts)
    return Status(Code::argument,
                  concat("rows of the router: expected ", args.experts, ", found ", args.weight->rows));
  if (args.experts_per_token > args.experts)
    return Status(Code::argument, concat("experts of a row: expected 1 to ", args.experts, ", found ",
                                         args.experts_per_token));
  return {};
}

}  // namespace

Status route(const Queue& queue, const OpContext& context, const RouteArgs& args) {
  NIB_TRY(check(args));
  if (args.rows == 0 || !args.weight) return {};
  const auto rows = static_cast<int>(args.rows);
  const std::int64_t logit_stride = row_stride(args.experts);
  const Multiply logits{.weight = args.weight,
                        .x = reinterpret_cast<const std::uint16_t*>(args.normed),
                        .x_stride = bf16_stride(args.weight->k),
                        .rows = args.rows,
                        .bias = args.bias,
                        .out = args.logits,
                        .out_stride = logit_stride,
                        .norm = FoldedNorm::of(args.norm, args.squares, args.weight->k)};
  const Route call{rows,        args.experts, args.experts_per_token,
                   args.logits, logit_stride, args.weights_of_all,
                   args.routing};
  if (rows <= kWarps && device_form(*args.weight) == DeviceForm::bf16)
    return queue.tensor_cores ? launch_route<TensorMath<Bf16Weights>>(queue, context, logits, call)
                              : launch_route<SimtMath<Bf16Weights>>(queue, context, logits, call);
  NIB_TRY(multiply(queue, context, logits));
  if (rows <= kWarps) return launch(choose_and_list_kernel, {1, kThreads, 0}, queue.stream, call);
  const auto blocks = [&](int of) { return std::min(queue.processors, ceil_div(of, kWarps)); };
  NIB_TRY(launch(choose_kernel, {blocks(rows), kThreads, 0}, queue.stream, call));
  return launch(list_kernel, {blocks(args.experts), kThreads, 0}, queue.stream, call);
}

}  // namespace nib::inline v0::cuda
