// Room cuda: what kernels read of ops.hpp's Routing, and what they make of an expert's sums.
#pragma once

#include <nibble/kernels/ops.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kMostExperts = 512;

// Pairs of row and expert, sorted by expert and, within one, by row.
struct ExpertLists {
  int experts;
  const std::int32_t* first;  // [experts + 1]: entries [first[e], first[e + 1]) are expert e's
  const std::int32_t* row;    // of an entry
  int rows;                   // where `first` is null: there is one expert, and entries are the rows
};

// Where the activations of units go, rounded to bf16.
struct Hidden {
  std::uint16_t* at;    // [entries][stride]
  std::int64_t stride;  // bf16_stride(units)
  int units;            // of an expert
  Activation activation;
  GateLimits limits;
};

}  // namespace nib::inline v0::cuda
