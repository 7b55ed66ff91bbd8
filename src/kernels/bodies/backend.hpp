// The table of one instruction set, from its verbs.
#pragma once

#include "int8.hpp"
#include "layer.hpp"
#include "matmul.hpp"
#include <nibble/kernels/backend.hpp>

#include <algorithm>
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

// Independent chains of steps: the peak that prefill is judged by. Enough chains to cover the latency, few
// enough to stay in registers.
template <class A>
inline constexpr int kSpinChains = A::kPairDot ? 12 : 6;
template <class A, class Sum, class Step>
[[gnu::always_inline]] inline void spin(Sum (&sums)[kSpinChains<A>], std::int64_t iterations, Step&& step) {
  Sum chains[kSpinChains<A>];
  std::copy_n(sums, kSpinChains<A>, chains);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (auto& chain : chains) chain = step(chain);
  }
  std::copy_n(chains, kSpinChains<A>, sums);
}

// The operands are opaque to the compiler, the sums stay zero.
template <class A>
double spin_dots(Numerics numerics, std::int64_t iterations) {
  volatile float opaque_zero = 0.0f;
  const auto zero = A::set(opaque_zero), one = A::set(opaque_zero + 1.0f);
  alignas(64) float lanes[16];
  A::store(lanes, zero);
  typename A::F acc[kSpinChains<A>];
  for (auto& a : acc) a = zero;
  double products = 1;  // of a step and an output
  if (numerics == Numerics::int8) {
    using Sums = typename A::NarrowSums;
    Sums sums[kSpinChains<A>];
    for (auto& sum : sums) sum = Sums::zero();
    spin<A>(sums, iterations, [&](Sums sum) {
      asm volatile("" : "+m"(lanes));  // else one product would serve all chains
      sum.add(kFourOffsets, A::load_pairs(lanes));
      return sum;
    });
    std::transform(sums, sums + kSpinChains<A>, acc, [](const Sums& sum) { return sum.value(); });
    products = 4;
  } else if constexpr (A::kPairDot) {
    const auto pairs = A::load_pairs(lanes);
    if (numerics == Numerics::bf16) {
      spin<A>(acc, iterations, [&](auto a) { return A::dot(a, pairs, 0x3f803f80u); });
      products = 2;
    } else {
      spin<A>(acc, iterations, [&](auto a) { return A::fma(zero, one, a); });
    }
  } else {
    spin<A>(acc, iterations, [&](auto a) { return A::fma(zero, one, a); });
  }
  double flops = 2 * products * 16 * kSpinChains<A> * static_cast<double>(iterations);
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
