// Room kernels: PackedWeight: one matrix in the order the kernels read it, together with its kernel.
//
// Layout (the same for every instruction set, so that one prepared file serves every CPU):
//   strip       16 output rows; lane r of every vector belongs to row r of the strip
//   octet       8 consecutive k (inputs) of a strip; stored in the canonical order of summation, below
//   tile        one strip x 128 k: the octets of these k, then (mxfp4) 16 scale bytes per group of 32 k
//   macro-tile  four strips x 128 k: four tiles one after another. The last group of strips may have one to
//   three.
// A matrix is the sequence of its groups of four strips; a group is the sequence of its macro-tiles along k,
// so that a thread reads one sequential stream. A short last tile holds the k that are left, rounded up to
// whole octets.
//
//   mxfp4   an octet is 16 dwords, dword r = the 8 codes of row r, code of k offset i at bits 4i..4i+3; a
//           negative zero is stored as zero
//   bf16    an octet is 4 x 16 dwords: dword r of vector j = (k offset j) | (k offset j + 4) << 16
//   f16     an octet is 8 x 16 words in chain order; f32: 8 x 16 floats in chain order
// Rows past the last and k past the last are zero.
//
// Formats without tiles keep their bytes as they are stored, row after row: a record of a row is its codes,
// its scales (formats with shared scales: an f32 for every `scale_run` values), and the factor of formats
// that have one, an f32. A strip is sixteen records, rounded up to 64 bytes.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/formats/format.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

inline constexpr std::int64_t kStripRows = 16;
inline constexpr std::int64_t kTileK = 128;
inline constexpr std::int64_t kOctet = 8;
inline constexpr std::int64_t kGroupStrips = 4;

// Canonical order of summation inside an octet: step s adds k offset kChainOrder[s]. It is the order in which
// the bf16 pair dot consumes the pairs (0,4) (1,5) (2,6) (3,7), the odd element of each pair first.
inline constexpr int kChainOrder[8] = {4, 0, 5, 1, 6, 2, 7, 3};

// Bytes of one tile that holds `k` (1..128) inputs of one strip: a multiple of 64, 0 for a format without
// tiles. Always inlined: files compiled for one instruction set may not leave shared functions behind.
[[gnu::always_inline]] constexpr std::size_t tile_bytes(Format format, std::int64_t k) {
  const auto padded = static_cast<std::size_t>(round_up(k, kOctet));
  switch (format) {
    case Format::mxfp4: {
      const auto groups = static_cast<std::size_t>(ceil_div(k, std::int64_t{32}));
      return groups * 256 + round_up(groups * 16, std::size_t{64});
    }
    case Format::bf16:
    case Format::f16:
      return padded * 16 * 2;
    case Format::f32:
      return padded * 16 * 4;
    default:  // no tile: a format that no kernel multiplies yet
      return 0;
  }
}

// Scale bytes (E8M0) under which every kernel of MXFP4 multiplies exactly; tensors with others need a kernel
// that takes any. Below 2 a level times the scale is no normal number of bf16; above 250 the offset that the
// AVX2 kernel subtracts, 22 times the scale, is none of f32.
inline constexpr int kLeastScale = 2, kMostScale = 250;

struct MatmulKernel;

// The shape and the addresses of a packed matrix W [rows, k]. Plain data; points into memory it does not own.
struct PackedWeight {
  Format format = Format::none;
  std::int64_t rows = 0, k = 0;
  const std::byte* data = nullptr;
  const MatmulKernel* kernel = nullptr;
  std::int64_t scale_run = 0;  // of formats with shared scales

  constexpr std::int64_t strips() const { return ceil_div(rows, kStripRows); }
  constexpr std::int64_t k_padded() const { return round_up(k, kOctet); }
  constexpr std::int64_t full_tiles() const { return k / kTileK; }
  constexpr std::int64_t tail_k() const { return k % kTileK; }
  [[gnu::always_inline]] constexpr bool tiled() const { return tile_bytes(format, 1) != 0; }
  [[gnu::always_inline]] constexpr std::size_t record_codes() const {
    const FormatInfo& info = format_info(format);
    return static_cast<std::size_t>(k) / info.group * info.code_bytes;
  }
  [[gnu::always_inline]] constexpr std::size_t record_scales() const {
    const FormatInfo& info = format_info(format);
    if (info.scales == Scales::shared)
      return static_cast<std::size_t>(ceil_div(k, scale_run)) * sizeof(float);
    return static_cast<std::size_t>(k) / info.group * info.scale_bytes;
  }
  [[gnu::always_inline]] constexpr std::size_t record_bytes() const {
    return record_codes() + record_scales() + (format_info(format).tensor_scale ? sizeof(float) : 0);
  }
  [[gnu::always_inline]] constexpr std::size_t strip_bytes() const {
    if (!tiled()) return round_up(static_cast<std::size_t>(kStripRows) * record_bytes(), std::size_t{64});
    return static_cast<std::size_t>(full_tiles()) * tile_bytes(format, kTileK) +
           (tail_k() ? tile_bytes(format, tail_k()) : 0);
  }
  constexpr std::size_t bytes() const { return static_cast<std::size_t>(strips()) * strip_bytes(); }

  // Strips in the group that holds `strip`: four, or what is left at the end.
  [[gnu::always_inline]] constexpr std::int64_t strips_in_group(std::int64_t strip) const {
    const std::int64_t first = strip / kGroupStrips * kGroupStrips;
    return strips() - first < kGroupStrips ? strips() - first : kGroupStrips;
  }
  // Offset of tile `tile` (of full_tiles() + 1) of a strip.
  [[gnu::always_inline]] constexpr std::size_t tile_offset(std::int64_t strip, std::int64_t tile) const {
    const std::int64_t first = strip / kGroupStrips * kGroupStrips;
    const auto in_group = static_cast<std::size_t>(strips_in_group(strip));
    const std::size_t size = tile_bytes(format, tile < full_tiles() ? kTileK : tail_k());
    return static_cast<std::size_t>(first) * strip_bytes() +
           static_cast<std::size_t>(tile) * in_group * tile_bytes(format, kTileK) +
           static_cast<std::size_t>(strip - first) * size;
  }
};

}  // namespace nib::inline v0
