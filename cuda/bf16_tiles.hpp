// Room cuda: where the numbers of a bf16 matrix lie on a device. Everything here is constexpr: the host packs
// with it, tests walk all of it.
//
// A matrix is cut into tiles of 16 rows and slices of one block of 64 inputs (kernels/device_layout.hpp). A
// block is 2048 bytes: four times what a warp loads in one instruction, 16 bytes a lane, the first factor of
// one tensor product of 16 rows x 16 inputs. Lane l of product p of a block (group = l / 4, in_group = l % 4)
// holds four pairs, lower input first. With i = 32 (p / 2) + 8 in_group + 4 (p % 2):
//
//   word 0: row group, inputs i, i + 1    word 1: row group + 8, the same    words 2, 3: inputs i + 2, i + 3
//
// so that inputs meet their columns as those of MXFP4 do (mxfp4_tiles.hpp): what a lane loads of a column, 16
// bytes, is eight inputs that follow each other.
#pragma once

#include <nibble/kernels/device_layout.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

// The byte where input `i` of a row lies; i and i + 1 are neighbours where i is even.
constexpr std::int64_t bf16_offset(const Bf16Tiles& tiles, std::int64_t row, std::int64_t i) {
  const std::int64_t product = i % kBlockDepth / 32 * 2 + i % 8 / 4;
  const std::int64_t lane = row % 8 * 4 + i % 32 / 8;
  const std::int64_t word = i % 4 / 2 * 2 + row % kTileRows / 8;
  return tiles.slice_offset(row / kTileRows, static_cast<int>(i / kBlockDepth)) + product * 512 + lane * 16 +
         word * 4 + i % 2 * 2;
}

}  // namespace nib::inline v0::cuda
