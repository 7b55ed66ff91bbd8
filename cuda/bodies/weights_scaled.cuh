// Weights that are codes times scales (scaled_tiles.hpp), as slice.cuh takes them: codes are multiplied by
// inputs, and the sums of those that share a scale by it.
#pragma once

#include "../arch.cuh"
#include "../scaled_tiles.hpp"
#include "halves.cuh"

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

// A f16 for each 32 inputs: a word of the line holds those of a block.
struct ScalesOfHalves {
  static constexpr int kRun = 32;
  NIB_DEVICE static float of(std::uint32_t word, int half) { return f16_of(word, half); }
};
// A f32 for each slice.
struct ScalesOfSlices {
  static constexpr int kRun = 128;
  NIB_DEVICE static float of(std::uint32_t word, int) { return std::bit_cast<float>(word); }
};

template <class TilesOf, class Codec, class Scales>
struct ScaledWeights {
  using Tiles = TilesOf;
  static constexpr int kRun = Scales::kRun;  // inputs that share a scale
  static_assert(Codec::kCodes == 32 / kCodeBits<Tiles> && (kRun == 32 || kRun == Tiles::kSliceDepth));

  // The scales of rows lane / 4 and lane / 4 + 8.
  static constexpr int kRowWords = Tiles::kLineBytes / kTileRows / 4;
  struct alignas(kRowWords > 1 ? 16 : 8) Line {
    std::uint32_t upper[kRowWords], lower[kRowWords];
  };
  NIB_DEVICE static Line line(const Words4* slice, int lane) {
    return reinterpret_cast<const Line*>(slice)[lane / 4];
  }
  struct RowScales {
    float upper, lower;
  };
  NIB_DEVICE static RowScales scales(const Line& line, int block, int half) {
    std::uint32_t upper = line.upper[0], lower = line.lower[0];
    NIB_UNROLL
    for (int i = 1; i < kRowWords; ++i) {  // chosen, as registers have no index
      upper = block == i ? line.upper[i] : upper;
      lower = block == i ? line.lower[i] : lower;
    }
    return {Scales::of(upper, half), Scales::of(lower, half)};
  }

  static constexpr int kLoads = Tiles::kBlockBytes / 512;
  struct Block {
    Words4 loads[kLoads];
  };
  NIB_DEVICE static Block block(const Words4* slice, int block, int lane) {
    Block out;
    NIB_UNROLL
    for (int i = 0; i < kLoads; ++i) out.loads[i] = load(slice, block, i, lane);
    return out;
  }

  // Of codes, without their scales.
  NIB_DEVICE static void factors(std::uint32_t (&out)[2][4], const Line&, const Block& words, int, int half) {
    const Words4& load = words.loads[kLoads == 1 ? 0 : half];
    NIB_UNROLL
    for (int j = 0; j < 4; ++j)
      for (int below = 0; below < 2; ++below) {
        const Pairs pairs = open(load, half, below, j);
        out[j / 2][j % 2 * 2 + below] = Codec::kDifference ? subtract_bf16x2(pairs.first, pairs.second)
                                                           : multiply_bf16x2(pairs.first, pairs.second);
      }
  }

  // Of weights.
  NIB_DEVICE static void floats(float (&upper)[8], float (&lower)[8], const Words4* slice, int block,
                                int half, int lane) {
    const Words4& codes = load(slice, block, kLoads == 1 ? 0 : half, lane);
    const RowScales by = scales(line(slice, lane), block, half);
    NIB_UNROLL
    for (int j = 0; j < 4; ++j) {
      const Pairs above = open(codes, half, 0, j), below = open(codes, half, 1, j);
      upper[2 * j] = joined(low_half(above.first), low_half(above.second)) * by.upper;
      upper[2 * j + 1] = joined(high_half(above.first), high_half(above.second)) * by.upper;
      lower[2 * j] = joined(low_half(below.first), low_half(below.second)) * by.lower;
      lower[2 * j + 1] = joined(high_half(below.first), high_half(below.second)) * by.lower;
    }
  }

 private:
  NIB_DEVICE static const Words4& load(const Words4* slice, int block, int number, int lane) {
    return slice[Tiles::kLineBytes / 16 + (block * kLoads + number) * 32 + lane];
  }

  // The operands of inputs 2 j and 2 j + 1 of this lane's eight; `load` has those of the half.
  struct Pairs {
    std::uint32_t first, second;
  };
  NIB_DEVICE static Pairs open(const Words4& load, int half, int below, int j) {
    constexpr int kWords = 8 / Codec::kCodes;
    const int first = kLoads == 1 ? half * 2 * kWords : 0;
    const std::uint32_t word = load.at[first + below * kWords + 2 * j / Codec::kCodes];
    const Operands of = Codec::open(word, j % (Codec::kCodes / 2));
    return {masked_with(of.first.bits, of.first.mask, of.first.with),
            masked_with(of.second.bits, of.second.mask, of.second.with)};
  }
  NIB_DEVICE static float joined(float a, float b) { return Codec::kDifference ? a - b : a * b; }
};

using Q4Weights = ScaledWeights<Q4Tiles, NibblesLess8, ScalesOfHalves>;
using Q8Weights = ScaledWeights<Q8Tiles, SignedBytes, ScalesOfHalves>;
using Int8Weights = ScaledWeights<ByteTiles, SignedBytes, ScalesOfSlices>;
using E4M3Weights = ScaledWeights<ByteTiles, E4M3Bytes, ScalesOfSlices>;
using E5M2Weights = ScaledWeights<ByteTiles, E5M2Bytes, ScalesOfSlices>;

}  // namespace nib::inline v0::cuda
