// Weights of bf16 in a slice, as slice.cuh takes them: they lie there as products want them.
#pragma once

#include "../arch.cuh"
#include "../bf16_tiles.hpp"
#include "halves.cuh"

#include <cstdint>

namespace nib::inline v0::cuda {

struct Bf16Weights {
  using Tiles = Bf16Tiles;
  static constexpr bool kAreFactors = true;  // as they lie there

  struct Line {};
  NIB_DEVICE static Line line(const Words4*, int) { return {}; }
  struct Block {
    Words4 products[4];
  };
  NIB_DEVICE static Block block(const Words4* slice, int block, int lane) {
    Block out;
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) out.products[i] = slice[(block * 4 + i) * 32 + lane];
    return out;
  }

  NIB_DEVICE static void factors(std::uint32_t (&out)[2][4], const Line&, const Block& block, int, int half) {
    NIB_UNROLL
    for (int product = 0; product < 2; ++product)
      for (int i = 0; i < 4; ++i) out[product][i] = block.products[2 * half + product].at[i];
  }

  NIB_DEVICE static void floats(float (&upper)[8], float (&lower)[8], const Words4* slice, int block,
                                int half, int lane) {
    NIB_UNROLL
    for (int product = 0; product < 2; ++product) {
      const Words4 words = slice[(block * 4 + 2 * half + product) * 32 + lane];
      NIB_UNROLL
      for (int i = 0; i < 2; ++i) {
        upper[4 * product + 2 * i] = low_half(words.at[2 * i]);
        upper[4 * product + 2 * i + 1] = high_half(words.at[2 * i]);
        lower[4 * product + 2 * i] = low_half(words.at[2 * i + 1]);
        lower[4 * product + 2 * i + 1] = high_half(words.at[2 * i + 1]);
      }
    }
  }
};

}  // namespace nib::inline v0::cuda
