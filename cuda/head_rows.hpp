// Room cuda: heads of q, k and v as the product leaves them that computes them, where the matrix holds them
// in pairs (DeviceRows::heads): a lane has a dimension and the one that it is rotated with.
#pragma once

#include <nibble/kernels/device_layout.hpp>
#include <nibble/kernels/ops.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

struct HeadRows {
  int dim = 0;    // 0: the matrix has no heads
  int first = 0;  // which of all heads its rows begin with: those of q, of k, of v
  int heads = 0;  // of q
  KvLayout kv{};  // bf16 or f32
  std::size_t layer_offset = 0;
  const KvRow* kv_rows =
      nullptr;  // [rows]; null: heads are left as they come out, for a kernel that finishes them
  const float* cos = nullptr;  // [rows][dim / 2]
  const float* sin = nullptr;

  constexpr RowsOfTile rows(int tile) const {
    return dim == 0 ? consecutive_rows(tile) : rows_in_pairs(dim, tile);
  }
};

}  // namespace nib::inline v0::cuda
