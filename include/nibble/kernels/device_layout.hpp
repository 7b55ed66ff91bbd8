// Room kernels: what a device holds, in bytes: matrices, and the scratch of its ops. Arithmetic that plans
// need where no device is.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/kernels/packed.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// How a device holds a matrix.
enum class DeviceForm : std::uint8_t {
  none,   // not at all: it has no kernel for it
  mxfp4,  // tiles for tensor cores, of 16 rows x 256 inputs (cuda/mxfp4_tiles.hpp)
  bf16,   // tiles for tensor cores, of 16 rows x 64 inputs (cuda/bf16_tiles.hpp)
  // Tiles for tensor cores, of 16 rows x 256 inputs of 4 bits or 128 of 8 (cuda/scaled_tiles.hpp), with
  q4_0,      // a f16 for each 32 inputs
  q8_0,      // the same
  int8,      // a f32 for each 128 inputs; that of LLM.int8, too
  fp8_e4m3,  // the same
  fp8_e5m2,  // the same
  tiles,     // the processor's own order, for one kernel of all formats that have tiles there
};
constexpr DeviceForm device_form(const PackedWeight& shape) {
  if (!shape.tiled()) return DeviceForm::none;
  const bool whole_tiles = shape.run() % kTileK == 0;  // share a scale
  switch (shape.format) {
    case Format::mxfp4:
      return DeviceForm::mxfp4;
    case Format::bf16:
      return DeviceForm::bf16;
    case Format::q4_0:
      return DeviceForm::q4_0;
    case Format::q8_0:
      return DeviceForm::q8_0;
    case Format::int8:
    case Format::llm_int8:
      return whole_tiles ? DeviceForm::int8 : DeviceForm::tiles;
    case Format::fp8_e4m3:
      return whole_tiles ? DeviceForm::fp8_e4m3 : DeviceForm::tiles;
    case Format::fp8_e5m2:
      return whole_tiles ? DeviceForm::fp8_e5m2 : DeviceForm::tiles;
    default:
      return DeviceForm::tiles;
  }
}

constexpr bool has_tensor_tiles(DeviceForm form) {
  return form != DeviceForm::none && form != DeviceForm::tiles;
}

// Forms that a device may have kernels of the fast class for (DeviceFacts::fast), which a model may be opened
// with: another order of additions, and so other bits, for passes of so many rows.
constexpr bool has_fast_kernel(DeviceForm form) {
  return form == DeviceForm::mxfp4 || form == DeviceForm::bf16;
}
inline constexpr std::int64_t kFastRows = 64;

// Before the tiles of every matrix: a line that begins with a f32, the factor of all of its products.
inline constexpr std::size_t kDeviceHeaderBytes = 128;

// Tiles for tensor cores. A tile is 16 rows of a matrix and all of its inputs; it is cut into slices, the
// unit that a warp copies and multiplies: a line of scales, where the format has them, then blocks of 64
// inputs. The last slice of a tile may have fewer blocks.
inline constexpr int kTileRows = 16;
inline constexpr int kBlockDepth = 64;
// Of a matrix [rows, k]. LineBytes of scales; BlockBytes of a block; Blocks of a slice.
template <int LineBytes, int BlockBytes, int Blocks>
struct TensorTiles {
  static constexpr int kLineBytes = LineBytes, kBlockBytes = BlockBytes, kBlocks = Blocks;
  static constexpr int kSliceDepth = Blocks * kBlockDepth, kSliceBytes = LineBytes + Blocks * BlockBytes;

  std::int64_t rows, k;

  constexpr std::int64_t tiles() const { return ceil_div(rows, std::int64_t{kTileRows}); }
  constexpr int slices() const { return static_cast<int>(ceil_div(k, std::int64_t{kSliceDepth})); }
  constexpr int blocks(int slice) const {
    const std::int64_t left = k - std::int64_t{slice} * kSliceDepth;
    return left >= kSliceDepth ? kBlocks : static_cast<int>(ceil_div(left, std::int64_t{kBlockDepth}));
  }
  constexpr std::int64_t tile_bytes() const {
    return std::int64_t{slices() - 1} * kSliceBytes + kLineBytes +
           std::int64_t{blocks(slices() - 1)} * kBlockBytes;
  }
  constexpr std::int64_t slice_offset(std::int64_t tile, int slice) const {
    return tile * tile_bytes() + std::int64_t{slice} * kSliceBytes;
  }
  constexpr std::int64_t bytes() const { return tiles() * tile_bytes(); }
};
using Mxfp4Tiles = TensorTiles<128, kTileRows * kBlockDepth / 2, 4>;
using Bf16Tiles = TensorTiles<0, kTileRows * kBlockDepth * 2, 1>;
using Q4Tiles = TensorTiles<256, kTileRows * kBlockDepth / 2, 4>;
using Q8Tiles = TensorTiles<128, kTileRows * kBlockDepth, 2>;
using ByteTiles = TensorTiles<64, kTileRows * kBlockDepth, 2>;

// Whether a matrix of heads lies there in pairs (DeviceRows::heads), so that its product can rotate them: all
// of a head's dimensions are, in halves, and no tile has rows of two heads.
constexpr bool heads_in_pairs(const PackedWeight& shape, std::int64_t head_dim, std::int64_t rotary) {
  return has_tensor_tiles(device_form(shape)) && head_dim % kTileRows == 0 && rotary == head_dim;
}
// Which rows of a matrix a tile has: eight from `first` on, and eight that are so much further on.
struct RowsOfTile {
  std::int64_t first;
  int further;
  constexpr std::int64_t row(int i) const {
    constexpr int kHalf = kTileRows / 2;
    return first + i / kHalf * further + i % kHalf;
  }
};
constexpr RowsOfTile consecutive_rows(std::int64_t tile) { return {tile * kTileRows, kTileRows / 2}; }
// Of a matrix of heads in pairs: d .. d + 7 of some head, and d + D / 2 ...
constexpr RowsOfTile rows_in_pairs(int head_dim, int tile) {
  const int tiles = head_dim / kTileRows, head = tile / tiles;
  return {std::int64_t{head} * head_dim + (tile - head * tiles) * (kTileRows / 2), head_dim / 2};
}

// Bytes of a matrix, a multiple of 128; 0 for one that has no form.
template <class Tiles>
constexpr std::size_t device_bytes_of(const PackedWeight& shape) {
  const auto bytes = static_cast<std::size_t>(Tiles{shape.rows, shape.k}.bytes());
  return kDeviceHeaderBytes + round_up(bytes, kDeviceHeaderBytes);
}
constexpr std::size_t device_bytes(const PackedWeight& shape) {
  switch (device_form(shape)) {
    case DeviceForm::mxfp4:
      return device_bytes_of<Mxfp4Tiles>(shape);
    case DeviceForm::bf16:
      return device_bytes_of<Bf16Tiles>(shape);
    case DeviceForm::q4_0:
      return device_bytes_of<Q4Tiles>(shape);
    case DeviceForm::q8_0:
      return device_bytes_of<Q8Tiles>(shape);
    case DeviceForm::int8:
    case DeviceForm::fp8_e4m3:
    case DeviceForm::fp8_e5m2:
      return device_bytes_of<ByteTiles>(shape);
    case DeviceForm::tiles:
      return kDeviceHeaderBytes + round_up(shape.bytes(), kDeviceHeaderBytes);
    case DeviceForm::none:
      break;
  }
  return 0;
}

// Of a layer whose experts take turns in slots: who is where, who was used when, what is to be copied
// (cuda/expert_slots.hpp). A multiple of 128.
inline constexpr std::size_t kSlotTableHead = 24;
constexpr std::size_t slot_table_bytes(std::int64_t experts, std::int64_t slots) {
  return round_up(
      kSlotTableHead + static_cast<std::size_t>(slots) * 12 + static_cast<std::size_t>(experts) * 8,
      std::size_t{128});
}

// The largest calls that a forward pass will make.
struct DeviceLimits {
  std::int64_t rows, logit_rows;  // of a pass; of its head
  std::int64_t hidden, heads, kv_heads, head_dim, experts, experts_per_token, expert_width, vocabulary;
};

// What attention leaves between blocks that share a row's positions: for each 256 of them and up to sixteen
// heads of a kv head, their weighted values, largest scores and sums. Room for 65536 positions of one row, or
// 4096 of sixteen, within 64 MiB; of longer ones no work is shared.
constexpr std::size_t attention_scratch_bytes(const DeviceLimits& limits) {
  if (limits.kv_heads < 1) return 0;
  const std::int64_t parts = (limits.heads / limits.kv_heads + 15) / 16;
  const std::int64_t partial = 16 * (round_up(limits.head_dim, std::int64_t{16}) + 2) * 4;
  return static_cast<std::size_t>(std::min(limits.kv_heads * parts * 256 * partial, std::int64_t{64} << 20));
}

// Scratch of the ops: OpContext::tiles. It begins with counters, which are zero between ops.
inline constexpr std::size_t kScratchCounters = 16 * 1024;

// Products for one to eight rows: no kernel of theirs has more blocks than this. Each leaves the products [16
// rows][8 columns] of the slices of at most one tile that it shares with others, in f32.
inline constexpr int kMostBlocks = 384;
inline constexpr std::size_t kSliceProductBytes = kTileRows * 8 * sizeof(float);
constexpr std::size_t multiply_scratch_bytes(const DeviceLimits& limits) {
  std::int64_t k = limits.heads * limits.head_dim;
  if (k < limits.hidden) k = limits.hidden;
  if (k < limits.expert_width) k = limits.expert_width;
  // bf16 has the most slices.
  return std::size_t{kMostBlocks} * kSliceProductBytes *
         static_cast<std::size_t>(Bf16Tiles{kTileRows, k}.slices());
}

// What a product leaves that goes on with a router (cuda/bodies/router.cuh): of every 64 inputs of this, and
// of up to eight rows, the products with all experts, in f32.
constexpr std::size_t router_products_bytes(std::int64_t hidden, std::int64_t experts) {
  return static_cast<std::size_t>(Bf16Tiles{experts, hidden}.slices()) * 8 *
         static_cast<std::size_t>(round_up(experts, std::int64_t{16})) * sizeof(float);
}

constexpr std::size_t device_scratch_bytes(const DeviceLimits& limits) {
  const std::size_t room =
      std::max(multiply_scratch_bytes(limits) + router_products_bytes(limits.hidden, limits.experts),
               attention_scratch_bytes(limits));
  return kScratchCounters * sizeof(std::int32_t) + round_up(room, std::size_t{256});
}

}  // namespace nib::inline v0
