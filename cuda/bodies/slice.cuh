// One slice of a matrix times one to eight columns: 16 rows by one warp, from shared memory. The order of
// additions within a slice is what is here; that between slices is one after the other (stripes.cuh).
//
// Weights is how weights lie in a slice (weights_mxfp4.cuh, weights_bf16.cuh):
//   Tiles                                         their geometry
//   Line line(slice, lane)                        what a lane needs of the line of scales,
//   Block block(slice, block, lane)               and of a block
//   factors(out, line, block, number, half)       of these, the first factors of both products of half a
//                                                 block
//   floats(upper, lower, slice, block, half, lane)  the weights of the lane's two rows as f32
// and where the factors lack a scale:
//   kRun                                          inputs that share one: half a block, or a slice
//   RowScales scales(line, number, half)          those of the lane's two rows
#pragma once

#include "../arch.cuh"
#include "halves.cuh"
#include <nibble/kernels/device_layout.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kColumns = 8;
inline constexpr int kHalfBlock = kBlockDepth / 2;

// What a lane holds of a product [16 rows][8 columns], as multiply_tile has it: with group = lane / 4 and
// in_group = lane % 4, element i is row group + 8 (i / 2), column 2 in_group + i % 2.
constexpr int row_of_element(int lane, int i) { return lane / 4 + 8 * (i / 2); }
constexpr int column_of_element(int lane, int i) { return 2 * (lane % 4) + i % 2; }

// Weights whose factors lack a scale for each so many inputs.
template <class W, int inputs>
inline constexpr bool kScaledEach = [] {
  if constexpr (requires { W::kRun; }) return W::kRun == inputs;
  return false;
}();

// Tensor cores of sm_80 and later: weights are the first factor, unpacked in registers; columns the second.
// One chain of sums through the slice, or through the inputs that share a scale; then the sum of these times
// their scales, one after the other.
template <class W>
struct TensorMath {
  using Weights = W;
  template <class Other>
  using With = TensorMath<Other>;
  static constexpr bool kHasCode = kHasTensorCode;
  // Of the fast class (warpgroups.cuh): of weights that need no scaling of sums.
  static constexpr bool kHasFastKernel = !requires { W::kRun; };
  static constexpr int kMostShared = 99 * 1024;  // what a block may take on sm_86, sm_89 and sm_120
  static constexpr int kStages = 4;              // of the ring that slices are copied into
  static constexpr int kBlocksThatFit = 2;       // on a multiprocessor
  static constexpr int kWide = 4;                // eights of columns that share the unpacking of weights

  // Column `group` of the second factor is this lane's, inputs 8 in_group .. + 7 of each half block.
  struct Inputs {
    const std::uint16_t* at;
    template <class Problem>
    NIB_DEVICE static Inputs of(const Problem& problem, int item) {
      const int lane = thread_index() % 32;
      return {problem.column(item, lane / 4) + 8 * (lane % 4)};
    }
  };

  // kWide times eight columns; load(wide, block, half) are this lane's inputs of column `group` of them.
  template <int kBlocks, int kWide, class Load>
  NIB_DEVICE static void multiply_blocks(float (&sums)[kWide][4], const Words4* slice,
                                         const typename W::Line& line, int first_block, const Load& load,
                                         int lane) {
    NIB_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      const int block = first_block + i;
      const typename W::Block words = W::block(slice, block, lane);
      NIB_UNROLL
      for (int half = 0; half < 2; ++half) {
        std::uint32_t weights[2][4];
        W::factors(weights, line, words, block, half);
        NIB_UNROLL
        for (int wide = 0; wide < kWide; ++wide) {
          const Words4 x = load(wide, block, half);
          if constexpr (kScaledEach<W, kHalfBlock>) {
            float unscaled[4] = {};
            multiply_tile(unscaled, weights[0], {x.at[0], x.at[1]});
            multiply_tile(unscaled, weights[1], {x.at[2], x.at[3]});
            add_scaled(sums[wide], unscaled, W::scales(line, block, half));
          } else {
            multiply_tile(sums[wide], weights[0], {x.at[0], x.at[1]});
            multiply_tile(sums[wide], weights[1], {x.at[2], x.at[3]});
          }
        }
      }
    }
  }

  template <class Scales>
  NIB_DEVICE static void add_scaled(float (&sums)[4], const float (&unscaled)[4], const Scales& by) {
    for (int i = 0; i < 4; ++i)
      sums[i] = fused_multiply_add(unscaled[i], i < 2 ? by.upper : by.lower, sums[i]);
  }

  template <int kWide, class Load>
  NIB_DEVICE static void multiply_wide(float (&sums)[kWide][4], const Words4* slice, int blocks,
                                       const Load& load, int lane) {
    constexpr int kBlocks = W::Tiles::kBlocks;
    const typename W::Line line = W::line(slice, lane);
    NIB_UNROLL
    for (int wide = 0; wide < kWide; ++wide)
      for (int i = 0; i < 4; ++i) sums[wide][i] = 0;
    if (kBlocks == 1 || blocks == kBlocks) {
      multiply_blocks<kBlocks, kWide>(sums, slice, line, 0, load, lane);
    } else {
      for (int block = 0; block < blocks; ++block)
        multiply_blocks<1, kWide>(sums, slice, line, block, load, lane);
    }
    if constexpr (kScaledEach<W, W::Tiles::kSliceDepth>) {
      const auto by = W::scales(line, 0, 0);
      NIB_UNROLL
      for (int wide = 0; wide < kWide; ++wide)
        for (int i = 0; i < 4; ++i) sums[wide][i] *= i < 2 ? by.upper : by.lower;
    }
  }

  // sums: this lane's elements of the product of a slice of `blocks` blocks. first_input: the slice's.
  NIB_DEVICE static void multiply_slice(float (&sums)[4], const Words4* slice, int blocks,
                                        const Inputs& inputs, int first_input, int lane) {
    const std::uint16_t* const column = inputs.at + first_input;
    float wide[1][4];
    multiply_wide<1>(
        wide, slice, blocks,
        [column](int, int block, int half) {
          return *reinterpret_cast<const Words4*>(column + block * kBlockDepth + half * kHalfBlock);
        },
        lane);
    for (int i = 0; i < 4; ++i) sums[i] = wide[0][i];
  }

  // The same of kWide times eight columns whose inputs of the slice lie in shared memory, `stride` words
  // apart.
  template <int kWide>
  NIB_DEVICE static void multiply_staged(float (&sums)[kWide][4], const Words4* slice, int blocks,
                                         const Words4* x, int stride, int lane) {
    const Words4* const own = x + lane / 4 * stride + lane % 4;
    multiply_wide<kWide>(
        sums, slice, blocks,
        [=](int wide, int block, int half) { return own[wide * kColumns * stride + block * 8 + half * 4]; },
        lane);
  }
};

// Everything older: fused multiply-adds in f32. Each lane sums up its own inputs of two rows, for all
// columns; the four lanes that share rows then add theirs, neighbours first.
template <class W>
struct SimtMath {
  using Weights = W;
  template <class Other>
  using With = SimtMath<Other>;
  static constexpr bool kHasCode = kHasSimtCode;
  static constexpr bool kHasFastKernel = false;
  static constexpr int kMostShared = 64 * 1024;  // on sm_75
  static constexpr int kStages = 2;
  static constexpr int kBlocksThatFit = 1;
  static constexpr int kWide = 2;

  struct Inputs {
    const std::uint16_t* at[kColumns];
    template <class Problem>
    NIB_DEVICE static Inputs of(const Problem& problem, int item) {
      Inputs inputs;
      NIB_UNROLL
      for (int i = 0; i < kColumns; ++i) inputs.at[i] = problem.column(item, i) + 8 * (thread_index() % 4);
      return inputs;
    }
  };

  NIB_DEVICE static void multiply_slice(float (&sums)[4], const Words4* slice, int blocks,
                                        const Inputs& inputs, int first_input, int lane) {
    float upper[kColumns] = {}, lower[kColumns] = {};
    for (int group = 0; group < 2 * blocks; ++group) {
      float upper_weights[8], lower_weights[8];
      W::floats(upper_weights, lower_weights, slice, group / 2, group % 2, lane);
      NIB_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        const std::uint16_t* const column = inputs.at[i] + first_input + group * kHalfBlock;
        const Words4 x = *reinterpret_cast<const Words4*>(column);
        NIB_UNROLL
        for (int j = 0; j < 4; ++j) {
          upper[i] = fused_multiply_add(upper_weights[2 * j], low_half(x.at[j]), upper[i]);
          upper[i] = fused_multiply_add(upper_weights[2 * j + 1], high_half(x.at[j]), upper[i]);
          lower[i] = fused_multiply_add(lower_weights[2 * j], low_half(x.at[j]), lower[i]);
          lower[i] = fused_multiply_add(lower_weights[2 * j + 1], high_half(x.at[j]), lower[i]);
        }
      }
    }
    NIB_UNROLL
    for (int i = 0; i < kColumns; ++i) {
      upper[i] += shuffle_xor(upper[i], 1);
      upper[i] += shuffle_xor(upper[i], 2);
      lower[i] += shuffle_xor(lower[i], 1);
      lower[i] += shuffle_xor(lower[i], 2);
      if (i / 2 == lane % 4) {
        sums[i % 2] = upper[i];
        sums[2 + i % 2] = lower[i];
      }
    }
  }

  template <int kWide>
  NIB_DEVICE static void multiply_staged(float (&sums)[kWide][4], const Words4* slice, int blocks,
                                         const Words4* x, int stride, int lane) {
    NIB_ROLLED
    for (int wide = 0; wide < kWide; ++wide) {
      Inputs inputs;
      NIB_UNROLL
      for (int i = 0; i < kColumns; ++i)
        inputs.at[i] = reinterpret_cast<const std::uint16_t*>(x + (wide * kColumns + i) * stride + lane % 4);
      float own[4];
      multiply_slice(own, slice, blocks, inputs, 0, lane);
      NIB_UNROLL
      for (int j = 0; j < kWide; ++j)
        for (int i = 0; i < 4; ++i) sums[j][i] = j == wide ? own[i] : sums[j][i];
    }
  }
};

}  // namespace nib::inline v0::cuda
