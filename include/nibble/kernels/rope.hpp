// Room kernels: rotary position embedding: frequencies, and the cosines and sines of a position. No libm: the
// same bits everywhere.
#pragma once

#include <cstdint>
#include <span>

namespace nib::inline v0 {

// How frequencies change for contexts longer than a model was first trained for.
//   linear   all divided by the factor
//   yarn     (Peng et al. 2023) a ramp over dimensions, from divided (slow ones) to unchanged (fast ones)
//   llama3   a ramp over wavelengths, from divided (longer than original_context / slow) to unchanged
//   (shorter than
//            original_context / fast)
enum class RopeKind : std::uint8_t { plain, linear, yarn, llama3 };

struct RopeScaling {
  RopeKind kind = RopeKind::plain;
  double factor = 1;
  double original_context = 0;
  // Turns in an original context of the slowest unchanged and the fastest divided dimension: of yarn
  // beta_fast and beta_slow (32 and 1), of llama3 high_freq_factor and low_freq_factor (4 and 1).
  double fast = 32, slow = 1;
  bool truncate = true;  // yarn: round the bounds of the ramp to whole dimensions
  double attention = 1;  // factor on cosines and sines
};

// The factor YaRN puts on cosines and sines unless a config says another: 0.1 scale ln(factor) + 1, and 1 up
// to factor 1.
double yarn_attention(double factor, double scale = 1);

// frequencies[i], i < dim / 2: theta^(-2 i / dim), scaled.
void rope_frequencies(double theta, int dim, const RopeScaling& scaling, std::span<float> frequencies);

// cos[i] and sin[i] of position * frequencies[i], times scaling.attention. The angle is rounded to f32 first,
// as the reference does. Error below 1 ulp for positions below 2^24.
void rope_angles(std::int64_t position, std::span<const float> frequencies, double attention, float* cos,
                 float* sin);

}  // namespace nib::inline v0
