// The kernels of tiles.cuh, by format; half of the formats in each of two files, which compile side by side.
#pragma once

#include "tiles.cuh"
#include <nibble/formats/format.hpp>

namespace nib::inline v0::cuda {

using TilesKernel = void (*)(TilesProduct);

// Those of the formats D whose scales lie inside their blocks, or of all others.
template <bool kInBlocks, class... D>
struct TilesKernels {
  // Null where there is none.
  static TilesKernel find(Format format) {
    TilesKernel found = nullptr;
    (consider<D>(format, found), ...);
    return found;
  }

 private:
  template <class One>
  static void consider(Format format, TilesKernel& found) {
    if constexpr ((format_info(One::kFormat).scales == Scales::inside) == kInBlocks)
      if (format == One::kFormat) found = tiles_kernel<One>;
  }
};

TilesKernel find_kernel_of_blocks(Format format);

}  // namespace nib::inline v0::cuda
