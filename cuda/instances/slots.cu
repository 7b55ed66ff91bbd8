#include "../arch.cuh"
#include "../expert_slots.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kNoSlot = -1;
constexpr std::int64_t kIsKept = INT64_MAX;  // later than any call

// How many of [0, end) are such, for a whole warp.
template <class Is>
NIB_DEVICE int count_if(int end, const Is& is) {
  int count = 0;
  for (int i = thread_index() % 32; i < end; i += 32) count += is(i) ? 1 : 0;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) count += shuffle_xor(count, by);
  return count;
}

struct Placing {
  std::int64_t used[kMostExperts];       // of a slot, or kIsKept
  std::int32_t free_slot[kMostExperts];  // not kept, the one that was used least recently first
  std::int32_t slot_of[kMostExperts];    // of an expert, before the call
  std::int32_t is_chosen[kMostExperts];  // an expert
};

NIB_KERNEL void NIB_FITS(kThreads, 1) place_kernel(SlotTable table, const std::int32_t* first) {
  wait_for_kernel_before();
  auto& shared = shared_memory<Placing>();
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  const int slots = table.slots, experts = table.experts;
  const std::int64_t now = table.head->calls + 1;

  for (int e = thread_index(); e < experts; e += kThreads) {
    shared.is_chosen[e] = first[e + 1] > first[e] ? 1 : 0;
    shared.slot_of[e] = kNoSlot;
  }
  sync_block();
  for (int s = thread_index(); s < slots; s += kThreads) {
    const int expert = table.holds[s] - 1;
    const bool is_kept = expert >= 0 && shared.is_chosen[expert] != 0;
    if (is_kept) shared.slot_of[expert] = s;
    shared.used[s] = is_kept ? kIsKept : table.used[s];
  }
  sync_block();
  for (int s = warp; s < slots; s += kWarps) {
    const std::int64_t used = shared.used[s];
    if (used == kIsKept) continue;
    const int before = count_if(slots, [&](int other) {
      return shared.used[other] < used || (shared.used[other] == used && other < s);
    });
    if (lane == 0) shared.free_slot[before] = s;
  }
  const auto is_missing = [&](int e) { return shared.is_chosen[e] != 0 && shared.slot_of[e] == kNoSlot; };
  const int free = count_if(slots, [&](int s) { return shared.used[s] != kIsKept; });
  const int missing = count_if(experts, is_missing);
  const int later = missing > free ? missing - free : 0;  // those that wait for another round
  sync_block();

  for (int e = warp; e < experts; e += kWarps) {
    if (shared.is_chosen[e] == 0) continue;
    int round = 0, slot = shared.slot_of[e];
    bool stays = slot >= later;  // slots from 0 on are taken again by those that wait
    if (slot == kNoSlot) {
      const int before = count_if(e, is_missing), waiting = before - free;
      if (waiting < 0) {
        slot = shared.free_slot[before];
        stays = slot >= later;
      } else {
        round = 1 + waiting / slots;
        slot = waiting % slots;
        stays = waiting + slots >= later;
      }
      if (lane == 0) table.copies[before] = slot_copy(e, slot);
    }
    if (lane != 0) continue;
    table.place[e] = expert_place(round, slot);
    if (stays) {
      table.holds[slot] = e + 1;
      table.used[slot] = now;
    }
  }
  if (thread_index() == 0) *table.head = {now, table.head->copied + missing, missing, missing - later};
}

// What a block copies at once: each thread has so many loads under way.
constexpr int kLoads = 4;
constexpr std::int64_t kPieceWords = kThreads * kLoads;

NIB_DEVICE void copy_piece(const SlottedMatrix& matrix, int expert, int slot, std::int64_t piece) {
  const std::int64_t words = matrix.bytes / 16, begin = piece * kPieceWords + thread_index();
  const auto* const from = reinterpret_cast<const Words4*>(matrix.from + expert * matrix.bytes);
  auto* const to = reinterpret_cast<Words4*>(matrix.to + slot * matrix.bytes);
  Words4 read[kLoads];
  NIB_UNROLL
  for (int i = 0; i < kLoads; ++i)
    if (begin + i * kThreads < words) read[i] = read_once(from + begin + i * kThreads);
  NIB_UNROLL
  for (int i = 0; i < kLoads; ++i)
    if (begin + i * kThreads < words) to[begin + i * kThreads] = read[i];
}

constexpr std::int64_t pieces_of(const SlottedMatrix& matrix) {
  return (matrix.bytes / 16 + kPieceWords - 1) / kPieceWords;
}

NIB_KERNEL void NIB_FITS(kThreads, 2)
    fetch_kernel(SlotTable table, SlottedMatrix gate_up, SlottedMatrix down, int round) {
  wait_for_kernel_before();
  const int missing = table.head->missing, in_first = table.head->in_first;
  const int begin = round == 0 ? 0 : in_first + (round - 1) * table.slots,
            through = round == 0 ? in_first : begin + table.slots,
            end = through < missing ? through : missing;
  const std::int64_t of_gate_up = pieces_of(gate_up), each = of_gate_up + pieces_of(down);
  NIB_ROLLED
  for (std::int64_t i = begin * each + block_index(); i < end * each; i += block_count()) {
    const std::int32_t copy = table.copies[i / each];
    const std::int64_t piece = i % each;
    const int expert = expert_of_copy(copy), slot = slot_of_copy(copy);
    if (piece < of_gate_up)
      copy_piece(gate_up, expert, slot, piece);
    else
      copy_piece(down, expert, slot, piece - of_gate_up);
  }
}

}  // namespace

Status place_experts(const Queue& queue, const SlotTable& table, const std::int32_t* first) {
  return launch(place_kernel, {1, kThreads, sizeof(Placing)}, queue.stream, table, first);
}

Status fetch_experts(const Queue& queue, const SlotTable& table, const SlottedMatrix& gate_up,
                     const SlottedMatrix& down, int round) {
  return launch(fetch_kernel, {2 * queue.processors, kThreads, 0}, queue.stream, table, gate_up, down, round);
}

}  // namespace nib::inline v0::cuda
