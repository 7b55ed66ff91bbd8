// Copies of experts from the host's memory to slots: pieces of matrices, shared out among blocks that are all
// of a kernel, or some of them while the others multiply.
#pragma once

#include "../arch.cuh"
#include "../expert_slots.hpp"

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kCopyThreads = 256;
// Each thread has so many loads under way, a block 32 KiB: what comes over a bus of 60 GB/s within 2 us,
// which it takes to answer, four of them keep under way.
inline constexpr int kCopyLoads = 8;
inline constexpr int kCopyWords = kCopyThreads * kCopyLoads;  // of a piece

NIB_DEVICE void copy_piece(Words4* to, const Words4* from, int words) {
  Words4 read[kCopyLoads];
  NIB_UNROLL
  for (int i = 0; i < kCopyLoads; ++i)
    if (i * kCopyThreads + thread_index() < words)
      read[i] = read_once(from + i * kCopyThreads + thread_index());
  NIB_UNROLL
  for (int i = 0; i < kCopyLoads; ++i)
    if (i * kCopyThreads + thread_index() < words) to[i * kCopyThreads + thread_index()] = read[i];
}

// By block `block` of `blocks`, of kCopyThreads each.
NIB_DEVICE void copy_to_slots(const SlotCopies& call, int block, int blocks) {
  const CopyRange range = copies_of(*call.table.head, call.rounds, call.round);
  const SlottedMatrix& matrix = call.matrix;
  const auto words = static_cast<int>(matrix.bytes / 16);
  int begin = block * kCopyWords;  // of this block's next piece
  NIB_ROLLED
  for (int i = range.begin; i < range.end; ++i) {
    const std::int32_t copy = call.table.copies[i];
    const auto* const from =
        reinterpret_cast<const Words4*>(matrix.from + expert_of_copy(copy) * matrix.bytes);
    auto* const to = reinterpret_cast<Words4*>(matrix.to + slot_of_copy(copy) * matrix.bytes);
    NIB_ROLLED
    for (; begin < words; begin += blocks * kCopyWords) copy_piece(to + begin, from + begin, words - begin);
    begin -= round_up(words, kCopyWords);
  }
}

}  // namespace nib::inline v0::cuda
