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

// What was seen while packing mxfp4: byte 255 is not a number, and scales outside kLeastScale..kMostScale of
// groups that are not zero need a kernel that takes any.
struct PackFindings {
  bool not_a_number = false;
  bool wide_exponents = false;
};

// The exponents that zero groups take, so that no kernel meets their meaningless scales: a group of mxfp4
// whose codes are all zero takes that of the last group before it that was not, the first ones that of the
// first that is not.
struct CarriedExponents {
  std::uint8_t row[kStripRows];
};
// What a strip begins with. `groups` of 32 k in a row; rows point at k = 0.
CarriedExponents first_exponents(std::size_t groups, const StripRows& rows);

// Writes the tile of `k` (1..128) inputs, tile_bytes(format, k) bytes, all of them. The tiles of a strip are
// packed in order, handing on `carried` (which only mxfp4 looks at).
PackFindings pack_tile(Format format, std::int64_t k, const StripRows& rows, CarriedExponents& carried,
                       std::byte* tile);

}  // namespace nib::inline v0
