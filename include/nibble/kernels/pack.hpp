// Room kernels: packing: natural rows into the tiles that kernels read. The layout is drawn in packed.hpp.
//
// Packing moves bits and changes none, but for these, which no value depends on:
//   mxfp4, nvfp4   a negative zero is stored as zero
//   mxfp4          a group of zeros takes the scale of the last group of its row before it that is none, the
//                  first ones that of the first that is not, so that no kernel meets a meaningless scale
//   nvfp4          from gguf_nvfp4: scales without their sign, and zero for the code of NaN, as ggml reads
//   them
#pragma once

#include <nibble/base/pool.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/kernels/packed.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// The format whose tiles hold rows stored in `stored`: another one where the two differ in order alone.
constexpr Format tile_format(Format stored) {
  if (stored == Format::gguf_mxfp4) return Format::mxfp4;
  if (stored == Format::gguf_nvfp4) return Format::nvfp4;
  return stored;
}

// The natural planes of one strip's sixteen rows, as stored, from k = 0; null for a row past the last (it
// becomes zeros). scales: the plane of formats that have one; of formats with shared scales an f32 for every
// run. factor: of formats that have one.
struct StripRows {
  const std::byte* codes[kStripRows] = {};
  const std::byte* scales[kStripRows] = {};
  float factor[kStripRows] = {};
};

// What was seen while packing scales that are E8M0: whether one was byte 255, not a number, and the range of
// those of mxfp4 (groups of zeros do not count), which the kernel must take.
struct PackFindings {
  bool not_a_number = false;
  ScaleRange scales = ScaleRange::narrow;
};

// Writes one strip of the matrix at `out`, whose shape, in the format tile_format(stored), is tiled(): its
// header and all of its tiles.
PackFindings pack_strip(Format stored, const PackedWeight& shape, std::int64_t strip, const StripRows& rows,
                        std::byte* out);

// Writes tile `tile` of one strip of a matrix in a plain format at `out`; its codes begin at the rows'
// beginning.
void pack_plain_tile(const PackedWeight& shape, std::int64_t strip, std::int64_t tile, const StripRows& rows,
                     std::byte* out);

// Before anything is written at `out`, where `count` matrices of this shape will lie: each thread of the pool
// writes a byte to every page of the strips that it will multiply (strips_of_thread). A system that gives a
// page to the memory node of the thread that wrote to it first puts weights near those who read them. A page
// of two threads, and a huge one is of 2 MiB, is one of theirs; so is, now and then, one of a thread that
// began late and whose part another one took (pool.hpp).
void place_weights(const PackedWeight& shape, std::int64_t count, std::byte* out, Pool& pool);

}  // namespace nib::inline v0
