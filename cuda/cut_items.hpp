// Room cuda: the memory of kernels that deal tiles in stripes (bodies/stripes.cuh), out of the scratch of
// ops.
#pragma once

#include "queue.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

struct WarpSums;

// Memory for items that are cut: a place for each block, taken by the item that begins in it and ends in
// another. The counters are zero before a launch and after it.
struct CutItems {
  WarpSums* products;      // [blocks][slices]
  std::int32_t* counters;  // [blocks]
};

// Blocks of a kernel of which a multiprocessor has registers for so many, and each of which takes so much
// shared memory, and the system one KiB more. All of them work at once.
inline int blocks_of(const Queue& queue, int that_fit, std::size_t shared_bytes) {
  const int by_memory = queue.shared_bytes / static_cast<int>(shared_bytes + 1024);
  return std::min(queue.processors * std::clamp(by_memory, 1, that_fit), kMostBlocks);
}

// For so many blocks and slices of a tile, behind `other_counters` that the kernel has beside. Errors:
// argument (the scratch is too small).
inline Result<CutItems> cut_items(const Scratch& scratch, int blocks, int slices,
                                  std::int64_t other_counters = 0) {
  const std::size_t bytes =
      static_cast<std::size_t>(blocks) * static_cast<std::size_t>(slices) * kSliceProductBytes;
  if (bytes > scratch.bytes)
    return Status(Code::argument,
                  concat("scratch: expected ", bytes, " bytes or more, found ", scratch.bytes));
  if (other_counters + blocks > static_cast<std::int64_t>(kScratchCounters))
    return Status(Code::unsupported,
                  concat("tiles of a matrix: expected at most ",
                         static_cast<std::int64_t>(kScratchCounters) - blocks, ", found ", other_counters));
  return CutItems{reinterpret_cast<WarpSums*>(scratch.room), scratch.counters + other_counters};
}

}  // namespace nib::inline v0::cuda
