// Room cuda: MXFP4 matrices as they are published become tiles of a device.
#pragma once

#include "mxfp4_tiles.hpp"
#include <nibble/base/status.hpp>

#include <array>
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

// The rows of a matrix that make a tile, of any order; -1: none.
using TileRows = std::array<std::int64_t, kTileRows>;

// Sixteen that follow each other.
constexpr TileRows consecutive_rows(std::int64_t tile, std::int64_t rows) {
  TileRows out{};
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    const std::int64_t row = tile * kTileRows + i;
    out[static_cast<std::size_t>(i)] = row < rows ? row : -1;
  }
  return out;
}

// Of a matrix whose rows are gate and up of unit 0, gate and up of unit 1, and so on: eight gates, then the
// ups of the same units, so that a lane gets both of a unit.
constexpr TileRows gate_up_rows(std::int64_t tile, std::int64_t units) {
  TileRows out{};
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    const std::int64_t unit = tile * (kTileRows / 2) + i % (kTileRows / 2);
    out[static_cast<std::size_t>(i)] = unit < units ? 2 * unit + i / (kTileRows / 2) : -1;
  }
  return out;
}

// Packs `rows` of a matrix, whose codes and scales these are, into the bytes of one tile. out:
// tiles.tile_bytes(). Whatever lies beyond the matrix becomes zero.
void pack_tile(const Mxfp4Tiles& tiles, const TileRows& rows, const std::byte* codes, const std::byte* scales,
               int lowered_by, std::byte* out);

}  // namespace nib::inline v0::cuda
