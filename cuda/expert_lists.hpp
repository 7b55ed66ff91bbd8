// Room cuda: what kernels read of ops.hpp's Routing, where matrices of experts lie, and what kernels make of
// an expert's sums.
#pragma once

#include <nibble/kernels/ops.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kExpertBits = 9;
inline constexpr int kMostExperts = 1 << kExpertBits;
inline constexpr int kMostEntries = (1 << (32 - 2 * kExpertBits)) - 1;  // of one expert, as many as rows

// Which of a layer's matrices is an expert's, and in which round of the op it lies there.
constexpr std::int32_t expert_place(int round, int matrix) { return round << kExpertBits | matrix; }
constexpr int round_of_place(std::int32_t place) { return place >> kExpertBits; }
constexpr int matrix_of_place(std::int32_t place) { return place & (kMostExperts - 1); }

// Pairs of row and expert, sorted by expert and, within one, by row.
struct ExpertLists {
  int experts;
  const std::int32_t* first;  // [experts + 1]: entries [first[e], first[e + 1]) are expert e's
  const std::int32_t* row;    // of an entry
  // [experts], of those that have entries: expert_place. Null: matrix e is expert e's, in round 0.
  const std::int32_t* place = nullptr;
  int round = 0;  // of which experts are computed
  int rows = 0;   // where `first` is null: there is one expert, and entries are the rows
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
