// Room cuda: MXFP4 matrices as they are published become tiles of a device.
#pragma once

#include "mxfp4_tiles.hpp"
#include <nibble/base/status.hpp>

#include <cstddef>
#include <span>

namespace nib::inline v0::cuda {

// The exponents of the scales of one matrix, of those groups that hold anything but zeros; all of its rows
// have to be seen before the first is packed.
class ScaleExtent {
 public:
  // codes: 16 bytes a group, scales: a byte (formats/mxfp4.hpp).
  void see(std::span<const std::byte> codes, std::span<const std::byte> scales);
  // The power of two, 0 to 126, by which all scales are to be lowered. Errors: unsupported, if a scale is NaN
  // or the largest is more than 2^128 times the smallest.
  Result<int> lowered_by() const;

 private:
  int least_ = 255, most_ = -1;
};

// Packs rows [16 tile, 16 tile + 16) (those that there are) of a matrix into the bytes of that tile. codes
// and scales begin with row 16 tile; out: tiles.tile_bytes(). Whatever lies beyond the matrix becomes zero.
void pack_tile(const Mxfp4Tiles& tiles, std::int64_t tile, const std::byte* codes, const std::byte* scales,
               int lowered_by, std::byte* out);

}  // namespace nib::inline v0::cuda
