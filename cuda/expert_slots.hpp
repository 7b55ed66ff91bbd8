// Room cuda: experts that take turns in slots of the device's memory. All of a layer's experts lie in
// page-locked memory of the host, which kernels read at the rate of the bus. Those that rows chose and that
// have no slot are copied to one, in place of those that were used least recently; the device decides that
// by itself, after routing, so that the list of launches is the same for every token.
//
// Rows may choose more experts than there are slots. Then the op has rounds (SlotRounds): at first slots hold
// those of them that were there before, and as many others as have room; in the rounds that follow, the rest.
// Which experts share a round changes no bit of what they compute.
#pragma once

#include "expert_lists.hpp"
#include "queue.hpp"
#include <nibble/base/status.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

// The table of one layer, in the device's memory, as ExpertSlots::table holds it.
struct SlotTable {
  struct Head {
    std::int64_t calls;        // of the op
    std::int64_t copied;       // experts in all: see ExpertSlots
    std::int32_t missing;      // experts of the last call that had no slot
    std::int16_t in_round[2];  // of these, those that found room, and in which of SlotRounds::first rounds
  };
  Head* head = nullptr;
  std::int64_t* used = nullptr;    // [slots]: the call that used it last
  std::int32_t* holds = nullptr;   // [slots]: an expert's number plus one; 0: nothing
  std::int32_t* place = nullptr;   // [experts], of those that the last call chose: expert_place
  std::int32_t* copies = nullptr;  // [experts], `missing` of them: slot_copy, in the order of rounds
  int experts = 0, slots = 0;

  SlotTable() = default;
  SlotTable(std::byte* at, int experts_, int slots_)
      : head(reinterpret_cast<Head*>(at)),
        used(reinterpret_cast<std::int64_t*>(at + sizeof(Head))),
        holds(reinterpret_cast<std::int32_t*>(used + slots_)),
        place(holds + slots_),
        copies(place + experts_),
        experts(experts_),
        slots(slots_) {}
};
static_assert(sizeof(SlotTable::Head) == kSlotTableHead);

// Which expert goes to which slot, in one number.
constexpr std::int32_t slot_copy(int expert, int slot) { return slot << kExpertBits | expert; }
constexpr int expert_of_copy(std::int32_t copy) { return copy & (kMostExperts - 1); }
constexpr int slot_of_copy(std::int32_t copy) { return copy >> kExpertBits; }

// Which slots share a round. Experts that are there, or find room, are computed in the first rounds, slot by
// slot; those that wait take these slots again, from slot 0 on, `each` of them in a round.
struct SlotRounds {
  int each;
  int first;  // rounds: one of all slots; or two, of halves, so that one half is filled while the other is
              // multiplied with. A last odd slot belongs to the second, and nobody takes it again.

  static constexpr SlotRounds whole(int slots) { return {slots, 1}; }
  static constexpr SlotRounds halves(int slots) { return {slots / 2, 2}; }

  constexpr int taken_again() const { return each * first; }
  constexpr int of_slot(int slot) const { return slot < each ? 0 : first - 1; }
  // Of those that wait, the first is 0.
  constexpr int of_waiting(int i) const { return first + i / each; }
  constexpr int slot_of_waiting(int i) const { return i % taken_again(); }
  // As many as may be needed, of an op that has no more experts than these.
  constexpr int count(int experts, int slots) const {
    return first + (experts > slots ? (experts - slots + each - 1) / each : 0);
  }
};

// Those of SlotTable::copies that a round needs.
struct CopyRange {
  int begin, end;
};
constexpr CopyRange copies_of(const SlotTable::Head& head, const SlotRounds& rounds, int round) {
  const int in_0 = head.in_round[0], room = in_0 + head.in_round[1];
  if (round == 0) return {0, in_0};
  if (round < rounds.first) return {in_0, room};
  const int begin = room + (round - rounds.first) * rounds.each, end = begin + rounds.each;
  return {begin, end < head.missing ? end : head.missing};
}

// Gives every expert that has entries its place. `first` as in ExpertLists.
Status place_experts(const Queue& queue, const SlotTable& table, const SlotRounds& rounds,
                     const std::int32_t* first);

// A matrix of each expert in the host's memory, and the slots for it; both `bytes` apart, a multiple of 128.
struct SlottedMatrix {
  const std::byte* from;
  std::byte* to;
  std::int64_t bytes;  // 0: nothing is copied
};
// What a round needs of such matrices and has not (bodies/slot_copies.cuh).
struct SlotCopies {
  SlotTable table;
  SlotRounds rounds;
  int round;
  SlottedMatrix matrix;
};
// Copies it, and the same of `down`, whose matrix alone is read.
Status fetch_experts(const Queue& queue, const SlotCopies& gate_up, const SlotCopies& down);

}  // namespace nib::inline v0::cuda
