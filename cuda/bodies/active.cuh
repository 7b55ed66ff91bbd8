// Which experts are computed: each block finds that out for itself.
#pragma once

#include "../arch.cuh"
#include "../expert_lists.hpp"

#include <cstdint>

namespace nib::inline v0::cuda {

// In shared memory: those that have entries, in increasing order, as far as they are of this round.
struct ActiveExperts {
  std::int32_t count;
  std::int32_t in_all_rounds;
  std::int32_t first[kMostExperts];  // entry
  // Number, matrix and entries of each in one word: a second block has room on a multiprocessor of 164 KiB.
  std::uint32_t packed[kMostExperts];

  NIB_DEVICE int id(int i) const { return static_cast<int>(packed[i] % kMostExperts); }
  NIB_DEVICE int matrix(int i) const { return static_cast<int>(packed[i] / kMostExperts % kMostExperts); }
  NIB_DEVICE int entries(int i) const { return static_cast<int>(packed[i] >> 2 * kExpertBits); }

  NIB_DEVICE void set(int i, int id, int matrix, int first_entry, int entry_count) {
    first[i] = first_entry;
    packed[i] =
        (static_cast<std::uint32_t>(entry_count) * kMostExperts + static_cast<std::uint32_t>(matrix)) *
            kMostExperts +
        static_cast<std::uint32_t>(id);
  }
};

// For all threads of the block; they are there when it returns. Where the lists are older than the kernel
// before, it may be called before wait_for_kernel_before().
NIB_DEVICE void find_active(ActiveExperts& active, const ExpertLists& lists) {
  if (!lists.first) {
    if (thread_index() == 0) {
      active.count = active.in_all_rounds = 1;
      active.set(0, 0, 0, 0, lists.rows);
    }
  } else if (thread_index() < 32) {
    const int lane = thread_index();
    int count = 0, in_all_rounds = 0;
    for (int begin = 0; begin < lists.experts; begin += 32) {
      const int expert = begin + lane;
      const bool is_one = expert < lists.experts;
      const int first = is_one ? read_past_cache(lists.first + expert) : 0,
                end = is_one ? read_past_cache(lists.first + expert + 1) : 0;
      const std::int32_t place =
          end > first && lists.place ? read_past_cache(lists.place + expert) : expert_place(0, expert);
      const bool is_now = end > first && round_of_place(place) == lists.round;
      // Of those up to this lane: of this round in the low half, of any in the high one.
      int counted = (is_now ? 1 : 0) + (end > first ? 1 << 16 : 0);
      NIB_UNROLL
      for (int by = 1; by < 32; by *= 2) {
        const int before = shuffle_up(counted, by);
        if (lane >= by) counted += before;
      }
      if (is_now)
        active.set(count + (counted & 0xffff) - 1, expert, matrix_of_place(place), first, end - first);
      const int all = shuffle(counted, 31);
      count += all & 0xffff;
      in_all_rounds += all >> 16;
    }
    if (lane == 0) {
      active.count = count;
      active.in_all_rounds = in_all_rounds;
    }
  }
  sync_block();
}

}  // namespace nib::inline v0::cuda
