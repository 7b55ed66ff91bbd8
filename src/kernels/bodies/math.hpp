// exp, sigmoid and norms over sixteen lanes; every instruction set does the same operations in the same
// order.
#pragma once

#include <nibble/kernels/exponential.hpp>
#include <nibble/kernels/ops.hpp>

#include <cstdint>

namespace nib::inline v0::cpu {

// e^x of one float, by the same operations.
template <class A>
float exp1(float x) {
  float lanes[16];
  A::store(lanes, exp<A>(A::set(x)));
  return lanes[0];
}

template <class A>
typename A::F sigmoid(typename A::F x) {
  const auto one = A::set(1.0f);
  return A::div(one, A::add(one, exp<A>(A::sub(A::set(0.0f), x))));
}

// (1 + erf(x / sqrt 2)) / 2, the share of a normal distribution below x. With z = |x| / sqrt 2 and t = 1 / (1
// + 0.375 z), erfc(z) = e^(-z^2) t q(t); q was fitted to least relative error over 0 <= z <= 6 (5e-7 in f32).
template <class A>
typename A::F normal_share(typename A::F x) {
  const auto zero = A::set(0.0f), one = A::set(1.0f);
  const auto z = A::mul(A::max(x, A::sub(zero, x)), A::set(0x1.6a09e6p-1f));
  const auto t = A::div(one, A::fma(z, A::set(0.375f), one));
  auto q = A::set(0x1.ecb8dep-5f);
  for (const float c : {-0x1.1e92ep-2f, 0x1.a926ccp-2f, -0x1.a868dep-3f, 0x1.066686p-2f, 0x1.0a773p-3f,
                        0x1.9f30aap-3f, 0x1.b04ba4p-3f, 0x1.b15244p-3f})
    q = A::fma(q, t, A::set(c));
  const auto tail = A::mul(A::mul(exp<A>(A::mul(A::mul(x, x), A::set(-0.5f))), A::mul(q, t)), A::set(0.5f));
  return A::if_less(x, zero, tail, A::sub(one, tail));
}

// out = x / sqrt(mean(x^2) + epsilon) * weight over `width` values; x and weight are zero up to a whole
// sixteen. The sum of squares: sixteen chains (lane i sums i, i + 16, ...), then a tree.
template <class A>
void rms_norm(const float* x, const float* weight, std::int64_t width, float epsilon, float* out) {
  auto squares = A::set(0.0f);
  for (std::int64_t i = 0; i < width; i += 16) {
    const auto v = A::load(x + i);
    squares = A::fma(v, v, squares);
  }
  const float mean = A::sum(squares) / static_cast<float>(width);
  const auto scale = A::set(1.0f / A::sqrt1(mean + epsilon));
  for (std::int64_t i = 0; i < width; i += 16)
    A::store(out + i, A::mul(A::mul(A::load(x + i), scale), A::load(weight + i)));
}

// out = (x - mean) / sqrt(variance + epsilon) * weight + bias, the variance about the mean. Sums as in
// rms_norm; bias may be null.
template <class A>
void layer_norm(const float* x, const float* weight, const float* bias, std::int64_t width, float epsilon,
                float* out) {
  auto total = A::set(0.0f);
  for (std::int64_t i = 0; i < width; i += 16) total = A::add(total, A::load(x + i));
  const auto count = static_cast<float>(width);
  const auto mean = A::set(A::sum(total) / count);
  alignas(64) float centred[16];
  auto squares = A::set(0.0f);
  for (std::int64_t i = 0; i < width; i += 16) {
    A::store(centred, A::sub(A::load(x + i), mean));
    for (std::int64_t past = width - i; past < 16; ++past)
      centred[past] = 0;  // zeros beyond the width stay zeros
    const auto v = A::load(centred);
    squares = A::fma(v, v, squares);
  }
  const auto scale = A::set(1.0f / A::sqrt1(A::sum(squares) / count + epsilon));
  for (std::int64_t i = 0; i < width; i += 16) {
    const auto y = A::mul(A::mul(A::sub(A::load(x + i), mean), scale), A::load(weight + i));
    A::store(out + i, bias ? A::add(y, A::load(bias + i)) : y);
  }
}

template <class A>
void norm_row(const float* x, const Norm& norm, std::int64_t width, float* out) {
  if (norm.kind == NormKind::rms) return rms_norm<A>(x, norm.weight, width, norm.epsilon, out);
  layer_norm<A>(x, norm.weight, norm.bias, width, norm.epsilon, out);
}

}  // namespace nib::inline v0::cpu
