// What follows a router's logits: the choice of each row, its weights, and the lists of all choices by
// expert.
#pragma once

#include "../arch.cuh"
#include "stripes.cuh"
#include <nibble/kernels/ops.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

struct Route {
  int rows, experts, chosen;  // of a row
  const float* logits;        // [rows][logit_stride]
  std::int64_t logit_stride;
  bool weights_of_all;
  Routing to;

  static Route of(const RouteArgs& args) {
    return {static_cast<int>(args.rows),
            args.experts,
            args.experts_per_token,
            args.logits,
            row_stride(args.experts),
            args.weights_of_all,
            args.routing};
  }
};

// Larger numbers for larger logits, and for the lower id among equal ones; every number is above zero. NaN
// comes after all that are numbers, so that any logits give distinct experts.
NIB_DEVICE std::uint64_t rank_of(float logit, int id) {
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0f);  // -0 is 0
  const std::uint32_t ordered = logit != logit ? 0 : bits >> 31 ? ~bits : bits | 0x8000'0000u;
  return std::uint64_t{ordered} << 32 | static_cast<std::uint32_t>(~id);
}

// The experts of one row, by a warp; lane l has those with id l modulo 32.
NIB_DEVICE void choose(const Route& call, int row, int lane) {
  constexpr int kAtOnce = 4;  // loads that a lane has under way
  const float* const logits = call.logits + row * call.logit_stride;
  std::int32_t* const ids = call.to.chosen + std::int64_t{row} * call.chosen;
  float* const weights = call.to.chosen_weight + std::int64_t{row} * call.chosen;
  std::uint64_t bound = ~std::uint64_t{0};
  float largest = 0, total = 0;
  NIB_ROLLED
  for (int j = 0; j < call.chosen; ++j) {
    std::uint64_t best = 0;  // of those below the one that was chosen before
    NIB_ROLLED
    for (int first = lane; first < call.experts; first += 32 * kAtOnce) {
      float read[kAtOnce];
      NIB_UNROLL
      for (int i = 0; i < kAtOnce; ++i) read[i] = first + 32 * i < call.experts ? logits[first + 32 * i] : 0;
      NIB_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int id = first + 32 * i;
        const std::uint64_t rank = id < call.experts ? rank_of(read[i], id) : 0;
        if (rank < bound && rank > best) best = rank;
      }
    }
    NIB_ROLLED
    for (int by = 1; by < 32; by *= 2) {
      const std::uint64_t other = shuffle_xor(best, by);
      best = other > best ? other : best;
    }
    bound = best;
    const auto id = static_cast<int>(~static_cast<std::uint32_t>(best));
    if (j == 0) largest = logits[id];
    const float weight = exponential(logits[id] - largest);
    total += weight;
    if (lane == j % 32) {
      ids[j] = id;
      weights[j] = weight;
    }
  }
  if (call.weights_of_all) {
    total = 0;
    NIB_ROLLED
    for (int id = lane; id < call.experts; id += 32) total += exponential(logits[id] - largest);
    NIB_ROLLED
    for (int by = 1; by < 32; by *= 2) total += shuffle_xor(total, by);
  }
  NIB_ROLLED
  for (int j = lane; j < call.chosen; j += 32) weights[j] /= total;
}

// The entries of one expert, by a warp: how many choices are of experts before it, then, choice after choice,
// those that are its own.
NIB_DEVICE void list(const Route& call, int expert, int lane) {
  const std::int32_t* const ids = call.to.chosen;
  const int choices = call.rows * call.chosen;
  int before = 0;
  for (int i = lane; i < choices; i += 32) before += ids[i] < expert;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) before += shuffle_xor(before, by);
  if (lane == 0) {
    call.to.first[expert] = before;
    if (expert == 0) call.to.first[call.experts] = choices;
  }
  for (int begin = 0; begin < choices; begin += 32) {
    const int i = begin + lane;
    const bool mine = i < choices && ids[i] == expert;
    int count = mine;  // of those up to this lane
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) {
      const int other = shuffle_up(count, by);
      if (lane >= by) count += other;
    }
    if (mine) {
      const int entry = before + count - 1, row = i / call.chosen;
      int place = 0;  // among the row's experts
      for (int j = 0; j < call.chosen; ++j) place += ids[row * call.chosen + j] < expert;
      call.to.row[entry] = row;
      call.to.weight[entry] = call.to.chosen_weight[i];
      call.to.entry_of_row[row * call.chosen + place] = entry;
    }
    before += shuffle(count, 31);
  }
}

// All entries of so few rows, by a block: a thread for each of them. All read the same few ids, and what no
// thread waits for is done at once.
NIB_DEVICE void list_few(const Route& call) {
  const std::int32_t* const ids = call.to.chosen;
  const int choices = call.rows * call.chosen;
  NIB_ROLLED
  for (int expert = thread_index(); expert <= call.experts; expert += kStripeThreads) {
    int before = 0;
    NIB_UNROLL_4
    for (int i = 0; i < choices; ++i) before += ids[i] < expert ? 1 : 0;
    call.to.first[expert] = before;
  }
  NIB_ROLLED
  for (int choice = thread_index(); choice < choices; choice += kStripeThreads) {
    const int id = ids[choice], row = choice / call.chosen;
    int entry = 0, place = 0;  // how many come before it, of all and of its row's
    NIB_UNROLL_4
    for (int i = 0; i < choices; ++i) entry += ids[i] < id || (ids[i] == id && i < choice) ? 1 : 0;
    NIB_UNROLL_4
    for (int i = row * call.chosen; i < (row + 1) * call.chosen; ++i) place += ids[i] < id ? 1 : 0;
    call.to.row[entry] = row;
    call.to.weight[entry] = call.to.chosen_weight[choice];
    call.to.entry_of_row[row * call.chosen + place] = entry;
  }
}

// Both, in one block: for as many rows as it has warps it takes less time than another launch.
NIB_DEVICE void choose_and_list(const Route& call) {
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (warp < call.rows) choose(call, warp, lane);
  sync_block();
  list_few(call);
}

}  // namespace nib::inline v0::cuda
