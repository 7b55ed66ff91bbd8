// Room formats: elements whose levels are a table: NF4 and the FP4 of bitsandbytes.
//
// NF4: quantiles of the normal distribution, -1 .. 1, with an exact zero; the code is the place in the table.
// FP4: sign and magnitude, but the magnitudes are in no order, and code 1 is 1/192, not half of code 2's
// neighbour: it is not E2M1. Both are in units of the block's largest magnitude.
//
// A checkpoint carries its table ("quant_map"): a reader compares it with `levels` and refuses another one.
#pragma once

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

struct Nf4Levels {
  static constexpr int bits = 4;
  using Code = std::uint8_t;

  static constexpr float levels[16] = {-1.0f,
                                       -0.6961928009986877f,
                                       -0.5250730514526367f,
                                       -0.39491748809814453f,
                                       -0.28444138169288635f,
                                       -0.18477343022823334f,
                                       -0.09105003625154495f,
                                       0.0f,
                                       0.07958029955625534f,
                                       0.16093020141124725f,
                                       0.24611230194568634f,
                                       0.33791524171829224f,
                                       0.44070982933044434f,
                                       0.5626170039176941f,
                                       0.7229568362236023f,
                                       1.0f};

  static constexpr float decode(Code code) { return levels[code & 15u]; }

  // The nearest level; a tie goes to the lower one. NaN is code 0.
  static constexpr Code encode(float value) {
    Code code = 0;
    for (Code next = 1; next < 16; ++next) {
      const double middle =
          (static_cast<double>(levels[next - 1]) + static_cast<double>(levels[next])) / 2;  // exact
      code = static_cast<double>(value) > middle ? next : code;
    }
    return code;
  }
  static constexpr float max() { return 1.0f; }
};

struct BnbFp4Levels {
  static constexpr int bits = 4;
  using Code = std::uint8_t;

  static constexpr float levels[16] = {0.0f,       0.0625f / 12, 8.0f / 12,  1.0f,          4.0f / 12,  0.5f,
                                       2.0f / 12,  0.25f,        -0.0f,      -0.0625f / 12, -8.0f / 12, -1.0f,
                                       -4.0f / 12, -0.5f,        -2.0f / 12, -0.25f};

  static constexpr float decode(Code code) { return levels[code & 15u]; }

  // The nearest level; ties go to the smaller magnitude; what rounds to zero is code 0. NaN is code 0.
  static constexpr Code encode(float value) {
    constexpr Code kAscending[8] = {0, 1, 6, 7, 4, 5, 2, 3};
    const double x = static_cast<double>(value < 0 ? -value : value);
    Code code = 0;
    for (int i = 1; i < 8; ++i) {
      const double middle =
          (static_cast<double>(levels[kAscending[i - 1]]) + static_cast<double>(levels[kAscending[i]])) /
          2;  // exact
      code = x > middle ? kAscending[i] : code;
    }
    return code && value < 0 ? static_cast<Code>(code | 8u) : code;
  }
  static constexpr float max() { return 1.0f; }
};

}  // namespace nib::inline v0
