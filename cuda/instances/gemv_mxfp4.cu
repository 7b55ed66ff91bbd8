#include "../bodies/stripes.cuh"
#include "../gemv_mxfp4.hpp"
#include <nibble/base/concat.hpp>

namespace nib::inline v0::cuda {
namespace {

// One matrix, all tokens.
struct Dense {
  GemvMxfp4 call;

  NIB_DEVICE int items() const { return static_cast<int>(call.shape.tiles()); }
  NIB_DEVICE const Mxfp4Tiles& shape() const { return call.shape; }
  NIB_DEVICE const std::byte* tile(int item) const { return call.weights + item * call.shape.tile_bytes(); }
  NIB_DEVICE const std::uint16_t* column(int, int i) const {
    return call.x + (i < call.tokens ? i : 0) * call.x_stride;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums) const {
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = std::int64_t{item} * kTileRows + row_of_element(lane, i);
      const int token = column_of_element(lane, i);
      if (row < call.shape.rows && token < call.tokens)
        call.out[token * call.out_stride + row] = sums.at[i] * call.factor;
    }
  }
};

template <class Math>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit) gemv_kernel(GemvMxfp4 call) {
  multiply_stripes<Math>(Dense{call}, CutItems{reinterpret_cast<WarpSums*>(call.scratch), call.counters});
}

template <class Math>
Status launch_gemv(const GemvMxfp4& call, int blocks, Stream stream) {
  return launch(gemv_kernel<Math>, {blocks, kStripeThreads, sizeof(StripeShared<Math::kStages>)}, stream,
                call);
}

}  // namespace

Status gemv_mxfp4(const GemvMxfp4& call, Arithmetic arithmetic, int blocks, Stream stream) {
  if (call.tokens < 1 || call.tokens > kColumns)
    return Status(Code::argument, concat("tokens: expected 1 to ", kColumns, ", found ", call.tokens));
  return arithmetic == Arithmetic::tensor ? launch_gemv<TensorMath>(call, blocks, stream)
                                          : launch_gemv<SimtMath>(call, blocks, stream);
}

}  // namespace nib::inline v0::cuda
