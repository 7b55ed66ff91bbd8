// What sampling asks of the logits of a vocabulary, in blocks, so that most of them are looked at once.
#pragma once

#include "math.hpp"
#include <nibble/kernels/backend.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cpu {

// visit(vector, index of its first) for the sixteens of a block; what lies beyond the last logit, and what is
// no finite number, is minus infinity.
template <class A, class Visit>
[[gnu::always_inline]] inline void each_sixteen(const float* logits, std::int64_t begin, std::int64_t end,
                                                Visit&& visit) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto infinity = A::set(kInfinity), none = A::set(-kInfinity);
  for (std::int64_t i = begin; i < end; i += 16) {
    auto v = none;
    if (end - i >= 16) {
      v = A::load(logits + i);
    } else {
      alignas(64) float lanes[16];
      A::store(lanes, none);
      for (std::int64_t rest = i; rest < end; ++rest) lanes[rest - i] = logits[rest];
      v = A::load(lanes);
    }
    visit(A::if_less(v, infinity, v, none), i);
  }
}

template <class A>
void block_maxima(const float* logits, std::int64_t count, float* maxima) {
  for (std::int64_t begin = 0; begin < count; begin += kLogitBlock) {
    auto most = A::set(-std::numeric_limits<float>::infinity());
    each_sixteen<A>(logits, begin, std::min(begin + kLogitBlock, count),
                    [&](typename A::F v, std::int64_t) { most = A::max(v, most); });
    *maxima++ = A::largest(most);
  }
}

template <class A>
void block_weights(const float* logits, std::int64_t count, const LogitScale& scale, float* weights,
                   float* sums) {
  const auto largest = A::set(scale.largest), inverse = A::set(scale.inverse_temperature),
             least = A::set(scale.least), zero = A::set(0.0f);
  for (std::int64_t begin = 0; begin < count; begin += kLogitBlock) {
    const std::int64_t end = std::min(begin + kLogitBlock, count);
    auto sum = zero;
    each_sixteen<A>(logits, begin, end, [&](typename A::F v, std::int64_t i) {
      const auto weight = A::if_less(v, least, zero, exp<A>(A::mul(A::sub(v, largest), inverse)));
      sum = A::add(sum, weight);
      if (end - i >= 16) return A::store(weights + i, weight);
      alignas(64) float lanes[16];
      A::store(lanes, weight);
      for (std::int64_t rest = i; rest < end; ++rest) weights[rest] = lanes[rest - i];
    });
    *sums++ = A::sum(sum);
  }
}

}  // namespace nib::inline v0::cpu
