// Room formats: LLM.int8: the product of int8 weights (Format::llm_int8, a scale for each row) with
// activations of which a few columns are too large for eight bits and stay what they are.
//
//   outlier column      an input feature where any row has |x| >= threshold (6 by default of the ecosystem)
//   x as int8           code = round(x * 127 / s), s the row's largest magnitude without its outliers; an
//   outlier
//                       has code 0, and with more than one row its whole column has
//   y[i, r]             sum(code x code) * s_x[i] * s_w[r] / 127^2, plus the outlier columns' x * weight
//
// A definition to compare with, in double where it matters; kernels have their own order. Any thread.
#pragma once

#include <nibble/formats/shared_scale.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

inline constexpr float kLlmInt8Threshold = 6.0f;

// outlier[c] = whether column c of x [rows, k] has one; NaN is one. Returns how many have.
constexpr std::int64_t find_outlier_columns(const float* x, std::int64_t rows, std::int64_t k,
                                            float threshold, bool* outlier) {
  std::int64_t found = 0;
  for (std::int64_t c = 0; c < k; ++c) {
    outlier[c] = false;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float value = x[r * k + c];
      outlier[c] = outlier[c] || !(value < threshold && value > -threshold);
    }
    found += outlier[c] ? 1 : 0;
  }
  return found;
}

// x [rows, k] as int8: codes [rows, k] and one scale a row. `outlier` as found above.
constexpr void quantize_activations(const float* x, std::int64_t rows, std::int64_t k, float threshold,
                                    const bool* outlier, std::byte* codes, float* scales) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto kept = [&](std::int64_t c) {
      const float value = x[r * k + c];
      return value < threshold && value > -threshold;
    };
    float largest = 0;
    for (std::int64_t c = 0; c < k; ++c) {
      const float magnitude = x[r * k + c] < 0 ? -x[r * k + c] : x[r * k + c];
      if (kept(c) && magnitude > largest) largest = magnitude;
    }
    scales[r] = largest;
    for (std::int64_t c = 0; c < k; ++c) {
      const float value = kept(c) && !(rows > 1 && outlier[c]) ? x[r * k + c] : 0.0f;
      LlmInt8::encode_codes(&value, largest, codes + r * k + c);
    }
  }
}

// y = x_codes . w_codes under their scales, plus x times the outlier columns of the row: one output.
constexpr double llm_int8_dot(const std::byte* x_codes, float x_scale, const float* x, const bool* outlier,
                              const std::byte* w_codes, float w_scale, std::int64_t k) {
  const auto code = [](std::byte b) {
    return static_cast<std::int64_t>(SymmetricInt<8>::decode(std::to_integer<std::uint8_t>(b)));
  };
  std::int64_t sum = 0;
  double large = 0;
  for (std::int64_t c = 0; c < k; ++c) {
    const std::int64_t weight = code(w_codes[c]);
    if (outlier[c])
      large += static_cast<double>(x[c]) * static_cast<double>(weight);
    else
      sum += code(x_codes[c]) * weight;
  }
  const double scale = static_cast<double>(w_scale) / 127;
  return static_cast<double>(sum) * static_cast<double>(x_scale) / 127 * scale + large * scale;
}

}  // namespace nib::inline v0
