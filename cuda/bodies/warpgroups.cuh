// A matrix product for many columns by warpgroups (sm_90a): a block computes sixteen tiles (256 rows) of one
// matrix for 64 or 128 columns, a warp two of them, and four warps together multiply four tiles with columns
// in shared memory. Weights are the first factor, unpacked in registers while the products before are under
// way. The sum of an element is one chain over all inputs, so its bits are not those of stripes.cuh.
//
// For 64 inputs of N columns tensor cores take 8 N clocks. In these a block's columns come from the cache of
// all multiprocessors, 128 N bytes, and its weights, 8.5 KB of MXFP4; shared memory, of 128 bytes a clock, is
// read at 64 by products, and written at 16.
#pragma once

#include "../arch_sm90a.cuh"
#include "grouped.cuh"

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kTall = 2;        // tiles of a warp
inline constexpr int kPrefetched = 4;  // blocks
inline constexpr int kPanels = 3;      // one that is written while products with two may be under way

template <int kWide>
struct WarpgroupShared {
  static constexpr int kPanelWords = kWide * kAtomBytes / 16;
  union {
    Words4 panels[kPanels][kPanelWords];
    LaneSums sums[kStripeWarps][kTall][kWide][32];  // in the end: a lane finishes its own, one by one
  };
  float factors[kWide * kColumns];  // of columns, if the problem has such
};

// A warp's weights of 64 inputs of its tiles.
template <class Weights>
struct WarpWeights {
  using Tiles = typename Weights::Tiles;
  const Words4* tile[kTall];
  typename Weights::Line line[kTall];
  typename Weights::Block block[kTall];

  // Of a block: where its slice begins, and what stands for it, the block being number 0 of that.
  NIB_DEVICE static int slice(int number) { return number / Tiles::kBlocks * (Tiles::kSliceBytes / 16); }
  NIB_DEVICE static int place(int number) {
    return slice(number) + number % Tiles::kBlocks * (Tiles::kBlockBytes / 16);
  }
  NIB_DEVICE void load(int number, int lane) {
    NIB_UNROLL
    for (int tall = 0; tall < kTall; ++tall) {
      if (number % Tiles::kBlocks == 0) line[tall] = Weights::line(tile[tall] + slice(number), lane);
      block[tall] = Weights::block(tile[tall] + place(number), 0, lane);
    }
  }
  // To the cache of all multiprocessors, and the line of scales with the first block of a slice.
  NIB_DEVICE void prefetch(int number, int lane) const {
    constexpr int kLines = (Tiles::kLineBytes + Tiles::kBlockBytes) / 128;
    if (lane >= kLines) return;
    NIB_UNROLL
    for (int tall = 0; tall < kTall; ++tall) prefetch_line(tile[tall] + place(number) + lane * 8);
  }
};

// A thread's part of panels: of columns 4 warp + lane / 8, and every 32nd from there on, the eight inputs
// 8 (lane % 8) .. + 7, from memory to registers and from there, in pairs, to shared memory. Eight lanes read
// a line of 128 bytes; a warp writes to all banks at once.
template <int kWide>
struct PanelPart {
  static constexpr int kParts = kWide * kColumns / 32;
  const Words4* column[kParts];
  Words4 inputs[kParts];
  int place[4];  // of pairs, in bytes

  NIB_DEVICE static int first_column() { return thread_index() / 8; }
  NIB_DEVICE PanelPart() {
    NIB_UNROLL
    for (int pair = 0; pair < 4; ++pair)
      place[pair] = swizzled(first_column(), place_of_pair(thread_index() % 8, pair));
  }
  template <class Problem>
  NIB_DEVICE void begin(const Problem& problem, int item, int first) {
    NIB_UNROLL
    for (int i = 0; i < kParts; ++i)
      column[i] = reinterpret_cast<const Words4*>(problem.column(item, first + first_column() + 32 * i)) +
                  thread_index() % 8;
  }
  NIB_DEVICE void load(int block) {
    NIB_UNROLL
    for (int i = 0; i < kParts; ++i) inputs[i] = column[i][block * (kPanelColumnBytes / 16)];
  }
  NIB_DEVICE void store(Words4* panel) const {
    auto* const bytes = reinterpret_cast<std::byte*>(panel);
    NIB_UNROLL
    for (int i = 0; i < kParts; ++i)
      for (int pair = 0; pair < 4; ++pair)
        *reinterpret_cast<std::uint32_t*>(bytes + place[pair] + i * (32 * kPanelColumnBytes)) =
            inputs[i].at[pair];
  }
};

// Problem is one of multiply_grouped.
template <class Weights, int kWide, class Problem>
NIB_DEVICE void multiply_by_warpgroups(const Problem& problem, WarpgroupShared<kWide>& shared) {
  using Tiles = typename Weights::Tiles;
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const Tiles shape = problem.shape();
  const int tiles = problem.tiles(),
            blocks = (shape.slices() - 1) * Tiles::kBlocks + shape.blocks(shape.slices() - 1);
  // Products may still read registers when nothing else does any more, and the compiler fills them again: it
  // knows of no wait. So blocks that are factors are loaded when no product is under way.
  constexpr bool kAreFactors = requires { Weights::kAreFactors; };
  PanelPart<kWide> columns;

  NIB_ROLLED
  for (int number = block_index();; number += block_count()) {
    const Piece piece = find_piece(problem, number, kTall * kStripeWarps, kWide * kColumns);
    if (piece.matrix < 0) return;  // all threads of the block
    const int first_item = piece.matrix * tiles;
    WarpWeights<Weights> now, next;
    NIB_UNROLL
    for (int tall = 0; tall < kTall; ++tall) {
      // Beyond the last tile that one once more: a warpgroup multiplies together.
      const int tile = piece.first_tile + tall * kStripeWarps + warp;
      next.tile[tall] =
          reinterpret_cast<const Words4*>(problem.tile(first_item + (tile < tiles ? tile : tiles - 1)));
    }
    next.load(0, lane);
    columns.begin(problem, first_item, piece.first_column);
    columns.load(0);
    sync_block();  // nobody reads the sums before any more, nor the factors
    // A lane finishes 2 N columns one by one, and must not wait for memory in each.
    constexpr bool kHasFactors = requires { problem.column_factor(0, 0); };
    if constexpr (kHasFactors)
      for (int i = thread_index(); i < kWide * kColumns; i += kStripeThreads)
        shared.factors[i] = problem.column_factor(first_item, piece.first_column + i);
    columns.store(shared.panels[0]);
    show_to_products();
    if (blocks > 1) columns.load(1);

    std::uint32_t factors[kTall][2][4];
    float sums[kTall][kWide][4] = {};
    NIB_ROLLED
    for (int block = 0, stage = 0; block < blocks; ++block) {
      const int next_stage = stage == kPanels - 1 ? 0 : stage + 1;
      const std::uint64_t panel = panel_at(place_of(shared.panels[stage]));
      sync_block();  // this panel is there, and no product reads the next one
      now = next;
      if (kAreFactors && block + 1 < blocks) next.load(block + 1, lane);
      NIB_UNROLL
      for (int half = 0; half < 2; ++half) {
        NIB_UNROLL
        for (int tall = 0; tall < kTall; ++tall) {
          wait_for_products<kTall - 1>();  // those that read these factors have ended
          Weights::factors(factors[tall], now.line[tall], now.block[tall], block % Tiles::kBlocks, half);
          begin_products();
          multiply_warpgroup(sums[tall], factors[tall][0], of_product(panel, 2 * half));
          multiply_warpgroup(sums[tall], factors[tall][1], of_product(panel, 2 * half + 1));
          close_products();
        }
        if (half == 0 && block + 1 < blocks) {
          // What was loaded half a block ago or longer: the fence may wait for loads, too.
          columns.store(shared.panels[next_stage]);
          show_to_products();
          if (!kAreFactors) next.load(block + 1, lane);
          if (block + 2 < blocks) columns.load(block + 2);
          if (block + kPrefetched < blocks) next.prefetch(block + kPrefetched, lane);
        }
      }
      if constexpr (kAreFactors) wait_for_products<0>();
      stage = next_stage;
    }
    NIB_UNROLL
    for (int tall = 0; tall < kTall; ++tall) finish_products(sums[tall]);
    sync_block();  // everybody's products have ended
    NIB_UNROLL
    for (int tall = 0; tall < kTall; ++tall)
      for (int wide = 0; wide < kWide; ++wide)
        shared.sums[warp][tall][wide][lane] = {
            {sums[tall][wide][0], sums[tall][wide][1], sums[tall][wide][2], sums[tall][wide][3]}};
    NIB_ROLLED
    for (int i = 0; i < kTall * kWide; ++i) {
      const int tall = i / kWide, wide = i % kWide, tile = piece.first_tile + tall * kStripeWarps + warp;
      if (tile >= tiles) break;
      const int item = first_item + tile, first_column = piece.first_column + wide * kColumns;
      const LaneSums& of_lane = shared.sums[warp][tall][wide][lane];
      if constexpr (kHasFactors) {
        const float* const found = shared.factors + wide * kColumns;
        problem.finish(item, lane, of_lane, first_column,
                       {found[column_of_element(lane, 0)], found[column_of_element(lane, 1)]});
      } else {
        problem.finish(item, lane, of_lane, first_column);
      }
    }
  }
}

}  // namespace nib::inline v0::cuda
