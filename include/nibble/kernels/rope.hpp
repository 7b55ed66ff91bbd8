// Room kernels: rotary position embedding: frequencies, and the cosines and sines of a position. No libm: the
// same bits everywhere.
#pragma once

#include <cstdint>
#include <span>

namespace nib::inline v0 {

// YaRN (Peng et al. 2023) as gpt-oss uses it; factor 1 is plain RoPE.
struct RopeScaling {
  double factor = 1;
  double original_context = 0;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // round the bounds of the ramp to whole dimensions
  double attention = 1;  // factor on cosines and sines
};

// The factor YaRN puts on cosines and sines unless a config says another: 0.1 ln(factor) + 1, and 1 up to factor 1.
double yarn_attention(double factor);

// frequencies[i], i < dim / 2, of theta^(-2 i / dim), ramped between interpolation and extrapolation.
void rope_frequencies(double theta, int dim, const RopeScaling& scaling, std::span<float> frequencies);

// cos[i] and sin[i] of position * frequencies[i], times scaling.attention. The angle is rounded to f32 first,
// as the reference does. Error below 1 ulp for positions below 2^24.
void rope_angles(std::int64_t position, std::span<const float> frequencies, double attention, float* cos,
                 float* sin);

}  // namespace nib::inline v0
