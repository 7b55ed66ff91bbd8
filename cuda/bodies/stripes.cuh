// How a matrix product for a few columns is shared out: items (16 rows of some matrix) are cut into slices;
// the row of all slices, item after item, is dealt to the blocks in stripes of equal length, and a stripe to
// the warps of a block in turn. So every multiprocessor reads one stream of the same length, whatever the
// shape.
//
// The order of additions is that of the slices, one after the other, however they were dealt: a sum never
// depends on the grid, nor on how many columns are computed with it. An item that lies in one stripe is
// summed up in registers; of one that is cut, blocks leave the products of slices in memory, and the block
// that comes last sums up all of them.
#pragma once

#include "../cut_items.hpp"
#include "slice.cuh"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kStripeWarps = 8;
inline constexpr int kStripeThreads = kStripeWarps * 32;

// What a lane holds of a product of 16 rows and eight columns (row_of_element).
struct alignas(16) LaneSums {
  float at[4];
  NIB_DEVICE void add(const LaneSums& other) {
    for (int i = 0; i < 4; ++i) at[i] += other.at[i];
  }
};

// The same of a warp.
struct WarpSums {
  LaneSums of_lane[32];
};

template <class Math>
struct StripeShared {
  Words4 ring[kStripeWarps][Math::kStages][Math::Weights::Tiles::kSliceBytes / 16];
  WarpSums products[2][kStripeWarps];
  float row_factors[kColumns];  // for problems, which find them when they begin
};

// Units of work (slices of items, in order) are counted in 32 bits: of 2 KiB each there are fewer.
// Block `block` of `blocks` has units [stripe_begin(block), stripe_begin(block + 1)); and back.
constexpr int stripe_begin(int units, int block, int blocks) {
  return static_cast<int>(std::int64_t{units} * block / blocks);
}
constexpr int stripe_of(int units, int unit, int blocks) {
  return static_cast<int>(((unit + std::int64_t{1}) * blocks - 1) / units);
}

// What a block has to do.
struct Stripe {
  int units, slices;  // in all; of an item
  int begin, end;

  NIB_DEVICE static Stripe of(int units, int slices) {
    return {units, slices, stripe_begin(units, block_index(), block_count()),
            stripe_begin(units, block_index() + 1, block_count())};
  }
};

// The sums of items, as the products of their slices come in, in the order of units; a warp, each lane with
// its own elements.
template <class Problem>
class Adder {
 public:
  NIB_DEVICE Adder(const Problem& problem, const CutItems& cut, const Stripe& stripe)
      : problem_(problem), cut_(cut), stripe_(stripe), slice_(stripe.begin % stripe.slices) {
    begin_item(stripe.begin / stripe.slices);
  }

  // The next `count` products; all that there are left in the stripe, or others will come.
  NIB_DEVICE void add(const WarpSums* products, int count, bool are_last) {
    const LaneSums* product = &products->of_lane[lane()];
    NIB_ROLLED
    while (count > 0) {
      const int left = stripe_.slices - slice_, run = left < count ? left : count;
      if (place_) {
        NIB_ROLLED
        for (int i = 0; i < run; ++i) place_[(slice_ + i) * 32] = product[i * 32];
      } else {
        NIB_UNROLL_4
        for (int i = 0; i < run; ++i) sums_.add(product[i * 32]);
      }
      product += run * 32;
      count -= run;
      slice_ += run;
      if (run < left && !are_last) continue;
      end_item();  // here alone: what problems do in the end is much code
      begin_item(item_ + 1);
      slice_ = 0;
    }
  }

 private:
  NIB_DEVICE static int lane() { return thread_index() % 32; }

  NIB_DEVICE void begin_item(int item) {
    item_ = item;
    sums_ = {};
    const int first = item * stripe_.slices;
    const bool is_cut = first < stripe_.begin || first + stripe_.slices > stripe_.end;
    place_ = is_cut && first < stripe_.end ? &place_of(first)->of_lane[lane()] : nullptr;
  }
  NIB_DEVICE WarpSums* place_of(int first) const {
    return cut_.products + std::int64_t{stripe_of(stripe_.units, first, block_count())} * stripe_.slices;
  }

  NIB_DEVICE void end_item() {
    if (!place_ || is_last_to_come()) problem_.finish(item_, lane(), sums_);
  }

  // Of an item that is cut: counts this block's share of it. The block whose share makes it whole sums it up.
  NIB_DEVICE bool is_last_to_come() {
    const int first = item_ * stripe_.slices, end = first + stripe_.slices;
    const int share =
        (end < stripe_.end ? end : stripe_.end) - (first > stripe_.begin ? first : stripe_.begin);
    sync_warp();  // what the lanes left in memory comes before what is counted
    int before = 0;
    if (lane() == 0) {
      std::int32_t* const counter = cut_.counters + stripe_of(stripe_.units, first, block_count());
      before = add_in_order(counter, share);
      if (before + share == stripe_.slices) *counter = 0;
    }
    before = shuffle(before, 0);
    if (before + share != stripe_.slices) return false;
    sync_warp();  // and what is counted before what the lanes read
    add_all();
    return true;
  }

  // All products of the item, one after the other. Nothing goes on beside this, and a load takes some 300
  // clocks, an addition four: so many loads are under way.
  NIB_DEVICE void add_all() {
    constexpr int kAtOnce = 16;
    const LaneSums* from = place_;
    NIB_ROLLED
    for (int left = stripe_.slices; left > 0; left -= kAtOnce, from += kAtOnce * 32) {
      LaneSums read[kAtOnce];
      NIB_UNROLL
      for (int j = 0; j < kAtOnce; ++j) read[j] = j < left ? from[j * 32] : LaneSums{};
      NIB_UNROLL
      for (int j = 0; j < kAtOnce; ++j) sums_.add(read[j]);
    }
  }

  const Problem& problem_;
  const CutItems& cut_;
  const Stripe& stripe_;
  int item_ = 0, slice_;
  LaneSums sums_{};
  LaneSums* place_ = nullptr;  // of this lane and slice 0, if the item is cut
};

// The slices that a warp multiplies, or asks for: every eighth of a stripe. Going on costs no division, and
// within an item no multiplication. Item is what it keeps of an item, made by of(problem, item).
template <class Problem, class Item>
class Slices {
 public:
  NIB_DEVICE Slices(const Problem& problem, const Stripe& stripe, int warp)
      : problem_(problem),
        slices_(stripe.slices),
        left_(stripe.end - stripe.begin - warp),
        item_((stripe.begin + warp) / slices_),
        slice_((stripe.begin + warp) % slices_) {
    if (left_ > 0) kept_ = Item::of(problem_, item_);
  }
  NIB_DEVICE bool any() const { return left_ > 0; }
  NIB_DEVICE int slice() const { return slice_; }
  NIB_DEVICE bool is_last_of_item() const { return slice_ == slices_ - 1; }
  NIB_DEVICE const Item& item() const { return kept_; }
  NIB_DEVICE void advance() {
    left_ -= kStripeWarps;
    slice_ += kStripeWarps;
    if (slice_ < slices_ || left_ <= 0) return;
    for (; slice_ >= slices_; slice_ -= slices_) ++item_;
    kept_ = Item::of(problem_, item_);
  }

 private:
  const Problem& problem_;
  int slices_, left_, item_, slice_;
  Item kept_{};
};

// Where this lane copies from.
struct ItemBytes {
  const Words4* at;
  template <class Problem>
  NIB_DEVICE static ItemBytes of(const Problem& problem, int item) {
    return {reinterpret_cast<const Words4*>(problem.tile(item)) + thread_index() % 32};
  }
};

// Begins to copy this lane's part of a slice. `to` and `from`: 16 bytes further on in each lane.
template <class Weights>
NIB_DEVICE void begin_copy_of_slice(SharedPlace to, const Words4* from, int blocks, int lane) {
  using Tiles = typename Weights::Tiles;
  constexpr int kLine = Tiles::kLineBytes / 16, kLoads = Tiles::kBlockBytes / 512;  // of a warp for a block
  if (lane < kLine) begin_copy(to, 0, from);
  if (Tiles::kBlocks == 1 || blocks == Tiles::kBlocks) {
    NIB_UNROLL
    for (int i = 0; i < Tiles::kBlocks * kLoads; ++i) begin_copy(to, kLine + 32 * i, from + kLine + 32 * i);
  } else {
    NIB_ROLLED
    for (int i = 0; i < blocks * kLoads; ++i) begin_copy(to, kLine + 32 * i, from + kLine + 32 * i);
  }
}

// Computes all items. Problem is a struct with
//   int items() const
//   Math::Weights::Tiles shape() const          of the matrix of an item
//   const std::byte* tile(item) const           its bytes
//   const std::uint16_t* column(item, i) const  the inputs of column i of eight, at a multiple of 16 bytes,
//   with
//                                               zeros from k on to a multiple of 64; any of them, where there
//                                               are fewer than eight
//   void begin(row_factors) const               called by all threads, when earlier kernels have ended
//   void finish(item, lane, LaneSums) const     called by a whole warp
template <class Math, class Problem>
NIB_DEVICE void multiply_stripes(const Problem& problem, const CutItems& cut, StripeShared<Math>& shared) {
  using Weights = typename Math::Weights;
  using Tiles = typename Weights::Tiles;
  constexpr int kStages = Math::kStages, kBlocks = Tiles::kBlocks, kSliceWords = Tiles::kSliceBytes / 16;
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const int slices = problem.shape().slices(), last_blocks = problem.shape().blocks(slices - 1);
  const Stripe stripe = Stripe::of(problem.items() * slices, slices);

  Slices<Problem, ItemBytes> asked(problem, stripe, warp);
  Slices<Problem, typename Math::Inputs> now(problem, stripe, warp);
  const SharedPlace ring = place_of(shared.ring[warp][0] + lane);
  const auto ask = [&](int stage) {
    if (asked.any())
      begin_copy_of_slice<Weights>(further(ring, stage * kSliceWords),
                                   asked.item().at + asked.slice() * kSliceWords,
                                   asked.is_last_of_item() ? last_blocks : kBlocks, lane);
    close_copy_group();
    asked.advance();
  };
  NIB_ROLLED
  for (int stage = 0; stage < kStages - 1; ++stage) ask(stage);
  wait_for_kernel_before();  // weights are on their way meanwhile
  problem.begin(shared.row_factors);

  Adder<Problem> adder(problem, cut, stripe);
  int stage = 0, parity = 0;
  NIB_ROLLED
  for (int left = stripe.end - stripe.begin; left > 0; left -= kStripeWarps) {
    wait_for_copies<kStages - 2>();
    sync_warp();  // all lanes' copies of this stage are there, and all lanes are done with the one before
    ask(stage == 0 ? kStages - 1 : stage - 1);
    if (now.any()) {
      LaneSums sums;
      Math::multiply_slice(sums.at, shared.ring[warp][stage], now.is_last_of_item() ? last_blocks : kBlocks,
                           now.item(), now.slice() * Tiles::kSliceDepth, lane);
      shared.products[parity][warp].of_lane[lane] = sums;
    }
    now.advance();
    stage = stage == kStages - 1 ? 0 : stage + 1;
    sync_block();  // and nobody still reads the products of two rounds ago
    if (warp == 0) {
      const bool are_last = left <= kStripeWarps;
      adder.add(shared.products[parity], are_last ? left : kStripeWarps, are_last);
    }
    parity ^= 1;
  }
  wait_for_copies<0>();
}

}  // namespace nib::inline v0::cuda
