// Room kernels: PackedWeight: one matrix in the order the kernels read it, together with its kernel.
//
// Layout (the same for every instruction set, so that one prepared file serves every CPU):
//   strip       16 output rows; lane r of every vector belongs to row r of the strip
//   octet       8 consecutive k (inputs) of a strip; stored in the canonical order of summation, below
//   tile        one strip x 128 k: the codes of these k, octet after octet, then their scales; whole lines of
//               64 bytes
//   macro-tile  four strips x 128 k: the first lines of four tiles, then their second lines, and so on. The
//               last group of strips may have one to three.
// A matrix is the sequence of its groups of four strips; a group is the sequence of its macro-tiles along k,
// so that a thread reads one sequential stream. A short last tile holds the k that are left, rounded up to
// whole octets.
//
//   nibbles     an octet is 16 dwords, dword r = the 8 codes of row r, code of k offset i at bits 4i..4i+3
//   bytes       an octet is 2 x 16 dwords: dword r of vector j = the codes of k offsets j, j + 2, j + 4 and
//               j + 6, lowest first; fp8: 8 x 16 bytes in chain order
//   bf16        an octet is 4 x 16 dwords: dword r of vector j = (k offset j) | (k offset j + 4) << 16
//   f16         an octet is 8 x 16 words in chain order; f32: 8 x 16 floats in chain order
//   high bits   of codes of 5 and 6 bits, behind the nibbles of the tile: 16 dwords for 32 (16) k.
//               Byte i / 2 of dword r holds the bits of the k offsets i and i + 1 of each octet,
//               octet after octet, lowest first
//   scales      behind the codes of the tile: a line for each group, then the line of the tile, where
//               the format has them (TileInfo). A line is 16 scales, or 16 of one and 16 of another
//   header      what a row has one of (a scale for the whole row, the factor of NVFP4): 16 f32 a
//               strip, those of a group of strips before its macro-tiles
// Rows past the last and k past the last are zero. What the tiles of a format change of its codes, and which
// formats share the tiles of another, is said in pack.hpp.
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

// The version of all that is said above: what prepared files were written in.
inline constexpr std::uint32_t kPackedLayout = 1;

inline constexpr std::int64_t kStripRows = 16;
inline constexpr std::int64_t kTileK = 128;
inline constexpr std::int64_t kOctet = 8;
inline constexpr std::int64_t kGroupStrips = 4;

// Canonical order of summation inside an octet: step s adds k offset kChainOrder[s]. It is the order in which
// the bf16 pair dot consumes the pairs (0,4) (1,5) (2,6) (3,7), the odd element of each pair first.
inline constexpr int kChainOrder[8] = {4, 0, 5, 1, 6, 2, 7, 3};
// The same for the compilers of devices, which have no tables of the host.
[[gnu::always_inline]] constexpr int chain_offset(int step) {
  return step % 2 == 0 ? 4 + step / 2 : step / 2;
}

// What a tile of a format is made of. Bytes of a line are those of sixteen rows.
struct TileInfo {
  std::uint8_t bits = 0;       // of a code in the plane of codes: 4, 8, 16, 32; 0: the format has no tiles
  std::uint8_t high_bits = 0;  // more of them in a plane of their own
  std::uint8_t group = 0;      // inputs that share a scale; 0: none do, or as the tensor says
  std::uint8_t group_line = 0;
  std::uint8_t tile_line = 0;
  bool in_steps = false;  // codes of a byte lie in chain order, sixteen rows a step
  bool shared = false;    // scales are f32, one for each run of inputs that the tensor says
  bool factor = false;    // one more f32 a row
};

// Always inlined, as all that kernels call: files compiled for one instruction set may not leave shared
// functions behind.
[[gnu::always_inline]] constexpr TileInfo tile_info(Format format) {
  switch (format) {
    case Format::mxfp4:
      return {.bits = 4, .group = 32, .group_line = 16};
    case Format::bf16:
    case Format::f16:
      return {.bits = 16};
    case Format::f32:
      return {.bits = 32};
    case Format::nvfp4:
      return {.bits = 4, .group = 16, .group_line = 16, .factor = true};
    case Format::nf4:
    case Format::bnb_fp4:
      return {.bits = 4, .shared = true};
    case Format::q4_0:
    case Format::iq4_nl:
      return {.bits = 4, .group = 32, .group_line = 32};
    case Format::q4_1:
      return {.bits = 4, .group = 32, .group_line = 64};
    case Format::q5_0:
      return {.bits = 4, .high_bits = 1, .group = 32, .group_line = 32};
    case Format::q5_1:
      return {.bits = 4, .high_bits = 1, .group = 32, .group_line = 64};
    case Format::q4_k:
      return {.bits = 4, .group = 32, .group_line = 32, .tile_line = 64};
    case Format::q5_k:
      return {.bits = 4, .high_bits = 1, .group = 32, .group_line = 32, .tile_line = 64};
    case Format::q6_k:
      return {.bits = 4, .high_bits = 2, .group = 16, .group_line = 16, .tile_line = 32};
    case Format::iq4_xs:
      return {.bits = 4, .group = 32, .group_line = 16, .tile_line = 32};
    case Format::q8_0:
      return {.bits = 8, .group = 32, .group_line = 32};
    case Format::mxint8:
      return {.bits = 8, .group = 32, .group_line = 16};
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2:
      return {.bits = 8, .group = 32, .group_line = 16, .in_steps = true};
    case Format::int8:
    case Format::llm_int8:
      return {.bits = 8, .shared = true};
    case Format::fp8_e4m3:
    case Format::fp8_e5m2:
      return {.bits = 8, .in_steps = true, .shared = true};
    default:
      return {};
  }
}

// Bytes of the codes of a tile.
[[gnu::always_inline]] constexpr std::size_t code_plane_bytes(const TileInfo& info, std::int64_t k) {
  const std::size_t octets = (static_cast<std::size_t>(k) + 7) / 8;
  return octets * info.bits * 16 + (octets * info.high_bits + 3) / 4 * 64;
}

// Bytes of one tile that holds `k` (1..128) inputs of one strip: a multiple of 64, 0 for a format without
// tiles. `run`: inputs that share a scale where the tensor says it (a divisor of 128, or at least 128), 0
// where it is the row's.
[[gnu::always_inline]] constexpr std::size_t tile_bytes(Format format, std::int64_t k, std::int64_t run = 0) {
  const TileInfo info = tile_info(format);
  const auto inputs = static_cast<std::size_t>(k);
  std::size_t scales = info.tile_line;
  if (info.group) scales += (inputs + info.group - 1) / info.group * info.group_line;
  if (info.shared && run > 0)
    scales += run >= kTileK
                  ? 64
                  : (inputs + static_cast<std::size_t>(run) - 1) / static_cast<std::size_t>(run) * 64;
  return code_plane_bytes(info, k) + (scales + 63) / 64 * 64;
}

// How far the scale bytes (E8M0) of a matrix of MXFP4 lie apart; each range holds those before it.
//   narrow  90..130, as those of trained weights: sums may be counted in units of the scale (Mxfp4Rescaled)
//   usual   2..250. Below 2 a level times the scale is no normal number of bf16; above 250 the offset of the
//           AVX2 kernel, 22 times the scale, is none of f32
//   any
enum class ScaleRange : std::uint8_t { narrow, usual, any };
[[gnu::always_inline]] constexpr ScaleRange scale_range(int scale) {
  if (scale >= 90 && scale <= 130) return ScaleRange::narrow;
  return scale >= 2 && scale <= 250 ? ScaleRange::usual : ScaleRange::any;
}

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
  // Of formats with shared scales: inputs that share one, 0: all of the row.
  [[gnu::always_inline]] constexpr std::int64_t run() const { return scale_run == k ? 0 : scale_run; }
  // Formats with shared scales have tiles where whole octets share one and tiles hold whole runs, or the
  // other way round.
  [[gnu::always_inline]] constexpr bool tiled() const {
    const TileInfo info = tile_info(format);
    const bool whole = run() == 0 || (run() % kOctet == 0 && (run() % kTileK == 0 || kTileK % run() == 0));
    return info.bits != 0 && (!info.shared || whole);
  }
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
    return tiled_strip_bytes();
  }
  // The same where tiled().
  [[gnu::always_inline]] constexpr std::size_t tiled_strip_bytes() const {
    return header_bytes() + static_cast<std::size_t>(full_tiles()) * tile_bytes(format, kTileK, run()) +
           (tail_k() ? tile_bytes(format, tail_k(), run()) : 0);
  }
  // Of one strip, in tiles.
  [[gnu::always_inline]] constexpr std::size_t header_bytes() const {
    const TileInfo info = tile_info(format);
    return info.factor || (info.shared && run() == 0) ? 64 : 0;
  }
  constexpr std::size_t bytes() const { return static_cast<std::size_t>(strips()) * strip_bytes(); }

  // Strips in the group that holds `strip`: four, or what is left at the end.
  [[gnu::always_inline]] constexpr std::int64_t strips_in_group(std::int64_t strip) const {
    const std::int64_t first = strip / kGroupStrips * kGroupStrips;
    return strips() - first < kGroupStrips ? strips() - first : kGroupStrips;
  }
  [[gnu::always_inline]] constexpr std::size_t header_offset(std::int64_t strip) const {
    const std::int64_t first = strip / kGroupStrips * kGroupStrips;
    return static_cast<std::size_t>(first) * strip_bytes() +
           static_cast<std::size_t>(strip - first) * header_bytes();
  }
  // Offset of the first line of tile `tile` (of full_tiles() + 1) of a strip; its lines are
  // line_stride(strip) apart.
  [[gnu::always_inline]] constexpr std::size_t tile_offset(std::int64_t strip, std::int64_t tile) const {
    const std::int64_t first = strip / kGroupStrips * kGroupStrips;
    const auto in_group = static_cast<std::size_t>(strips_in_group(strip));
    return static_cast<std::size_t>(first) * strip_bytes() + in_group * header_bytes() +
           static_cast<std::size_t>(tile) * in_group * tile_bytes(format, kTileK, run()) +
           static_cast<std::size_t>(strip - first) * 64;
  }
  [[gnu::always_inline]] constexpr std::size_t line_stride(std::int64_t strip) const {
    return static_cast<std::size_t>(strips_in_group(strip)) * 64;
  }
};

}  // namespace nib::inline v0
