#include "../bodies/dense.cuh"
#include "../bodies/forms.cuh"
#include "../fast.cuh"
#include "../tiles.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit)
    multiply_kernel(DenseCallOf<Math> call, CutItems cut) {
  if constexpr (Math::kHasCode) {
    auto& shared = shared_memory<StripeShared<Math>>();
    const DenseAndAfter<typename Math::Weights::Tiles> dense{
        {call, RowFactors::of(call.norm, shared.row_factors)}};
    multiply_stripes<Math>(dense, cut, shared);
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

template <class Math>
Status launch_dense(const Queue& queue, const OpContext& context, const Multiply& call) {
  static_assert(sizeof(GroupedShared<Math>) <= Math::kMostShared &&
                sizeof(StripeShared<Math>) <= Math::kMostShared);
  const auto dense = DenseCallOf<Math>::of(call);
  if constexpr (Math::kHasFastKernel)
    if (is_fast(queue, call.may_be_fast, *call.weight, call.rows))
      return launch_fast(queue, dense, call.rows);
  if (call.rows > kColumns)
    return launch(multiply_grouped_kernel<Math>,
                  {queue.processors, kStripeThreads, sizeof(GroupedShared<Math>)}, queue.stream, dense);
  const int blocks = blocks_of(queue, Math::kBlocksThatFit, sizeof(StripeShared<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(Scratch(context), blocks, dense.tiles.slices()));
  return launch(multiply_kernel<Math>, {blocks, kStripeThreads, sizeof(StripeShared<Math>)}, queue.stream,
                dense, cut);
}

}  // namespace

bool multiply_goes_on(const PackedWeight& weight, std::int64_t rows) {
  return rows <= kColumns && has_tensor_tiles(device_form(weight));
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
