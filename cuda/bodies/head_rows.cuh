// What comes after the product with q, k and v, in place of a kernel of its own (place_kernel in rows.cu,
// which does the same to the bit).
#pragma once

#include "../head_rows.hpp"
#include "../kv_pages.hpp"
#include "stripes.cuh"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

template <class Place>
NIB_DEVICE void store_kv(const KvLayout& kv, std::byte* block, float x, const Place& place) {
  if (kv.format == KvFormat::f32)
    *reinterpret_cast<float*>(block + place(4)) = x;
  else
    *reinterpret_cast<std::uint16_t*>(block + place(2)) = round_to_bf16(x);
}

// Tile `tile` for up to eight rows, its bias added, by a warp: queries rotated to `out`, keys rotated to
// their places in the pages, values to theirs. out: [rows][stride], of the matrix's rows.
NIB_DEVICE void place_heads(const HeadRows& to, int tile, int lane, const LaneSums& sums, int rows,
                            float* out, std::int64_t stride) {
  const int half = to.dim / 2, tiles = to.dim / kTileRows, of_matrix = tile / tiles;
  const int d = (tile - of_matrix * tiles) * (kTileRows / 2) + lane / 4;
  const int head = to.first + of_matrix, kv_head = head - to.heads;
  const bool is_value = kv_head >= to.kv.kv_heads;
  NIB_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = column_of_element(lane, i);
    if (row >= rows) continue;
    float a = sums.at[i], b = sums.at[2 + i];
    if (!is_value) {
      const float cos = to.cos[std::int64_t{row} * half + d], sin = to.sin[std::int64_t{row} * half + d];
      const float turned = a * cos - b * sin;
      b = b * cos + a * sin;
      a = turned;
    }
    if (kv_head < 0) {
      float* const query = out + row * stride + of_matrix * to.dim + d;
      query[0] = a;
      query[half] = b;
      continue;
    }
    const KvRow& kv = to.kv_rows[row];
    const auto slot = static_cast<int>(kv.position % kPagePositions);
    std::byte* const keys =
        kv.pages[kv.position / kPagePositions - kv.first_page] + to.layer_offset +
        static_cast<std::size_t>(is_value ? kv_head - to.kv.kv_heads : kv_head) * 2 * to.kv.block_bytes();
    NIB_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int at = d + j * half;
      if (is_value)
        store_kv(to.kv, keys + to.kv.block_bytes(), j ? b : a,
                 [=](int bytes) { return value_place(bytes, slot, at); });
      else
        store_kv(to.kv, keys, j ? b : a, [=](int bytes) { return key_place(bytes, slot, at); });
    }
  }
}

}  // namespace nib::inline v0::cuda
