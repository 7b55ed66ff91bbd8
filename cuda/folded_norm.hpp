// Room cuda: rms norms that take no kernel of their own. A product is linear in its inputs,
//
//   W (w x / rms) = (W (w x)) / rms
//
// so that whoever writes x leaves w x, rounded to bf16, and the sums of the squares of sixteen numbers at a
// time; and whoever multiplies it adds these up, always in the same order, and multiplies its sums by 1 / rms
// of their row. A factor changes nothing of what rounding loses, and nothing overflows or vanishes that would
// not have with the norm before the product: bf16 has the exponents of f32, squares overflow at 2^64, where
// w x and its products are far from it, and what w x loses below 2^-126 is nothing beside the epsilon.
#pragma once

#include "queue.hpp"

#include <cstdint>

namespace nib::inline v0::cuda {

// How products come by 1 / rms of their rows.
struct FoldedNorm {
  float* squares = nullptr;  // [rows][stride()]: of each part, then 1 / rms where a kernel of its own left
                             // it; null: rows are normed already
  int width = 0;
  float epsilon = 0;

  constexpr int parts() const { return (width + kNormPart - 1) / kNormPart; }
  constexpr int stride() const { return parts() + 1; }

  // Of rows that a norm wants, or that were normed for it.
  static FoldedNorm of(const Norm& norm, float* squares, std::int64_t width) {
    if (norm.kind != NormKind::rms || !squares) return {};
    return {squares, static_cast<int>(width), norm.epsilon};
  }
};

// What whoever writes x leaves for the norm that follows.
struct FoldedRows {
  FoldedNorm norm;
  const float* weight = nullptr;
  std::uint16_t* rows =
      nullptr;  // [rows][bf16_stride(width)], zeros beyond the width; null: nothing is wanted

  static FoldedRows of(const NextNorm& next, std::int64_t width) {
    return {FoldedNorm::of(next.norm, next.squares, width), next.norm.weight,
            reinterpret_cast<std::uint16_t*>(next.normed)};
  }
};

}  // namespace nib::inline v0::cuda
