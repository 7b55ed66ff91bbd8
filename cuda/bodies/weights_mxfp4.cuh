// Weights of MXFP4 in a slice, as slice.cuh takes them.
#pragma once

#include "../arch.cuh"
#include "../mxfp4_tiles.hpp"
#include "halves.cuh"

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

struct Mxfp4Weights {
  using Tiles = Mxfp4Tiles;

  // The scales of rows lane / 4 and lane / 4 + 8.
  using Line = Words4;
  NIB_DEVICE static Line line(const Words4* slice, int lane) { return slice[lane / 4]; }
  using Block = Words4;
  NIB_DEVICE static Block block(const Words4* slice, int block, int lane) {
    return slice[Tiles::kLineBytes / 16 + block * 32 + lane];
  }

  // First factors of both products of half a block. The scale is folded in, which is exact.
  NIB_DEVICE static void factors(std::uint32_t (&out)[2][4], const Line& scales, const Block& words,
                                 int block, int half) {
    const int group = 2 * block + half;
    const std::uint32_t upper_scale = scale_pair(byte_of(group < 4 ? scales.at[0] : scales.at[1], group % 4)),
                        lower_scale = scale_pair(byte_of(group < 4 ? scales.at[2] : scales.at[3], group % 4));
    const CodePairs upper = untwiddle(words.at[2 * half]), lower = untwiddle(words.at[2 * half + 1]);
    NIB_UNROLL
    for (int j = 0; j < 4; ++j) {
      out[j / 2][j % 2 * 2] = multiply_bf16x2(upper.at[j], upper_scale);
      out[j / 2][j % 2 * 2 + 1] = multiply_bf16x2(lower.at[j], lower_scale);
    }
  }

  // The same in f32: eight inputs of rows lane / 4 and lane / 4 + 8.
  NIB_DEVICE static void floats(float (&upper)[8], float (&lower)[8], const Words4* slice, int block,
                                int half, int lane) {
    const auto* const scales = reinterpret_cast<const std::uint8_t*>(slice + lane / 4);
    const auto* const words = slice[Tiles::kLineBytes / 16 + block * 32 + lane].at + 2 * half;
    unpack(upper, words[0], scales[2 * block + half]);
    unpack(lower, words[1], scales[8 + 2 * block + half]);
  }

 private:
  NIB_DEVICE static void unpack(float (&weights)[8], std::uint32_t word, std::uint32_t scale_byte) {
    const float scale = std::bit_cast<float>(scale_byte << 23);
    const CodePairs pairs = untwiddle(word);
    NIB_UNROLL
    for (int j = 0; j < 4; ++j) {
      weights[2 * j] = low_half(pairs.at[j]) * scale;
      weights[2 * j + 1] = high_half(pairs.at[j]) * scale;
    }
  }
};

}  // namespace nib::inline v0::cuda
