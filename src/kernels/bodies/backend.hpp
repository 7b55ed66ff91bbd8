// The table of one instruction set, from its verbs.
#pragma once

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
    static constexpr MatmulKernel list[] = {
        kernel<D>()...,         kernel<Mxfp4Floats<A>>(), kernel<Bf16Floats<A>>(), kernel<F16Floats<A>>(),
        kernel<F32Floats<A>>(), kernel<Made>()...,        record_kernel<A>()};
  };
  static constexpr std::span<const MatmulKernel> all = ScaledFormats<A, With>::list;
};

// Independent multiply-adds from registers: the peak that prefill is judged by. Enough chains to cover the
// latency, few enough to stay in registers. The operands are opaque to the compiler, the sums stay zero.
template <class A>
double spin_dots(Numerics numerics, std::int64_t iterations) {
  constexpr int kChains = A::kPairDot ? 12 : 6;
  volatile float opaque_zero = 0.0f;
  typename A::F acc[kChains];
  for (auto& a : acc) a = A::set(opaque_zero);
  const auto zero = A::set(opaque_zero), one = A::set(opaque_zero + 1.0f);
  double flops = 0;
  const auto spin = [&](double flops_each, auto&& step) {
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
      for (auto& a : acc) a = step(a);
    }
    flops = flops_each * 16 * kChains * static_cast<double>(iterations);
  };
  bool spun = false;
  if constexpr (A::kPairDot) {
    if (numerics == Numerics::bf16) {
      float lanes[16];
      A::store(lanes, zero);
      const auto weights = A::load_pairs(lanes);
      spin(4, [&](auto a) { return A::dot(a, weights, 0x3f803f80u); });
      spun = true;
    }
  }
  if (!spun) spin(2, [&](auto a) { return A::fma(zero, one, a); });
  for (const auto& a : acc) flops += static_cast<double>(A::sum(a));
  return flops;
}

template <class A>
constexpr Backend backend(const char* name, bool (*present)(const CpuFeatures&), const char* needs) {
  if constexpr (A::kPairDot)
    return {name, present, needs, Kernels<A, Mxfp4Pairs<A>, Bf16Pairs<A>>::all, ops<A>(), spin_dots<A>};
  else if constexpr (requires { typename A::Offsets; })
    return {name, present, needs, Kernels<A, Mxfp4Rescaled<A>, Mxfp4Offsets<A>>::all, ops<A>(), spin_dots<A>};
  else
    return {name, present, needs, Kernels<A>::all, ops<A>(), spin_dots<A>};
}

}  // namespace nib::inline v0::cpu
