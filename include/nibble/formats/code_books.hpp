// Room formats: elements whose levels are a table: NF4 and the FP4 of bitsandbytes.
//
// NF4: quantiles of the normal distribution, -1 .. 1, with an exact zero; the code is the place in the table.
// FP4: sign and magnitude, but the magnitudes are in no order, and code 1 is 1/192, not half of code 2's
// neighbour: it is not E2M1. Both are in units of the block's largest magnitude.
// The dynamic map: 256 levels whose steps grow with them; bitsandbytes' eight bits for scales.
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

  static constexpr float middles[15] = {
      (levels[0] + levels[1]) / 2,   (levels[1] + levels[2]) / 2,   (levels[2] + levels[3]) / 2,
      (levels[3] + levels[4]) / 2,   (levels[4] + levels[5]) / 2,   (levels[5] + levels[6]) / 2,
      (levels[6] + levels[7]) / 2,   (levels[7] + levels[8]) / 2,   (levels[8] + levels[9]) / 2,
      (levels[9] + levels[10]) / 2,  (levels[10] + levels[11]) / 2, (levels[11] + levels[12]) / 2,
      (levels[12] + levels[13]) / 2, (levels[13] + levels[14]) / 2, (levels[14] + levels[15]) / 2};

  static constexpr float decode(Code code) { return levels[code & 15u]; }

  // The nearest level; a tie goes to the lower one. NaN is code 0. The thresholds are the middles rounded to
  // f32, as bitsandbytes has them.
  static constexpr Code encode(float value) {
    int code = 0;  // how many thresholds it is above
    for (const float middle : middles) code += static_cast<int>(value > middle);
    return static_cast<Code>(code);
  }
  static constexpr float max() { return 1.0f; }
};

struct BnbFp4Levels {
  static constexpr int bits = 4;
  using Code = std::uint8_t;

  static constexpr float levels[16] = {0.0f,       0.0625f / 12, 8.0f / 12,  1.0f,          4.0f / 12,  0.5f,
                                       2.0f / 12,  0.25f,        -0.0f,      -0.0625f / 12, -8.0f / 12, -1.0f,
                                       -4.0f / 12, -0.5f,        -2.0f / 12, -0.25f};

  static constexpr float middles[7] = {(levels[0] + levels[1]) / 2, (levels[1] + levels[6]) / 2,
                                       (levels[6] + levels[7]) / 2, (levels[7] + levels[4]) / 2,
                                       (levels[4] + levels[5]) / 2, (levels[5] + levels[2]) / 2,
                                       (levels[2] + levels[3]) / 2};

  static constexpr float decode(Code code) { return levels[code & 15u]; }

  // The nearest level; ties go to the smaller magnitude; what rounds to zero is code 0. NaN is code 0.
  static constexpr Code encode(float value) {
    constexpr std::uint32_t kAscending = 0x3254'7610u;  // magnitudes 0, 1, ... from the lowest digit on
    const auto word = std::bit_cast<std::uint32_t>(value);
    const float x = std::bit_cast<float>(word & 0x7fff'ffffu);
    std::uint32_t above = 0;  // thresholds
    for (const float middle : middles) above += static_cast<std::uint32_t>(x > middle);
    const std::uint32_t negative = (word >> 31) & static_cast<std::uint32_t>(above > 0);
    return static_cast<Code>((kAscending >> (4 * above) & 15u) | negative << 3);
  }
  static constexpr float max() { return 1.0f; }
};

// Sorted, -0.99296874 .. 1. With i = 0..6 and k = 0..2^i - 1, level 127 + 2^i + k is 10^(i - 6) times the
// middle of the k-th of 2^i equal parts of [0.1, 1]; level 127 - 2^i - k is minus that; 127 is 0 and 255
// is 1. To the last bit as bitsandbytes has it: each step is rounded to f32, but the ends of the parts with
// one rounding.
struct DynamicMap {
  float level[256] = {};

  constexpr DynamicMap() {
    constexpr float kDecades[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    for (int i = 0; i < 7; ++i) {
      const int parts = 1 << i;
      const double step = (1.0f - 0.1f) / static_cast<float>(parts);
      const auto end_of = [&](int k) {  // counted from the nearer end of [0.1, 1]
        return k < (parts + 1) / 2 ? static_cast<float>(0.1f + step * k)
                                   : static_cast<float>(1 - step * (parts - k));
      };
      for (int k = 0; k < parts; ++k) {
        const float magnitude = (end_of(k) + end_of(k + 1)) / 2 * kDecades[i];
        level[127 + parts + k] = magnitude;
        level[127 - parts - k] = -magnitude;
      }
    }
    level[255] = 1;
  }

  // The nearest level; a tie goes to the lower one. NaN is code 0.
  constexpr std::uint8_t encode(float value) const {
    int low = 0, high = 255;
    if (!(value > level[0])) return 0;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (level[middle] < value ? low : high) = middle;
    }
    const float below = value - level[low], above = level[high] - value;
    return static_cast<std::uint8_t>(above < below ? high : low);
  }
};
inline constexpr DynamicMap kDynamicMap{};

}  // namespace nib::inline v0
