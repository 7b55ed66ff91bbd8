// The table of one instruction set, from its verbs.
#pragma once

#include "int8.hpp"
#include "layer.hpp"
#include "matmul.hpp"
#include <nibble/kernels/backend.hpp>

#include <cstdint>

namespace nib::inline v0::cpu {

// The kernels of an instruction set, in order of preference: D of its own, then those that all have.
template <class A, class... D>
struct Kernels {
  template <class... Made>
  struct With {
    template <class... Bytes>
    struct And {
      static constexpr MatmulKernel list[] = {
          int8_kernel<Bytes>()..., kernel<D>()...,         kernel<Mxfp4Floats<A>>(), kernel<Bf16Floats<A>>(),
          kernel<F16Floats<A>>(),  kernel<F32Floats<A>>(), kernel<Made>()...,        record_kernel<A>()};
    };
  };
  static constexpr std::span<const MatmulKernel> all =
      Int8Formats<A, ScaledFormats<A, With>::template And>::list;
};

// Steps of independent chains from registers: the peak that prefill is judged by. Enough chains to cover the
// latency, few enough to stay in registers.
template <class A, class Acc, class Step>
void spin(Acc& chains, std::int64_t iterations, Step&& step) {
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (auto& chain : chains) step(chain);
  }
}

// The operands are opaque to the compiler, the sums stay zero.
template <class A>
double spin_dots(Numerics numerics, std::int64_t iterations) {
  constexpr int kChains = A::kPairDot ? 12 : 6;
  volatile float opaque_zero = 0.0f;
  const auto zero = A::set(opaque_zero), one = A::set(opaque_zero + 1.0f);
  float lanes[16];
  A::store(lanes, zero);
  const auto bytes = A::load_pairs(lanes);
  const double chains = 16.0 * kChains * static_cast<double>(iterations);  // outputs that a step adds to
  typename A::F acc[kChains];
  for (auto& a : acc) a = zero;
  double flops = 2 * chains;  // of a product each
  if (numerics == Numerics::int8) {
    typename A::NarrowSums sums[kChains];
    for (auto& sum : sums) sum = A::NarrowSums::zero();
    spin<A>(sums, iterations, [&](auto& sum) { sum.add(kFourOffsets, bytes); });
    for (int i = 0; i < kChains; ++i) acc[i] = sums[i].value();
    flops *= 4;
  } else if constexpr (A::kPairDot) {
    if (numerics == Numerics::bf16) {
      spin<A>(acc, iterations, [&](auto& a) { a = A::dot(a, bytes, 0x3f803f80u); });
      flops *= 2;
    } else {
      spin<A>(acc, iterations, [&](auto& a) { a = A::fma(zero, one, a); });
    }
  } else {
    spin<A>(acc, iterations, [&](auto& a) { a = A::fma(zero, one, a); });
  }
  for (const auto& a : acc) flops += static_cast<double>(A::sum(a));
  return flops;
}

template <class A>
constexpr Backend backend(const char* name, bool (*present)(const CpuFeatures&), const char* needs) {
  if constexpr (A::kPairDot)
    return {name,     present,     needs, Kernels<A, Mxfp4RescaledPairs<A>, Mxfp4Pairs<A>, Bf16Pairs<A>>::all,
            ops<A>(), spin_dots<A>};
  else if constexpr (requires { typename A::Offsets; })
    return {name, present, needs, Kernels<A, Mxfp4Rescaled<A>, Mxfp4Offsets<A>>::all, ops<A>(), spin_dots<A>};
  else
    return {name, present, needs, Kernels<A>::all, ops<A>(), spin_dots<A>};
}

}  // namespace nib::inline v0::cpu
