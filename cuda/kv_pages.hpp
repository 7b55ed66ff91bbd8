// Room cuda: where the keys and values of a page lie on a device. Sizes and the order of blocks are
// KvLayout's (ops.hpp): [layer][kv head][K block, V block], the scales of a block behind its numbers. Within
// a block:
//
//   [D'/16][8 tiles]  16 dimensions after 16 dimensions ("a column"), D' = D rounded up to 16
//
// A tile has 8 x 16 numbers, as the tensor core takes its second factor (multiply_tile): lane l brings those
// of n = l / 4 at k = 2 (l % 4), + 1, + 8, + 9. What n and k are:
//   K  tile i: n is position 8 i + n, k is dimension k of the column
//   V  tile i: n is dimension 8 (i % 2) + n of the column, k is position 16 (i / 2) + k
// Tiles lie in turn, lane by lane, so that each lane has sixteen bytes of a unit of 512: f32 one tile, bf16
// two tiles, int8 and fp8 four. So a warp reads all it multiplies as it lies there, sixteen bytes a lane.
// Where a position is written, dimensions from D to D' are zeros.
#pragma once

#include <nibble/kernels/ops.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kColumnDims = 16, kColumnTiles = 8;
inline constexpr int kKvUnitBytes = 512;  // sixteen for each lane of a warp
static_assert(kColumnTiles * 8 == kPagePositions);

// Of a tile within a unit, and units of a column, by the bytes of a number.
constexpr int unit_tiles(int bytes) { return 4 / bytes; }
constexpr int column_units(int bytes) { return kColumnTiles / unit_tiles(bytes); }

// Bytes from the begin of a block to the number at (n, k) of a tile.
constexpr std::int64_t place_in_tile(int bytes, std::int64_t column, int tile, int n, int k) {
  const int tiles = unit_tiles(bytes), lane = n * 4 + k % 8 / 2, element = k / 8 * 2 + k % 2;
  return (column * column_units(bytes) + tile / tiles) * kKvUnitBytes + lane * 16 +
         (tile % tiles * 4 + element) * bytes;
}
// To dimension d of the key, or of the value, of position `slot` of the page.
constexpr std::int64_t key_place(int bytes, int slot, int d) {
  return place_in_tile(bytes, d / kColumnDims, slot / 8, slot % 8, d % 16);
}
constexpr std::int64_t value_place(int bytes, int slot, int d) {
  return place_in_tile(bytes, d / kColumnDims, slot / 16 * 2 + d % 16 / 8, d % 8, slot % 16);
}

}  // namespace nib::inline v0::cuda
