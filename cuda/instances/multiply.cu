#include "../bodies/dense.cuh"
#include "../bodies/forms.cuh"
#include "../bodies/router.cuh"
#include "../fast.cuh"
#include "../tiles.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

template <class Math>
struct MultiplyShared {
  StripeShared<Math> stripes;
  FinishedTiles finished;
  std::int32_t said;
};

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit)
    multiply_kernel(DenseCallOf<Math> call, CutItems cut, RouterCall router) {
  if constexpr (Math::kHasCode) {
    auto& shared = shared_memory<MultiplyShared<Math>>();
    float(&row_factors)[kColumns] = shared.stripes.row_factors;  // the product's, then the router's
    if (router.products) ask_for_router(router);
    const DenseAndAfter<typename Math::Weights::Tiles> dense{{call, RowFactors::of(call.norm, row_factors)},
                                                             shared.finished};
    multiply_stripes<Math>(dense, cut, shared.stripes);
    if (router.products)
      route_behind<typename Math::template With<Bf16Weights>>(router, shared.finished, row_factors,
                                                              shared.said);
  } else {
    fail_without_code();
  }
}

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) multiply_grouped_kernel(DenseCallOf<Math> call) {
  wait_for_kernel_before();
  if constexpr (Math::kHasCode) {
    const Dense<typename Math::Weights::Tiles> dense{call, RowFactors::of(call.norm, nullptr)};
    multiply_grouped<Math>(dense, shared_memory<GroupedShared<Math>>());
  } else {
    fail_without_code();
  }
}

// What a product goes on with, and the scratch that is left for the product: the products of the router's
// slices lie before its own.
Result<RouterCall> router_behind(const Multiply& call, Scratch& scratch) {
  if (!call.route) return RouterCall{};
  const RouteArgs& args = *call.route;
  NIB_TRY(check_route(args));
  if (call.weight->rows != args.weight->k || call.rows != args.rows)
    return Status(Code::argument, concat("rows of a router: expected ", call.rows, " of ", call.weight->rows,
                                         ", found ", args.rows, " of ", args.weight->k));
  const std::size_t bytes = router_products_bytes(args.weight->k, args.experts);
  if (bytes > scratch.bytes)
    return Status(Code::argument,
                  concat("scratch: expected ", bytes, " bytes or more, found ", scratch.bytes));
  const RouterCall router{DenseCall<RouterTiles>::of(logits_of(args)), reinterpret_cast<float*>(scratch.room),
                          scratch.counters, scratch.counters + 1, Route::of(args)};
  scratch.room += bytes;
  scratch.bytes -= bytes;
  return router;
}

template <class Math>
Status launch_dense(const Queue& queue, const OpContext& context, const Multiply& call) {
  static_assert(sizeof(GroupedShared<Math>) <= Math::kMostShared &&
                sizeof(MultiplyShared<Math>) <= Math::kMostShared);
  const auto dense = DenseCallOf<Math>::of(call);
  if constexpr (Math::kHasFastKernel)
    if (is_fast(queue, call.may_be_fast, *call.weight, call.rows))
      return launch_fast(queue, dense, call.rows);
  if (call.rows > kColumns)
    return launch(multiply_grouped_kernel<Math>,
                  {queue.processors, kStripeThreads, sizeof(GroupedShared<Math>)}, queue.stream, dense);
  Scratch scratch(context);
  NIB_ASSIGN(const RouterCall router, router_behind(call, scratch));
  const std::int64_t counters = router.products ? 1 + router.slices() : 0;
  const int blocks = blocks_of(queue, Math::kBlocksThatFit, sizeof(MultiplyShared<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(scratch, blocks, dense.tiles.slices(), counters));
  return launch(multiply_kernel<Math>, {blocks, kStripeThreads, sizeof(MultiplyShared<Math>)}, queue.stream,
                dense, cut, router);
}

}  // namespace

bool multiply_goes_on(const PackedWeight& weight, std::int64_t rows) {
  return rows <= kColumns && has_tensor_tiles(device_form(weight));
}

bool multiply_routes(const PackedWeight& weight, const RouteArgs& args) {
  return multiply_goes_on(weight, args.rows) && args.norm.kind == NormKind::rms && args.weight &&
         device_form(*args.weight) == DeviceForm::bf16;
}

Status multiply(const Queue& queue, const OpContext& context, const Multiply& call) {
  if (call.rows < 0 || call.rows > std::numeric_limits<int>::max())
    return Status(Code::argument, concat("rows: found ", call.rows));
  if (call.rows == 0) return {};
  const DeviceForm form = device_form(*call.weight);
  if (form == DeviceForm::none)
    return Status(Code::unsupported, concat("the device has no kernel for ", format_name(call.weight->format),
                                            " of ", call.weight->rows, " x ", call.weight->k));
  return run_by_form(
      form, queue.tensor_cores, [&]<class Math>() { return launch_dense<Math>(queue, context, call); },
      [&] {
        return multiply_tiles(queue, {.weight = *call.weight,
                                      .distance = 0,
                                      .lists = {},
                                      .rows = call.rows,
                                      .x = call.x,
                                      .x_stride = call.x_stride,
                                      .bias = call.bias,
                                      .bias_stride = 0,
                                      .entry_weight = nullptr,
                                      .out = call.out,
                                      .out_stride = call.out_stride,
                                      .add = call.add,
                                      .hidden = {},
                                      .norm = call.norm});
      });
}

}  // namespace nib::inline v0::cuda
