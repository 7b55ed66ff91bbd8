// Rows on a device that an rms norm follows, and what is left of them for it.
#pragma once

#include "device_rig.hpp"

#include <cuda/rows.hpp>

namespace nib::test {

inline constexpr float kEpsilon = 1e-5f;

// Rows x, the weight of the norm that follows, and room for what it wants.
struct FoldRig {
  FoldRig(std::int64_t rows_, std::int64_t width_, Random& random)
      : rows(rows_),
        width(width_),
        stride(row_stride(width)),
        normed_stride(cuda::bf16_stride(width)),
        x(rows * stride, kNoNumber),
        weight(width),
        normed(rows * normed_stride, 0x7fff),
        squares(rows * norm_squares(width), kNoNumber) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const float size = std::exp(3 * random.normal());
      for (std::int64_t i = 0; i < width; ++i) x[r * stride + i] = random.normal() * size;
    }
    for (std::int64_t i = 0; i < width; ++i) weight[i] = random.normal();
  }
  Norm norm() const { return {weight.data(), kEpsilon}; }
  NextNorm next() const { return {norm(), reinterpret_cast<float*>(normed.data()), squares.data()}; }
  cuda::FoldedNorm folded() const { return cuda::FoldedNorm::of(norm(), squares.data(), width); }
  void fold(const TestQueue& queue) const {
    REQUIRE(queue.run(cuda::norm_for_next, x.data(), rows, width, next()).ok());
  }
  // The same of some of the rows alone.
  FoldRig part(std::int64_t from, std::int64_t count, Random& random) const {
    FoldRig out(count, width, random);
    std::copy_n(x.data() + from * stride, count * stride, out.x.data());
    out.weight = weight;
    return out;
  }
  const float* squares_of(std::int64_t r) const { return squares.data() + r * norm_squares(width); }
  double factor(std::int64_t r) const {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += double{x[r * stride + i]} * x[r * stride + i];
    return 1 / std::sqrt(sum / static_cast<double>(width) + double{kEpsilon});
  }
  // Squares, trees of sixteen and of 32, a chain between them; quotient, sum, root, quotient.
  double lost() const { return (static_cast<double>(norm_squares(width)) / 32 + 16) * 0x1p-24; }

  std::int64_t rows, width, stride, normed_stride;
  DeviceBuffer<float> x, weight;
  DeviceBuffer<std::uint16_t> normed;
  DeviceBuffer<float> squares;
};

// What products leave lacks the factor, which is for a kernel of its own.
inline void check_same(const FoldRig& a, const FoldRig& b) {
  CHECK(std::equal(a.normed.begin(), a.normed.end(), b.normed.begin()));
  for (std::int64_t r = 0; r < a.rows; ++r)
    CHECK(same_bits(a.squares_of(r), b.squares_of(r), norm_squares(a.width) - 1));
}

}  // namespace nib::test
