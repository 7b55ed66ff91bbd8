#include "pack.hpp"

#include "bf16_tiles.hpp"
#include "mxfp4_tiles.hpp"
#include "scaled_tiles.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/e8m0.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

// A tile of the processor's packed order (kernels/packed.hpp): its lines, and where those of codes end.
struct SourceTile {
  const std::byte* first;
  std::size_t stride;
  std::int64_t k, code_lines;

  SourceTile(const PackedWeight& weight, std::int64_t strip, std::int64_t tile)
      : first(weight.data + weight.tile_offset(strip, tile)),
        stride(weight.line_stride(strip)),
        k(std::min(kTileK, weight.k - tile * kTileK)),
        code_lines(static_cast<std::int64_t>(code_plane_bytes(tile_info(weight.format), k) / 64)) {}

  std::uint32_t dword(std::int64_t line, std::int64_t lane) const {
    std::uint32_t out = 0;
    std::memcpy(&out, first + static_cast<std::size_t>(line) * stride + lane * 4, sizeof out);
    return out;
  }
  // Of codes of four bits and of bytes: those of an octet's inputs, in order.
  std::array<std::uint8_t, kOctet> codes(const TileInfo& info, std::int64_t octet, std::int64_t lane) const {
    std::array<std::uint8_t, kOctet> out{};
    for (int i = 0; i < kOctet; ++i) {
      std::uint8_t& code = out[static_cast<std::size_t>(info.in_steps ? chain_offset(i) : i)];
      if (info.bits == 4)
        code = dword(octet, lane) >> 4 * i & 15;
      else if (info.in_steps)
        code = std::to_integer<std::uint8_t>(line(octet * 2 + i / 4)[i % 4 * kStripRows + lane]);
      else
        code = static_cast<std::uint8_t>(dword(octet * 2 + i % 2, lane) >> i / 2 * 8);
    }
    return out;
  }
  const std::byte* line(std::int64_t number) const {
    return first + static_cast<std::size_t>(number) * stride;
  }
  // Byte `offset` of the scales.
  const std::byte* scales(std::int64_t offset) const { return line(code_lines + offset / 64) + offset % 64; }
  // Of MXFP4: of inputs 32 group .. + 31 of the tile.
  int scale(std::int64_t group, std::int64_t lane) const {
    return std::to_integer<int>(*scales(group * kStripRows + lane));
  }
  bool all_zeros(std::int64_t group, std::int64_t lane) const {
    std::uint32_t any = 0;
    for (std::int64_t octet = group * 4; octet < group * 4 + 4; ++octet) any |= dword(octet, lane);
    return (any & 0x7777'7777u) == 0;
  }
};

std::int64_t tiles_of_row(const PackedWeight& weight) { return ceil_div(weight.k, kTileK); }

// The rows of a matrix that make a tile of the device; -1: none.
using TileRows = std::array<std::int64_t, kTileRows>;

TileRows rows_of_tile(DeviceRows order, std::int64_t tile, std::int64_t rows) {
  TileRows out{};
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    std::int64_t row = tile * kTileRows + i;
    if (order.order == DeviceRows::heads)
      row = rows_in_pairs(order.head_dim, static_cast<int>(tile)).row(static_cast<int>(i));
    if (order.order == DeviceRows::gate_up) {
      // Units 8 tile .. + 7: their gates in one strip, their ups in the next.
      const std::int64_t unit = tile * (kTileRows / 2) + i % (kTileRows / 2);
      row = unit / kStripRows * 2 * kStripRows + i / (kTileRows / 2) * kStripRows + unit % kStripRows;
    }
    out[static_cast<std::size_t>(i)] = row < rows ? row : -1;
  }
  return out;
}

// The largest scale of any group, whatever it holds; no less, where lines have more than scales in them.
// Every part asks, so that it has to take little time: lines as they lie.
int largest_scale(const PackedWeight& weight) {
  std::byte most[64] = {};
  for (std::int64_t strip = 0; strip < weight.strips(); ++strip)
    for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
      const SourceTile tile(weight, strip, t);
      const std::int64_t lines = ceil_div(tile.k / kScaleGroup * kStripRows, std::int64_t{64});
      for (std::int64_t line = tile.code_lines; line < tile.code_lines + lines; ++line) {
        const std::byte* const scales = tile.first + static_cast<std::size_t>(line) * tile.stride;
        for (int i = 0; i < 64; ++i) most[i] = std::max(most[i], scales[i]);
      }
    }
  return std::to_integer<int>(*std::max_element(most, most + 64));
}

// Of the groups that hold anything but zeros.
ScaleExtent extent_of(const PackedWeight& weight) {
  ScaleExtent extent;
  for (std::int64_t strip = 0; strip < weight.strips(); ++strip)
    for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
      const SourceTile tile(weight, strip, t);
      const std::int64_t lanes = std::min(kStripRows, weight.rows - strip * kStripRows);
      for (std::int64_t group = 0; group < tile.k / kScaleGroup; ++group)
        for (std::int64_t lane = 0; lane < lanes; ++lane)
          extent.see(tile.scale(group, lane), tile.all_zeros(group, lane));
    }
  return extent;
}

// What all scales are lowered by. Those of trained weights are not, which a look at the scales alone can
// tell.
Result<int> lowered_by(const PackedWeight& weight) {
  if (largest_scale(weight) <= kMostScale) return 0;
  return extent_of(weight).lowered_by();
}

// One row of a tile; `to`: its row in the matrix that the device holds.
void pack_mxfp4_row(const PackedWeight& weight, const Mxfp4Tiles& tiles, std::int64_t from, std::int64_t to,
                    std::byte* out, int lowered_by) {
  const std::int64_t lane = from % kStripRows;
  for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
    const SourceTile tile(weight, from / kStripRows, t);
    for (std::int64_t octet = 0; octet < tile.k / kOctet; ++octet) {
      const std::uint32_t codes = tile.dword(octet, lane);
      std::uint8_t eight[8];
      for (unsigned i = 0; i < 8; ++i) eight[i] = codes >> 4 * i & 15;
      const std::uint32_t word = twiddle(eight);
      std::memcpy(out + mxfp4_word_offset(tiles, to, t * kTileK + octet * kOctet), &word, sizeof word);
    }
    for (std::int64_t group = 0; group < tile.k / kScaleGroup; ++group) {
      // A group of zeros may have any scale, and gets one that its byte can hold.
      const int scale = std::clamp(tile.scale(group, lane) - lowered_by, 0, kMostScale);
      out[mxfp4_scale_offset(tiles, to, t * (kTileK / kScaleGroup) + group)] =
          static_cast<std::byte>(scale + kScaleBias);
    }
  }
}

void pack_bf16_row(const PackedWeight& weight, const Bf16Tiles& tiles, std::int64_t from, std::int64_t to,
                   std::byte* out) {
  const auto put = [&](std::uint32_t bits, std::int64_t i) {
    const auto number = static_cast<std::uint16_t>(bits);
    if (i < tiles.k) std::memcpy(out + bf16_offset(tiles, to, i), &number, sizeof number);
  };
  for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
    const SourceTile tile(weight, from / kStripRows, t);
    for (std::int64_t line = 0; line < tile.code_lines; ++line) {  // four an octet: inputs j and j + 4
      const std::uint32_t pair = tile.dword(line, from % kStripRows);
      const std::int64_t i = t * kTileK + line / 4 * kOctet + line % 4;
      put(pair, i);
      put(pair >> 16, i + 4);
    }
  }
}

// The codes of a row of a tile; whether all of them are numbers.
template <class Codec, class Tiles>
bool pack_codes(const PackedWeight& weight, const SourceTile& tile, const Tiles& tiles, std::int64_t lane,
                std::int64_t to, std::int64_t first_input, std::byte* out) {
  bool holds = true;
  for (std::int64_t octet = 0; octet * kOctet < tile.k; ++octet) {
    const auto codes = tile.codes(tile_info(weight.format), octet, lane);
    for (std::int64_t i = 0; i < kOctet; i += Codec::kCodes) {
      const std::uint32_t word = Codec::word(codes.data() + i);
      std::memcpy(out + code_word_offset(tiles, to, first_input + octet * kOctet + i), &word, sizeof word);
    }
    for (const std::uint8_t code : codes) holds = holds && Codec::holds(code);
  }
  return holds;
}

// A row of a format that has a f16 for each 32 inputs.
template <class Codec, class Tiles>
void pack_row_of_halves(const PackedWeight& weight, const Tiles& tiles, std::int64_t from, std::int64_t to,
                        std::byte* out) {
  const std::int64_t lane = from % kStripRows;
  for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
    const SourceTile tile(weight, from / kStripRows, t);
    pack_codes<Codec>(weight, tile, tiles, lane, to, t * kTileK, out);
    for (std::int64_t group = 0; group < tile.k / 32; ++group)
      std::memcpy(out + scale_offset(tiles, to, t * (kTileK / 32) + group, 2),
                  tile.scales((group * kStripRows + lane) * 2), 2);
  }
}

// And of one that has a f32 for the row or for each so many tiles of it. What is no number in eight bits
// makes none of its scale, and so of all products, as it would itself.
template <class Codec>
void pack_row_of_runs(const PackedWeight& weight, const ByteTiles& tiles, std::int64_t from, std::int64_t to,
                      std::byte* out) {
  static_assert(ByteTiles::kSliceDepth == kTileK);
  const std::int64_t strip = from / kStripRows, lane = from % kStripRows;
  for (std::int64_t t = 0; t < tiles_of_row(weight); ++t) {
    const SourceTile tile(weight, strip, t);
    const std::byte* const scales = weight.run() ? tile.scales(0) : weight.data + weight.header_offset(strip);
    float scale = 0;
    std::memcpy(&scale, scales + lane * 4, sizeof scale);
    if (!pack_codes<Codec>(weight, tile, tiles, lane, to, t * kTileK, out))
      scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(out + scale_offset(tiles, to, t, sizeof scale), &scale, sizeof scale);
  }
}

// This part of the tiles: each is zeros, then its rows.
template <class Tiles, class PackRow>
void pack_tiles(const Tiles& tiles, DeviceRows order, Range part, std::byte* out, const PackRow& pack_row) {
  const auto bytes = static_cast<std::size_t>(tiles.tile_bytes());
  for (std::int64_t tile = part.begin; tile < part.end; ++tile) {
    std::memset(out + static_cast<std::size_t>(tile) * bytes, 0, bytes);
    const TileRows rows = rows_of_tile(order, tile, tiles.rows);
    for (std::int64_t i = 0; i < kTileRows; ++i)
      if (const std::int64_t from = rows[static_cast<std::size_t>(i)]; from >= 0)
        pack_row(from, tile * kTileRows + i);
  }
}

void write_header(std::byte* out, float factor) {
  std::memset(out, 0, kDeviceHeaderBytes);
  std::memcpy(out, &factor, sizeof factor);
}

}  // namespace

void ScaleExtent::see(int scale, bool all_zeros) {
  // A scale of NaN makes NaN even of zeros.
  if (scale != E8M0::nan && all_zeros) return;
  least_ = std::min(least_, scale);
  most_ = std::max(most_, scale);
}

Result<int> ScaleExtent::lowered_by() const {
  if (most_ == E8M0::nan) return Status(Code::unsupported, "a scale is NaN");
  const int lowered = std::max(0, most_ - kMostScale);
  if (least_ < lowered)
    return Status(Code::unsupported, concat("scales from 2^", least_ - 127, " to 2^", most_ - 127,
                                            ": expected the largest at most 2^128 times the smallest"));
  return lowered;
}

Status pack(const PackedWeight& weight, DeviceRows rows, std::byte* out, int index, int count) {
  if (index < 0 || index >= count)
    return Status(Code::argument, concat("part ", index, " of ", count, ": there is no such part"));
  if (rows.order == DeviceRows::heads &&
      (rows.head_dim < kTileRows || rows.head_dim % kTileRows || weight.rows % rows.head_dim))
    return Status(Code::argument, concat("rows of heads: expected whole ones of a multiple of ", kTileRows,
                                         ", found ", weight.rows, " of ", rows.head_dim));
  if (rows.order == DeviceRows::gate_up && weight.rows % (2 * kStripRows) != 0)
    return Status(Code::argument,
                  concat("rows of gates and ups: expected a multiple of 32, found ", weight.rows));
  const Range part = split(ceil_div(weight.rows, std::int64_t{kTileRows}), index, count);
  std::byte* const tiles_at = out + kDeviceHeaderBytes;
  float factor = 1;
  std::size_t bytes = 0;  // of all tiles
  const auto pack_by = [&](const auto& tiles, const auto& pack_row) {
    bytes = static_cast<std::size_t>(tiles.bytes());
    pack_tiles(tiles, rows, part, tiles_at,
               [&](std::int64_t from, std::int64_t to) { pack_row(weight, tiles, from, to, tiles_at); });
  };
  switch (device_form(weight)) {
    case DeviceForm::mxfp4: {
      const auto lowered = lowered_by(weight);
      if (!lowered.ok()) return lowered.status();
      factor = std::ldexp(1.0f, lowered.value());
      pack_by(Mxfp4Tiles{weight.rows, weight.k},
              [&](const auto&... row) { pack_mxfp4_row(row..., lowered.value()); });
      break;
    }
    case DeviceForm::bf16:
      pack_by(Bf16Tiles{weight.rows, weight.k}, pack_bf16_row);
      break;
    case DeviceForm::q4_0:
      pack_by(Q4Tiles{weight.rows, weight.k}, pack_row_of_halves<NibblesLess8, Q4Tiles>);
      break;
    case DeviceForm::q8_0:
      pack_by(Q8Tiles{weight.rows, weight.k}, pack_row_of_halves<SignedBytes, Q8Tiles>);
      break;
    case DeviceForm::int8:
      if (weight.format == Format::llm_int8) factor = 1.0f / 127.0f;
      pack_by(ByteTiles{weight.rows, weight.k}, pack_row_of_runs<SignedBytes>);
      break;
    case DeviceForm::fp8_e4m3:
      pack_by(ByteTiles{weight.rows, weight.k}, pack_row_of_runs<E4M3Bytes>);
      break;
    case DeviceForm::fp8_e5m2:
      pack_by(ByteTiles{weight.rows, weight.k}, pack_row_of_runs<E5M2Bytes>);
      break;
    case DeviceForm::tiles: {
      const Range mine = split(static_cast<std::int64_t>(weight.bytes()), index, count);
      std::memcpy(tiles_at + mine.begin, weight.data + mine.begin, static_cast<std::size_t>(mine.size()));
      bytes = weight.bytes();
      break;
    }
    case DeviceForm::none:
      return Status(Code::unsupported, concat("the device has no kernel for ", format_name(weight.format),
                                              " of ", weight.rows, " x ", weight.k));
  }
  const std::size_t end = kDeviceHeaderBytes + bytes;
  if (index == count - 1) std::memset(out + end, 0, device_bytes(weight) - end);
  if (index == 0) write_header(out, factor);
  return {};
}

}  // namespace nib::inline v0::cuda
