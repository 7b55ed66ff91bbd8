#include "../bodies/choose.cuh"
#include "../bodies/dense.cuh"
#include "../bodies/weights_bf16.cuh"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = kStripeThreads, kWarps = kThreads / 32;

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

}  // namespace

Status check_route(const RouteArgs& args) {
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

Multiply logits_of(const RouteArgs& args) {
  return {.weight = args.weight,
          .x = reinterpret_cast<const std::uint16_t*>(args.normed),
          .x_stride = bf16_stride(args.weight->k),
          .rows = args.rows,
          .bias = args.bias,
          .out = args.logits,
          .out_stride = row_stride(args.experts),
          .norm = FoldedNorm::of(args.norm, args.squares, args.weight->k)};
}

Status route(const Queue& queue, const OpContext& context, const RouteArgs& args) {
  NIB_TRY(check_route(args));
  if (args.rows == 0 || !args.weight) return {};
  const auto rows = static_cast<int>(args.rows);
  const Multiply logits = logits_of(args);
  const Route call = Route::of(args);
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
