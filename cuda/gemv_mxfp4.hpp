// Room cuda: matrix products with MXFP4 weights for one to eight rows of inputs.
#pragma once

#include "launch.cuh"
#include "mxfp4_tiles.hpp"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

// out[token][row] = factor * sum over i of W[row][i] x[token][i]; device pointers all.
//
// The bits of a sum depend on nothing but its row and its token's inputs: not on the number of tokens, not on
// `blocks`. They do on the arithmetic: tensor cores and f32 differ, and so may generations of tensor cores.
struct GemvMxfp4 {
  Mxfp4Tiles shape;
  const std::byte* weights;  // as pack_tile leaves them, at a multiple of 16 bytes
  float factor;              // 2^lowered_by
  const std::uint16_t* x;    // bf16 [tokens][x_stride], zeros from k on to a multiple of 64
  std::int64_t x_stride;     // a multiple of 8
  int tokens;                // 1 to 8
  float* out;                // [tokens][out_stride]
  std::int64_t out_stride;
  float* scratch;          // [gemv_scratch(shape, blocks)]
  std::int32_t* counters;  // [blocks], zero
};

// Floats of scratch for items that are cut between blocks.
constexpr std::int64_t gemv_scratch(const Mxfp4Tiles& shape, int blocks) {
  return std::int64_t{blocks} * shape.slices() * 128;
}

enum class Arithmetic { tensor, simt };  // sm_80 and later; any

// Errors: argument (tokens), and those of a launch.
Status gemv_mxfp4(const GemvMxfp4& call, Arithmetic arithmetic, int blocks, Stream stream);

}  // namespace nib::inline v0::cuda
