// Which experts have entries: each block finds that out for itself.
#pragma once

#include "../arch.cuh"
#include "../expert_lists.hpp"

#include <cstdint>

namespace nib::inline v0::cuda {

// In shared memory: those that have any, in increasing order. All entries are theirs.
struct ActiveExperts {
  std::int32_t count;
  std::int32_t id[kMostExperts];
  std::int32_t first[kMostExperts + 1];  // entries [first[i], first[i + 1]) are those of id[i]
};

// For all threads of the block; they are there when it returns. Where the lists are older than the kernel
// before, it may be called before wait_for_kernel_before().
NIB_DEVICE void find_active(ActiveExperts& active, const ExpertLists& lists) {
  if (!lists.first) {
    if (thread_index() == 0) {
      active.count = 1;
      active.id[0] = active.first[0] = 0;
      active.first[1] = lists.rows;
    }
  } else if (thread_index() < 32) {
    const int lane = thread_index();
    int count = 0;
    for (int begin = 0; begin < lists.experts; begin += 32) {
      const int expert = begin + lane;
      const bool is_one = expert < lists.experts;
      const int first = is_one ? read_past_cache(lists.first + expert) : 0,
                end = is_one ? read_past_cache(lists.first + expert + 1) : 0;
      const bool has_any = end > first;
      int place = has_any ? 1 : 0;  // of those up to this lane
      NIB_UNROLL
      for (int by = 1; by < 32; by *= 2) {
        const int before = shuffle_up(place, by);
        if (lane >= by) place += before;
      }
      if (has_any) {
        active.id[count + place - 1] = expert;
        active.first[count + place - 1] = first;
      }
      count += shuffle(place, 31);
    }
    if (lane == 0) {
      active.count = count;
      active.first[count] = read_past_cache(lists.first + lists.experts);
    }
  }
  sync_block();
}

}  // namespace nib::inline v0::cuda
