// The router behind the product that ends with its rows, in one kernel: what a launch of its own would wait
// for, blocks count.
//
// The router's bf16 tiles are cut into slices of 64 inputs, which are four tiles of the product. The block
// that finishes the last of these four multiplies the slice with all experts and leaves what comes out in
// memory; the block that does so for the last slice adds up the slices, one after the other, and chooses. So
// many multiprocessors read the router, each a slice of it, and the order of additions is that of
// stripes.cuh and grouped.cuh: a logit has the same bits in this kernel, in one of its own and in a prompt's.
//
// One block adds them up, not every block of the kernel that reads the choice: of eight rows of 2880 numbers
// and 128 experts there are 184 KB, which one multiprocessor reads in 1.6 us at best, and 264 blocks would in
// nine.
#pragma once

#include "choose.cuh"
#include "dense.cuh"
#include "weights_bf16.cuh"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

using RouterTiles = Bf16Tiles;
inline constexpr int kTilesOfSlice = RouterTiles::kSliceDepth / kTileRows;

// The router of the rows that a product leaves. Counters are zero, before and after.
struct RouterCall {
  DenseCall<RouterTiles> logits;
  float* products;               // [slices][rows][logits.out_stride], of slices; null: there is no router
  std::int32_t* whole_slices;    // counted
  std::int32_t* finished_tiles;  // [slices], of the product's
  Route route;

  constexpr int slices() const { return logits.tiles.slices(); }
  constexpr int product_tiles() const {
    return static_cast<int>((logits.tiles.k + kTileRows - 1) / kTileRows);
  }
};

// Counts the share that a block has done of what several do together. Whether nothing is left to do: then
// all threads see what any block wrote for its share. For all threads of the block; `said` is shared.
NIB_DEVICE bool completes(std::int32_t* counter, int share, int whole, std::int32_t& said) {
  sync_block();  // what all threads left in memory comes before what is counted
  if (thread_index() == 0) {
    const bool is_whole = add_in_order(counter, share) + share == whole;
    if (is_whole) *counter = 0;
    said = is_whole ? 1 : 0;
  }
  sync_block();
  return said != 0;
}

// The router is read when the first tiles are finished; until then it comes nearer.
NIB_DEVICE void ask_for_router(const RouterCall& router) {
  constexpr int kLine = 128;
  const std::int64_t lines = router.logits.tiles.bytes() / kLine;
  for (std::int64_t i = std::int64_t{block_index()} * kStripeThreads + thread_index(); i < lines;
       i += std::int64_t{block_count()} * kStripeThreads)
    ask_for_line(router.logits.weight + kDeviceHeaderBytes + i * kLine);
}

// A slice of the rows times that of all experts; by a block, whose warps have experts in turn.
template <class Math>
NIB_DEVICE void multiply_router_slice(const RouterCall& call, const Dense<RouterTiles>& router, int slice) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const int rows = call.logits.rows, experts = call.route.experts;
  float* const products = call.products + slice * rows * call.logits.out_stride;
  NIB_ROLLED
  for (int tile = warp; tile < router.tiles(); tile += kStripeWarps) {
    const auto* const weights =
        reinterpret_cast<const Words4*>(router.tile(tile)) + slice * (RouterTiles::kSliceBytes / 16);
    float sums[4];
    Math::multiply_slice(sums, weights, 1, Math::Inputs::of(router, tile), slice * RouterTiles::kSliceDepth,
                         lane);
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int expert = tile * kTileRows + row_of_element(lane, i), column = column_of_element(lane, i);
      if (expert < experts && column < rows) products[column * call.logits.out_stride + expert] = sums[i];
    }
  }
}

// The logits, of the products of all slices; by a block, a thread for each.
NIB_DEVICE void add_router_slices(const RouterCall& call, const Dense<RouterTiles>& router) {
  constexpr int kAtOnce = 24;  // loads that a thread has under way
  const int slices = call.slices(), experts = call.route.experts;
  const std::int64_t stride = call.logits.out_stride, distance = call.logits.rows * stride;
  const float factor = router.factor();
  NIB_ROLLED
  for (int i = thread_index(); i < call.logits.rows * experts; i += kStripeThreads) {
    const int row = i / experts, expert = i % experts;
    const float* const products = call.products + row * stride + expert;
    const float bias = router.bias(expert);
    float sum = 0;
    NIB_ROLLED
    for (int first = 0; first < slices; first += kAtOnce) {
      float read[kAtOnce];
      NIB_UNROLL
      for (int j = 0; j < kAtOnce; ++j) read[j] = first + j < slices ? products[(first + j) * distance] : 0;
      NIB_UNROLL
      for (int j = 0; j < kAtOnce; ++j) sum += read[j];
    }
    call.logits.out[row * stride + expert] = router.number(sum, factor, router.factors.of(row), bias);
  }
}

// What the block has to do for the router when it has done its part of the product. By all its threads.
template <class Math>
NIB_DEVICE void route_behind(const RouterCall& call, const FinishedTiles& finished,
                             float (&row_factors)[kColumns], std::int32_t& said) {
  const Dense<RouterTiles> router{call.logits, RowFactors::of(call.logits.norm, row_factors)};
  const int slices = call.slices(), all_tiles = call.product_tiles();
  sync_block();  // tiles are finished by one warp
  const int first = finished.first, end = first + finished.count;
  int done = 0;
  NIB_ROLLED
  for (int tile = first; tile < end;) {
    const int slice = tile / kTilesOfSlice, begin = slice * kTilesOfSlice, next = begin + kTilesOfSlice;
    const int share = (next < end ? next : end) - tile, whole = (next < all_tiles ? next : all_tiles) - begin;
    if (completes(call.finished_tiles + slice, share, whole, said)) {
      multiply_router_slice<Math>(call, router, slice);
      ++done;
    }
    tile += share;
  }
  if (done == 0 || !completes(call.whole_slices, done, slices, said)) return;
  find_row_factors(call.logits.norm, call.logits.rows, row_factors);
  sync_block();
  add_router_slices(call, router);
  sync_block();
  choose_and_list(call.route);
}

}  // namespace nib::inline v0::cuda
