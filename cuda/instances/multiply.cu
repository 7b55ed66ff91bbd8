#include "../bodies/forms.cuh"
#include "../bodies/grouped.cuh"
#include "../multiply.hpp"
#include "../tiles.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

// One matrix, all rows of inputs.
template <class Tiles>
struct Dense {
  Tiles tiles_of;
  const std::byte* weight;  // its header
  const std::uint16_t* x;
  std::int64_t x_stride;
  int rows;
  const float* bias;
  float* out;
  std::int64_t out_stride;
  bool add;

  NIB_DEVICE int tiles() const { return static_cast<int>(tiles_of.tiles()); }
  NIB_DEVICE int items() const { return tiles(); }
  NIB_DEVICE int matrices() const { return 1; }
  NIB_DEVICE int columns(int) const { return rows; }
  NIB_DEVICE const Tiles& shape() const { return tiles_of; }
  NIB_DEVICE const std::byte* tile(int item) const {
    return weight + kDeviceHeaderBytes + item * tiles_of.tile_bytes();
  }
  NIB_DEVICE const std::uint16_t* column(int, int i) const { return x + (i < rows ? i : 0) * x_stride; }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const float factor = *reinterpret_cast<const float*>(weight);
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = std::int64_t{item} * kTileRows + row_of_element(lane, i);
      const int column = first_column + column_of_element(lane, i);
      if (row >= tiles_of.rows || column >= rows) continue;
      float sum = sums.at[i] * factor;
      if (bias) sum += bias[row];
      float& to = out[column * out_stride + row];
      to = add ? to + sum : sum;
    }
  }
};

template <class Math>
using DenseOf = Dense<typename Math::Weights::Tiles>;

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit)
    multiply_kernel(DenseOf<Math> call, CutItems cut) {
  if constexpr (Math::kHasCode)
    multiply_stripes<Math>(call, cut, shared_memory<StripeShared<Math>>());
  else
    fail_without_code();
}

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) multiply_grouped_kernel(DenseOf<Math> call) {
  wait_for_kernel_before();
  if constexpr (Math::kHasCode)
    multiply_grouped<Math>(call, shared_memory<GroupedShared<Math>>());
  else
    fail_without_code();
}

template <class Math>
Status launch_dense(const Queue& queue, const OpContext& context, const Multiply& call) {
  static_assert(sizeof(GroupedShared<Math>) <= Math::kMostShared &&
                sizeof(StripeShared<Math>) <= Math::kMostShared);
  const PackedWeight& weight = *call.weight;
  const DenseOf<Math> dense{{weight.rows, weight.k},
                            weight.data,
                            call.x,
                            call.x_stride,
                            static_cast<int>(call.rows),
                            call.bias,
                            call.out,
                            call.out_stride,
                            call.add};
  if (call.rows > kColumns)
    return launch(multiply_grouped_kernel<Math>,
                  {queue.processors, kStripeThreads, sizeof(GroupedShared<Math>)}, queue.stream, dense);
  const int blocks = blocks_of(queue, Math::kBlocksThatFit, sizeof(StripeShared<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(Scratch(context), blocks, dense.tiles_of.slices()));
  return launch(multiply_kernel<Math>, {blocks, kStripeThreads, sizeof(StripeShared<Math>)}, queue.stream,
                dense, cut);
}

}  // namespace

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
                                      .hidden = {}});
      });
}

}  // namespace nib::inline v0::cuda
