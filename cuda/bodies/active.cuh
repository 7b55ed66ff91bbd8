// Which experts have entries: each block finds that out for itself.
#pragma once

#include "../arch.cuh"
#include "../expert_lists.hpp"

#include <cstdint>

namespace nib::inline v0::cuda {

// In shared memory: those that have any, in increasing order.
struct ActiveExperts {
  std::int32_t count;
  std::int32_t id[kMostExperts];
};

// For all threads of the block; they are there when it returns.
NIB_DEVICE void find_active(ActiveExperts& active, const ExpertLists& lists) {
  if (thread_index() < 32) {
    const int lane = thread_index();
    int count = 0;
    for (int begin = 0; begin < lists.experts; begin += 32) {
      const int expert = begin + lane;
      const bool has_any = expert < lists.experts && lists.first[expert + 1] > lists.first[expert];
      int place = has_any ? 1 : 0;  // of those up to this lane
      NIB_UNROLL
      for (int by = 1; by < 32; by *= 2) {
        const int before = shuffle_up(place, by);
        if (lane >= by) place += before;
      }
      if (has_any) active.id[count + place - 1] = expert;
      count += shuffle(place, 31);
    }
    if (lane == 0) active.count = count;
  }
  sync_block();
}

}  // namespace nib::inline v0::cuda
