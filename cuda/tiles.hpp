// Room cuda: products with matrices in the processor's own tiles: all formats that the device has no form of
// its own for.
#pragma once

#include "expert_lists.hpp"
#include "folded_norm.hpp"
#include "queue.hpp"
#include <nibble/base/status.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

// For each entry: out = (W x + bias) weight, or that added to what is there; or, with `hidden`, the
// activations of its units. The sum of an output is one chain in the canonical order within each tile of 128
// inputs, and that of its tiles, one after the other. Pointers are the device's.
struct TilesProduct {
  PackedWeight weight;    // data: device_bytes(weight)
  std::int64_t distance;  // bytes from a matrix to the next; of experts: ActiveExperts::matrix says which
  ExpertLists lists;      // first null: one matrix, and as many entries as rows
  std::int64_t rows;
  const std::uint16_t* x;  // bf16 [rows][x_stride], zeros from k on to bf16_stride(k)
  std::int64_t x_stride;
  const float* bias;  // [experts][bias_stride], or null
  std::int64_t bias_stride;
  const float* entry_weight;  // or null: 1
  float* out;                 // [entries][out_stride]
  std::int64_t out_stride;
  bool add;
  Hidden hidden;      // at: null, if the sums themselves are wanted
  FoldedNorm norm{};  // of x
};

// Errors: unsupported (a format without a kernel), and those of a launch.
Status multiply_tiles(const Queue& queue, const TilesProduct& call);

}  // namespace nib::inline v0::cuda
