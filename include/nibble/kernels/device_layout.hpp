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
  bf16,   // tiles for tensor cores (cuda/bf16_tiles.hpp)
  tiles,  // the processor's own order, for one kernel of all formats that have tiles there
};
constexpr DeviceForm device_form(const PackedWeight& shape) {
  if (!shape.tiled()) return DeviceForm::none;
  if (shape.format == Format::mxfp4) return DeviceForm::mxfp4;
  if (shape.format == Format::bf16) return DeviceForm::bf16;
  return DeviceForm::tiles;
}

// Before the tiles of every matrix: a line that begins with a f32, the factor of all of its products.
inline constexpr std::size_t kDeviceHeaderBytes = 128;

// Bytes of a matrix, a multiple of 128; 0 for one that has no form.
constexpr std::size_t device_bytes(const PackedWeight& shape);

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
constexpr std::size_t device_scratch_bytes(const DeviceLimits& limits);

}  // namespace nib::inline v0
