#include "../arch.cuh"
#include "../experts.hpp"
#include <nibble/base/concat.hpp>

#include <bit>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
static_assert(kThreads >= kMostExperts);  // a thread for each, where lists are made

struct RouteShared {
  std::int32_t is_last;
  std::int32_t entries[kMostExperts];
};

NIB_DEVICE float low_half(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
NIB_DEVICE float high_half(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff'0000u); }

// One product by a warp: lane l takes inputs 8 l .. + 7 of each 256, then neighbours are added, then pairs,
// and so on.
NIB_DEVICE float dot(const std::uint16_t* w, const std::uint16_t* x, int k, int lane) {
  float sum = 0;
  for (int i = 8 * lane; i < k; i += 8 * 32) {
    const Words4 a = *reinterpret_cast<const Words4*>(w + i), b = *reinterpret_cast<const Words4*>(x + i);
    NIB_UNROLL
    for (int j = 0; j < 4; ++j) {
      sum = fused_multiply_add(low_half(a.at[j]), low_half(b.at[j]), sum);
      sum = fused_multiply_add(high_half(a.at[j]), high_half(b.at[j]), sum);
    }
  }
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) sum += shuffle_xor(sum, by);
  return sum;
}

NIB_DEVICE void compute_logits(const Route& call, int warp, int lane) {
  for (int expert = block_index() * kWarps + warp; expert < call.experts; expert += block_count() * kWarps)
    for (int token = 0; token < call.tokens; ++token) {
      const float sum =
          dot(call.weight + expert * call.weight_stride, call.x + token * call.x_stride, call.k, lane);
      if (lane == 0)
        call.logits[std::int64_t{token} * call.experts + expert] = call.bias ? sum + call.bias[expert] : sum;
    }
}

// Larger numbers for larger logits, and for the lower id among equal ones; every number is above zero. NaN
// has a place in the order, so that any logits give distinct experts.
NIB_DEVICE std::uint64_t rank_of(float logit, int id) {
  const auto bits = std::bit_cast<std::uint32_t>(logit);  // never -0: sums begin with 0
  const std::uint32_t ordered = bits >> 31 ? ~bits : bits | 0x8000'0000u;
  return std::uint64_t{ordered} << 32 | static_cast<std::uint32_t>(~id);
}

// The experts of one token, by a warp; lane l has those with id l modulo 32.
NIB_DEVICE void choose(const Route& call, int token, int lane) {
  const float* const logits = call.logits + std::int64_t{token} * call.experts;
  std::int32_t* const ids = call.ids + std::int64_t{token} * call.chosen;
  float* const weights = call.id_weights + std::int64_t{token} * call.chosen;
  std::uint64_t bound = ~std::uint64_t{0};
  float largest = 0, total = 0;
  for (int j = 0; j < call.chosen; ++j) {
    std::uint64_t best = 0;  // of those below the one that was chosen before
    for (int id = lane; id < call.experts; id += 32) {
      const std::uint64_t rank = rank_of(logits[id], id);
      if (rank < bound && rank > best) best = rank;
    }
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) {
      const std::uint64_t other = shuffle_xor(best, by);
      best = other > best ? other : best;
    }
    bound = best;
    const auto id = static_cast<int>(~static_cast<std::uint32_t>(best));
    if (j == 0) largest = logits[id];
    const float weight = exponential(logits[id] - largest);
    total += weight;
    if (lane == 0) {
      ids[j] = id;
      weights[j] = weight;
    }
  }
  if (lane == 0)
    for (int j = 0; j < call.chosen; ++j) weights[j] /= total;
}

// Thread e goes through all choices for expert e: first to count them, then to list them.
NIB_DEVICE void make_lists(const Route& call, RouteShared& shared) {
  const int expert = thread_index(), choices = call.tokens * call.chosen;
  if (expert < call.experts) {
    int count = 0;
    for (int i = 0; i < choices; ++i) count += call.ids[i] == expert;
    shared.entries[expert] = count;
  }
  sync_block();
  if (thread_index() == 0) {
    int at = 0, active = 0;
    for (int e = 0; e < call.experts; ++e) {
      call.lists.first[e] = at;
      if (shared.entries[e]) call.lists.active[active++] = e;
      at += shared.entries[e];
      shared.entries[e] = call.lists.first[e];
    }
    call.lists.first[call.experts] = at;
    *call.lists.active_count = active;
  }
  sync_block();
  if (expert >= call.experts) return;
  int at = shared.entries[expert];
  for (int i = 0; i < choices; ++i) {
    if (call.ids[i] != expert) continue;
    const int token = i / call.chosen;
    int place = 0;  // among the token's experts
    for (int j = 0; j < call.chosen; ++j) place += call.ids[token * call.chosen + j] < expert;
    call.lists.token[at] = token;
    call.lists.weight[at] = call.id_weights[i];
    call.lists.entry_of_token[token * call.chosen + place] = at;
    ++at;
  }
}

NIB_KERNEL void NIB_FITS(kThreads, 1) route_kernel(Route call) {
  auto& shared = shared_memory<RouteShared>();
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  compute_logits(call, warp, lane);
  sync_block();
  if (thread_index() == 0) {
    shared.is_last = add_in_order(call.counter, 1) == block_count() - 1;
    if (shared.is_last) *call.counter = 0;
  }
  sync_block();
  if (!shared.is_last) return;
  for (int token = warp; token < call.tokens; token += kWarps) choose(call, token, lane);
  sync_block();
  make_lists(call, shared);
}

}  // namespace

Status route(const Route& call, int blocks, Stream stream) {
  if (call.experts < 1 || call.experts > kMostExperts)
    return Status(Code::argument, concat("experts: expected 1 to ", kMostExperts, ", found ", call.experts));
  if (call.chosen < 1 || call.chosen > kMostChosen || call.chosen > call.experts)
    return Status(Code::argument,
                  concat("experts of a token: expected 1 to ",
                         call.experts < kMostChosen ? call.experts : kMostChosen, ", found ", call.chosen));
  if (call.tokens < 1)
    return Status(Code::argument, concat("tokens: expected 1 or more, found ", call.tokens));
  return launch(route_kernel, {blocks, kThreads, sizeof(RouteShared)}, stream, call);
}

}  // namespace nib::inline v0::cuda
