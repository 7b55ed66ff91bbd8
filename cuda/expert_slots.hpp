// Room cuda: experts that take turns in slots of the device's memory. All of a layer's experts lie in
// page-locked memory of the host, which kernels read at the rate of the bus. Those that rows chose and that
// have no slot are copied to one, in place of those that were used least recently; the device decides that
// by itself, after routing, so that the list of launches is the same for every token.
//
// Rows may choose more experts than there are slots. Then the op has rounds: in the first, slots hold those
// of them that were there before, and as many others as have room; in each that follows, as many of the rest
// as there are slots, from slot 0 on. Which experts share a round changes no bit of what they compute.
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
    std::int64_t calls;     // of the op
    std::int64_t copied;    // experts in all: see ExpertSlots
    std::int32_t missing;   // experts of the last call that had no slot
    std::int32_t in_first;  // of these, those that are copied in the first round
  };
  Head* head;
  std::int64_t* used;    // [slots]: the call that used it last
  std::int32_t* holds;   // [slots]: an expert's number plus one; 0: nothing
  std::int32_t* place;   // [experts], of those that the last call chose: expert_place
  std::int32_t* copies;  // [experts], `missing` of them: slot_copy, in the order of rounds
  int experts, slots;

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

// Of an op whose rows make so many choices.
constexpr int rounds_of(std::int64_t choices, int experts, int slots) {
  const std::int64_t most = choices < experts ? choices : experts;
  return static_cast<int>((most + slots - 1) / slots);
}

// Gives every expert that has entries its place. `first` as in ExpertLists.
Status place_experts(const Queue& queue, const SlotTable& table, const std::int32_t* first);

// A matrix of each expert in the host's memory, and the slots for it; both `bytes` apart, a multiple of 128.
struct SlottedMatrix {
  const std::byte* from;
  std::byte* to;
  std::int64_t bytes;
};
// Copies what this round needs and has not.
Status fetch_experts(const Queue& queue, const SlotTable& table, const SlottedMatrix& gate_up,
                     const SlottedMatrix& down, int round);

}  // namespace nib::inline v0::cuda
