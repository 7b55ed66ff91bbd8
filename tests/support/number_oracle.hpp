// What a small binary floating-point format means, by its definition and in double: the slow truth that the
// integer arithmetic of base/float16.hpp and formats/minifloat.hpp is checked against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace nib::test {

class NumberOracle {
 public:
  // `finite` is the largest finite number's code without its sign.
  NumberOracle(int exponent_bits, int mantissa_bits, int bias, std::uint32_t finite)
      : sign_(1u << (exponent_bits + mantissa_bits)) {
    for (std::uint32_t code = 0; code <= finite + 1; ++code) {
      const auto exponent = static_cast<int>(code >> mantissa_bits);
      const double fraction =
          std::ldexp(static_cast<double>(code & ((1u << mantissa_bits) - 1u)), -mantissa_bits);
      values_.push_back(exponent == 0 ? std::ldexp(fraction, 1 - bias)
                                      : std::ldexp(1 + fraction, exponent - bias));
    }
  }

  std::uint32_t sign() const { return sign_; }
  std::uint32_t finite() const { return static_cast<std::uint32_t>(values_.size()) - 2; }

  // Of a code whose magnitude is finite.
  double value(std::uint32_t code) const {
    return code & sign_ ? -values_[code & (sign_ - 1)] : values_[code];
  }

  // The code nearest to `magnitude` >= 0, ties to even, with finite() + 1 standing for everything too large.
  std::uint32_t nearest(double magnitude) const {
    if (magnitude >= values_.back()) return finite() + 1;
    const auto above = static_cast<std::uint32_t>(
        std::upper_bound(values_.begin(), values_.end(), magnitude) - values_.begin());
    const std::uint32_t below = above - 1;
    const double up = values_[above] - magnitude, down = magnitude - values_[below];
    if (up != down) return up < down ? above : below;
    return above % 2 == 0 ? above : below;
  }

 private:
  std::uint32_t sign_;
  std::vector<double> values_;
};

}  // namespace nib::test
