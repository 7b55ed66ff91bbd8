#include "../bodies/slot_copies.cuh"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = kCopyThreads, kWarps = kThreads / 32;
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

NIB_KERNEL void NIB_FITS(kThreads, 1)
    place_kernel(SlotTable table, SlotRounds rounds, const std::int32_t* first) {
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
  const int room = missing < free ? missing : free;
  const int again = missing - room < rounds.taken_again() ? missing - room : rounds.taken_again();
  sync_block();
  // Of those that find room, which come in order of the slots that were used least recently.
  const auto is_in_0 = [&](int i) { return rounds.of_slot(shared.free_slot[i]) == 0; };
  const int in_0 = count_if(room, is_in_0);

  for (int e = warp; e < experts; e += kWarps) {
    if (shared.is_chosen[e] == 0) continue;
    int slot = shared.slot_of[e], round = rounds.of_slot(slot);
    bool stays = slot >= again;  // slots from 0 on are taken by those that wait
    if (slot == kNoSlot) {
      const int before = count_if(e, is_missing), waiting = before - room;
      int copy = before;  // its number, in the order of rounds
      if (waiting < 0) {
        slot = shared.free_slot[before];
        round = rounds.of_slot(slot);
        stays = slot >= again;
        const int before_in_0 = count_if(before, is_in_0);
        copy = round == 0 ? before_in_0 : in_0 + before - before_in_0;
      } else {
        round = rounds.of_waiting(waiting);
        slot = rounds.slot_of_waiting(waiting);
        stays = waiting + rounds.taken_again() >= missing - room;
      }
      if (lane == 0) table.copies[copy] = slot_copy(e, slot);
    }
    if (lane != 0) continue;
    table.place[e] = expert_place(round, slot);
    if (stays) {
      table.holds[slot] = e + 1;
      table.used[slot] = now;
    }
  }
  if (thread_index() == 0)
    *table.head = {now,
                   table.head->copied + missing,
                   missing,
                   {static_cast<std::int16_t>(in_0), static_cast<std::int16_t>(room - in_0)}};
}

NIB_KERNEL void NIB_FITS(kThreads, 2) fetch_kernel(SlotCopies gate_up, SlotCopies down) {
  wait_for_kernel_before();
  copy_to_slots(gate_up, block_index(), block_count());
  copy_to_slots(down, block_index(), block_count());
}

}  // namespace

Status place_experts(const Queue& queue, const SlotTable& table, const SlotRounds& rounds,
                     const std::int32_t* first) {
  return launch(place_kernel, {1, kThreads, sizeof(Placing)}, queue.stream, table, rounds, first);
}

Status fetch_experts(const Queue& queue, const SlotCopies& gate_up, const SlotCopies& down) {
  return launch(fetch_kernel, {2 * queue.processors, kThreads, 0}, queue.stream, gate_up, down);
}

}  // namespace nib::inline v0::cuda
