#include "../bodies/tiles_kernels.cuh"
#include <nibble/base/concat.hpp>

#include <algorithm>

namespace nib::inline v0::cuda {
namespace {

template <class... D>
using Kernels = TilesKernels<false, cpu::F16Floats<OneRow>, cpu::F32Floats<OneRow>, D...>;

}  // namespace

Status multiply_tiles(const Queue& queue, const TilesProduct& call) {
  const Format format = call.weight.format;
  TilesKernel kernel = cpu::ScaledFormats<OneRow, Kernels>::find(format);
  if (!kernel) kernel = find_kernel_of_blocks(format);
  if (!kernel) return Status(Code::unsupported, concat("the device has no kernel for ", format_name(format)));
  std::int64_t blocks = std::int64_t{queue.processors} * 4;
  if (!call.lists.first)
    blocks = std::min(blocks, ceil_div(call.weight.strips(), std::int64_t{2}) *
                                  ceil_div(call.rows, std::int64_t{kColumns}));
  return launch(kernel, {static_cast<int>(blocks), kTilesThreads, sizeof(TilesShared)}, queue.stream, call);
}

}  // namespace nib::inline v0::cuda
