// What stands between the two matrices of an expert (Activation in kernels/ops.hpp), of one unit.
#pragma once

#include "../arch.cuh"
#include "../expert_lists.hpp"

namespace nib::inline v0::cuda {

NIB_DEVICE float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

// Of a unit with a gate. What is no number stays visible.
NIB_DEVICE float gated(const Hidden& of, float gate, float value) {
  if (of.activation == Activation::swiglu) return gate * sigmoid(gate) * value;
  const float limit = of.limits.limit;
  const float g = gate > limit ? limit : gate;
  const float u = value < -limit ? -limit : value > limit ? limit : value;
  return g * sigmoid(of.limits.alpha * g) * (u + 1);
}

// And of one without. (1 + tanh y) / 2 is the sigmoid of 2 y.
NIB_DEVICE float ungated(const Hidden& of, float u) {
  if (of.activation == Activation::gelu) return u * (0.5f * error_complement(u * -0x1.6a09e6p-1f));
  return u * sigmoid(0x1.988454p0f * fused_multiply_add(0.044715f * u * u, u, u));  // 2 sqrt(2 / pi)
}

// Zeros behind the units of an entry, by a warp.
NIB_DEVICE void clear_beyond(const Hidden& of, std::int64_t entry, int lane) {
  for (std::int64_t unit = of.units + lane; unit < of.stride; unit += 32) of.at[entry * of.stride + unit] = 0;
}

}  // namespace nib::inline v0::cuda
