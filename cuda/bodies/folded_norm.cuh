// Both sides of folded_norm.hpp: the one that writes x, and the one that multiplies it.
#pragma once

#include "../folded_norm.hpp"
#include "slice.cuh"

#include <cmath>
#include <cstdint>

namespace nib::inline v0::cuda {

NIB_DEVICE float sum_of_warp(float x) {
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) x += shuffle_xor(x, by);
  return x;
}

// 1 / rms of a row, by a warp: a lane's chain over every 32nd part, then a tree.
NIB_DEVICE float row_factor(const FoldedNorm& norm, std::int64_t row, int lane) {
  constexpr int kAtOnce = 8;  // loads that a lane has under way
  const float* const squares = norm.squares + row * norm.stride();
  const int parts = norm.parts();
  float sum = 0;
  NIB_ROLLED
  for (int first = lane; first < parts; first += 32 * kAtOnce) {
    float read[kAtOnce];
    NIB_UNROLL
    for (int j = 0; j < kAtOnce; ++j) read[j] = first + 32 * j < parts ? squares[first + 32 * j] : 0;
    NIB_UNROLL
    for (int j = 0; j < kAtOnce; ++j) sum += read[j];
  }
  return 1.0f / std::sqrt(sum_of_warp(sum) / static_cast<float>(norm.width) + norm.epsilon);
}

// The factors of rows, wherever they lie.
struct RowFactors {
  const float* first = nullptr;  // null: all are one
  int stride = 0;

  // Of up to eight rows: where find_row_factors will have put them. Of more, without `found`: where the
  // norm's kernel has.
  NIB_DEVICE static RowFactors of(const FoldedNorm& norm, const float* found) {
    if (!norm.squares) return {};
    return found ? RowFactors{found, 1} : RowFactors{norm.squares + norm.parts(), norm.stride()};
  }
  NIB_DEVICE float of(int row) const { return first ? first[std::int64_t{row} * stride] : 1; }
};

// For all threads of a block of eight warps, each of which has a row; all see them after its next sync.
NIB_DEVICE void find_row_factors(const FoldedNorm& norm, int rows, float (&found)[kColumns]) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (!norm.squares || warp >= rows) return;
  const float factor = row_factor(norm, warp, lane);
  if (lane == 0) found[warp] = factor;
}

// The weights of the lane's two rows of a tile, if there is a norm: for whoever has other loads to wait for.
struct FoldWeights {
  float at[2];
};
NIB_DEVICE FoldWeights fold_weights(const FoldedRows& to, int tile, int lane) {
  FoldWeights out;
  NIB_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = tile * kTileRows + row_of_element(lane, 2 * i);
    out.at[i] = to.rows && row < to.norm.width ? to.weight[row] : 0;
  }
  return out;
}

// The sum over a part, rows of which lanes have: first r and r + 8, then those whose r differs in one bit.
// x: of a tile of x as it now is, this lane's elements (row_of_element), zeros where there are none; by a
// warp.
NIB_DEVICE void leave_folded(const FoldedRows& to, int tile, int lane, const float (&x)[4],
                             const FoldWeights& weights, int columns) {
  const int stride = static_cast<int>(bf16_stride(to.norm.width));
  float squares[2] = {};
  NIB_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = tile * kTileRows + row_of_element(lane, i), column = column_of_element(lane, i);
    squares[i % 2] += x[i] * x[i];
    if (row < to.norm.width && column < columns)
      to.rows[column * stride + row] = round_to_bf16(x[i] * weights.at[i / 2]);
  }
  NIB_UNROLL
  for (int by = 4; by < 32; by *= 2)
    for (float& sum : squares) sum += shuffle_xor(sum, by);
  NIB_UNROLL
  for (int i = 0; i < 2; ++i)
    if (lane < 4 && column_of_element(lane, i) < columns)
      to.norm.squares[column_of_element(lane, i) * to.norm.stride() + tile] = squares[i];
  if (tile != to.norm.parts() - 1) return;
  for (int column = 0; column < columns; ++column)
    for (int i = to.norm.width + lane; i < stride; i += 32) to.rows[column * stride + i] = 0;
}

// The same sums where sixteen lanes that follow each other have the rows of a part.
NIB_DEVICE float sum_of_part(float square) {
  square += shuffle_xor(square, 8);
  NIB_UNROLL
  for (int by = 1; by < 8; by *= 2) square += shuffle_xor(square, by);
  return square;
}

}  // namespace nib::inline v0::cuda
