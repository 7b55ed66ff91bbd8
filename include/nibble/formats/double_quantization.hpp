// Room formats: bitsandbytes' double quantization, the writing side: the f32 scales of NF4 or FP4 blocks
// become one byte each. Reading is NestedScales in scaling.hpp. Any thread.
#pragma once

#include <nibble/formats/code_books.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/scaling.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// The offset that is taken off all scales: their mean, summed in double, so that it is the same on every
// machine. (bitsandbytes' own sum depends on its vector width in the last bits; the file says which it was.)
constexpr float scale_offset(const float* scales, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(scales[i]);
  return count ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
}

// `count` scales, less the offset, as codes [count] of the dynamic map in units of absmax [ceil(count /
// 256)].
constexpr void nest_scales(const float* scales, std::int64_t count, float offset, std::byte* codes,
                           float* absmax) {
  constexpr std::int64_t kGroup = 256;
  for (std::int64_t begin = 0; begin < count; begin += kGroup) {
    const std::int64_t end = begin + kGroup < count ? begin + kGroup : count;
    float largest = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const float difference = scales[i] - offset;
      const float magnitude = difference < 0 ? -difference : difference;
      largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
    }
    absmax[begin / kGroup] = largest;
    const float inverse = largest > 0 ? 1.0f / largest : 0.0f;  // as bitsandbytes divides
    for (std::int64_t i = begin; i < end; ++i)
      codes[i] = static_cast<std::byte>(kDynamicMap.encode((scales[i] - offset) * inverse));
  }
}

}  // namespace nib::inline v0
