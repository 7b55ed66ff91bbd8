#include "../bodies/folded_norm.cuh"
#include "../bodies/grouped.cuh"
#include "../bodies/weights_bf16.cuh"
#include "../bodies/weights_mxfp4.cuh"
#include "../multiply.hpp"
#include "../tiles.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

template <class Tiles>
struct DenseCall {
  Tiles tiles;
  const std::byte* weight;  // its header
  const std::uint16_t* x;
  std::int64_t x_stride;
  int rows;
  const float* bias;
  float* out;
  std::int64_t out_stride;
  bool add;
  FoldedNorm norm;
  FoldedRows next;
};

// One matrix, all rows of inputs.
template <class Tiles>
struct Dense {
  const DenseCall<Tiles>& call;
  RowFactors factors;

  NIB_DEVICE int tiles() const { return static_cast<int>(call.tiles.tiles()); }
  NIB_DEVICE int items() const { return tiles(); }
  NIB_DEVICE int matrices() const { return 1; }
  NIB_DEVICE int columns(int) const { return call.rows; }
  NIB_DEVICE const Tiles& shape() const { return call.tiles; }
  NIB_DEVICE const std::byte* tile(int item) const {
    return call.weight + kDeviceHeaderBytes + item * call.tiles.tile_bytes();
  }
  NIB_DEVICE const std::uint16_t* column(int, int i) const {
    return call.x + (i < call.rows ? i : 0) * call.x_stride;
  }
  NIB_DEVICE void begin(float (&row_factors)[kColumns]) const {
    find_row_factors(call.norm, call.rows, row_factors);
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const float factor = *reinterpret_cast<const float*>(call.weight);
    float written[4] = {};
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = std::int64_t{item} * kTileRows + row_of_element(lane, i);
      const int column = first_column + column_of_element(lane, i);
      if (row >= call.tiles.rows || column >= call.rows) continue;
      float sum = sums.at[i] * factor * factors.of(column);
      if (call.bias) sum += call.bias[row];
      float& to = call.out[column * call.out_stride + row];
      to = written[i] = call.add ? to + sum : sum;
    }
    if (call.next.rows) leave_folded(call.next, item, lane, written, call.rows);
  }
};

template <class Math>
using DenseOf = Dense<typename Math::Weights::Tiles>;
template <class Math>
using DenseCallOf = DenseCall<typename Math::Weights::Tiles>;

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit)
    multiply_kernel(DenseCallOf<Math> call, CutItems cut) {
  auto& shared = shared_memory<StripeShared<Math>>();
  const DenseOf<Math> dense{call, RowFactors::of(call.norm, shared.row_factors)};
  multiply_stripes<Math>(dense, cut, shared);
}

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) multiply_grouped_kernel(DenseCallOf<Math> call) {
  wait_for_kernel_before();
  const DenseOf<Math> dense{call, RowFactors::of(call.norm, nullptr)};
  multiply_grouped<Math>(dense, shared_memory<GroupedShared<Math>>());
}

template <class Math>
Status launch_dense(const Queue& queue, const OpContext& context, const Multiply& call) {
  static_assert(sizeof(GroupedShared<Math>) <= Math::kMostShared &&
                sizeof(StripeShared<Math>) <= Math::kMostShared);
  const PackedWeight& weight = *call.weight;
  const DenseCallOf<Math> dense{{weight.rows, weight.k},
                                weight.data,
                                call.x,
                                call.x_stride,
                                static_cast<int>(call.rows),
                                call.bias,
                                call.out,
                                call.out_stride,
                                call.add,
                                call.norm,
                                call.next};
  if (call.rows > kColumns)
    return launch(multiply_grouped_kernel<Math>,
                  {queue.processors, kStripeThreads, sizeof(GroupedShared<Math>)}, queue.stream, dense);
  const int blocks = blocks_of(queue, Math::kBlocksThatFit, sizeof(StripeShared<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(Scratch(context), blocks, dense.tiles.slices()));
  return launch(multiply_kernel<Math>, {blocks, kStripeThreads, sizeof(StripeShared<Math>)}, queue.stream,
                dense, cut);
}

template <class Weights>
Status launch_dense_by(const Queue& queue, const OpContext& context, const Multiply& call) {
  return queue.tensor_cores ? launch_dense<TensorMath<Weights>>(queue, context, call)
                            : launch_dense<SimtMath<Weights>>(queue, context, call);
}

}  // namespace

bool multiply_folds(const PackedWeight& weight, std::int64_t rows) {
  const DeviceForm form = device_form(weight);
  return rows <= kColumns && (form == DeviceForm::mxfp4 || form == DeviceForm::bf16);
}

Status multiply(const Queue& queue, const OpContext& context, const Multiply& call) {
  if (call.rows < 0 || call.rows > std::numeric_limits<int>::max())
    return Status(Code::argument, concat("rows: found ", call.rows));
  if (call.rows == 0) return {};
  switch (device_form(*call.weight)) {
    case DeviceForm::mxfp4:
      return launch_dense_by<Mxfp4Weights>(queue, context, call);
    case DeviceForm::bf16:
      return launch_dense_by<Bf16Weights>(queue, context, call);
    case DeviceForm::tiles:
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
    case DeviceForm::none:
      break;
  }
  return Status(Code::unsupported, concat("the device has no kernel for ", format_name(call.weight->format),
                                          " of ", call.weight->rows, " x ", call.weight->k));
}

}  // namespace nib::inline v0::cuda
