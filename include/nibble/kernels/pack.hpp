// Room kernels: packing: natural rows into the tiles that kernels read. The layout is drawn in packed.hpp.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/kernels/packed.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// The natural planes of one strip's sixteen rows, each pointing at the first input (k) of the tile; null for
// a row past the last (it becomes zeros). codes: the format's codes in order of k; scales: one byte per 32
// (mxfp4), else unused.
struct StripRows {
  const std::byte* codes[kStripRows] = {};
  const std::byte* scales[kStripRows] = {};
};

// What was seen while packing mxfp4: byte 255 is not a number, and exponents outside 2..252 of groups that
// are not zero need a kernel in f32.
struct PackFindings {
  bool not_a_number = false;
  bool wide_exponents = false;
};

// Writes the tile of `k` (1..128) inputs, tile_bytes(format, k) bytes, all of them. A group of mxfp4 whose
// codes are all zero takes the exponent `carried[row]` of the last group before it that was not (127 at the
// beginning), so that no kernel meets its meaningless scale; `carried` is updated, and starts at 127 for each
// strip.
PackFindings pack_tile(Format format, std::int64_t k, const StripRows& rows, std::uint8_t carried[kStripRows],
                       std::byte* tile);

}  // namespace nib::inline v0
