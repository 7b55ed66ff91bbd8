#include "../bodies/tiles_kernels.cuh"

namespace nib::inline v0::cuda {
namespace {

template <class... D>
using Kernels = TilesKernels<true, D...>;

}  // namespace

TilesKernel find_kernel_of_blocks(Format format) { return cpu::ScaledFormats<OneRow, Kernels>::find(format); }

}  // namespace nib::inline v0::cuda
