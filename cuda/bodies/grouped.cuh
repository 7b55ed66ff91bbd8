// A matrix product for many columns: a block computes eight tiles (128 rows) of one matrix for some eights of
// columns, slice by slice; a warp has a tile, and all share the inputs. The sum of each element is made of
// the same products in the same order as in stripes.cuh, so its bits are the same.
#pragma once

#include "stripes.cuh"

#include <cstdint>

namespace nib::inline v0::cuda {

template <class Math>
struct GroupedShared {
  using Tiles = typename Math::Weights::Tiles;
  // Of a column of inputs: four lanes read 64 bytes of it, and eight columns at once meet no bank twice.
  static constexpr int kInputStride = Tiles::kSliceDepth * 2 / 16 + 4;
  Words4 weights[2][kStripeWarps][Tiles::kSliceBytes / 16];
  Words4 inputs[2][Math::kWide * kColumns][kInputStride];
};

// A piece of work: eight tiles from `first_tile` on for columns from `first_column` on, of the `matrix`-th of
// those that have columns.
struct Piece {
  int matrix = -1, first_tile = 0, first_column = 0;
};

// Number `number` of all pieces of so many tiles and columns, or matrix -1: those of a matrix follow each
// other, and of them those that read the same weights. Problem is struct with
//   int tiles() const             of a matrix
//   int matrices() const
//   int columns(matrix) const
template <class Problem>
NIB_DEVICE Piece find_piece(const Problem& problem, int number, int tiles_at_once, int columns_at_once) {
  const int row_blocks = (problem.tiles() + tiles_at_once - 1) / tiles_at_once;
  for (int matrix = 0; matrix < problem.matrices(); ++matrix) {
    const int column_blocks = (problem.columns(matrix) + columns_at_once - 1) / columns_at_once;
    if (number < row_blocks * column_blocks)
      return {matrix, number / column_blocks * tiles_at_once, number % column_blocks * columns_at_once};
    number -= row_blocks * column_blocks;
  }
  return {};
}

// Problem is one of stripes.cuh and of find_piece, with any number of columns, whose finish takes the first
// column too; items are the tiles of the first matrix, then of the second, ... This block takes every
// `step`-th piece of work from `first_piece` on.
template <class Math, class Problem>
NIB_DEVICE void multiply_grouped(const Problem& problem, GroupedShared<Math>& shared,
                                 int first_piece = block_index(), int step = block_count()) {
  using Weights = typename Math::Weights;
  using Tiles = typename Weights::Tiles;
  constexpr int kWide = Math::kWide, kBlocks = Tiles::kBlocks, kSliceWords = Tiles::kSliceBytes / 16,
                kInputStride = GroupedShared<Math>::kInputStride;
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const Tiles shape = problem.shape();
  const int tiles = problem.tiles(), slices = shape.slices(), last_blocks = shape.blocks(slices - 1);

  NIB_ROLLED
  for (int number = first_piece;; number += step) {
    const Piece piece = find_piece(problem, number, kStripeWarps, kWide * kColumns);
    if (piece.matrix < 0) return;  // all threads of the block
    const int tile = piece.first_tile + warp, item = piece.matrix * tiles + tile;
    const bool has_tile = tile < tiles;
    const Words4* const weights =
        has_tile ? reinterpret_cast<const Words4*>(problem.tile(item)) + lane : nullptr;
    const auto ask = [&](int slice) {
      const int blocks = slice == slices - 1 ? last_blocks : kBlocks, words = blocks * kBlockDepth * 2 / 16;
      if (has_tile)
        begin_copy_of_slice<Weights>(place_of(shared.weights[slice % 2][warp] + lane),
                                     weights + slice * kSliceWords, blocks, lane);
      const SharedPlace inputs = place_of(shared.inputs[slice % 2][0]);
      for (int i = thread_index(); i < kWide * kColumns * words; i += kStripeThreads) {
        const int column = i / words, word = i % words;
        const std::uint16_t* const from = problem.column(piece.matrix * tiles, piece.first_column + column) +
                                          slice * Tiles::kSliceDepth + 8 * word;
        begin_copy(inputs, column * kInputStride + word, reinterpret_cast<const Words4*>(from));
      }
    };
    float totals[kWide][4] = {};
    ask(0);
    close_copy_group();
    NIB_ROLLED
    for (int slice = 0; slice < slices; ++slice) {
      if (slice + 1 < slices) ask(slice + 1);
      close_copy_group();
      wait_for_copies<1>();
      sync_block();  // everybody's copies of this slice are there
      if (has_tile) {
        float sums[kWide][4] = {};
        Math::template multiply_staged<kWide>(sums, shared.weights[slice % 2][warp],
                                              slice == slices - 1 ? last_blocks : kBlocks,
                                              shared.inputs[slice % 2][0], kInputStride, lane);
        NIB_UNROLL
        for (int wide = 0; wide < kWide; ++wide)
          for (int i = 0; i < 4; ++i) totals[wide][i] += sums[wide][i];
      }
      sync_block();  // and nobody reads it any more
    }
    if (!has_tile) continue;
    NIB_UNROLL
    for (int wide = 0; wide < kWide; ++wide) {
      const LaneSums sums{{totals[wide][0], totals[wide][1], totals[wide][2], totals[wide][3]}};
      problem.finish(item, lane, sums, piece.first_column + wide * kColumns);
    }
  }
}

}  // namespace nib::inline v0::cuda
