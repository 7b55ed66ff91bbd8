// The table of one instruction set, from its verbs.
#pragma once

#include "layer.hpp"
#include "matmul.hpp"
#include <nibble/kernels/backend.hpp>

#include <cstdint>

namespace nib::inline v0::cpu {

template <class A>
inline constexpr MatmulKernel kFloatKernels[] = {
    kernel<Mxfp4Floats, A, FloatSteps>(), kernel<Bf16Floats, A, FloatSteps>(),
    kernel<F16Floats, A, FloatSteps>(), kernel<F32Floats, A, FloatSteps>(), record_kernel<A>()};

template <class A>
inline constexpr MatmulKernel kOffsetKernels[] = {
    kernel<Mxfp4Offsets, A, FloatSteps>(), kernel<Mxfp4Floats, A, FloatSteps>(),
    kernel<Bf16Floats, A, FloatSteps>(),   kernel<F16Floats, A, FloatSteps>(),
    kernel<F32Floats, A, FloatSteps>(),    record_kernel<A>()};

template <class A>
inline constexpr MatmulKernel kPairKernels[] = {kernel<Mxfp4Pairs, A, PairSteps>(),
                                                kernel<Bf16Pairs, A, PairSteps>(),
                                                kernel<Mxfp4Floats, A, FloatSteps>(),
                                                kernel<Bf16Floats, A, FloatSteps>(),
                                                kernel<F16Floats, A, FloatSteps>(),
                                                kernel<F32Floats, A, FloatSteps>(),
                                                record_kernel<A>()};

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
    return {name, present, needs, kPairKernels<A>, ops<A>(), spin_dots<A>};
  else if constexpr (requires { typename A::Offsets; })
    return {name, present, needs, kOffsetKernels<A>, ops<A>(), spin_dots<A>};
  else
    return {name, present, needs, kFloatKernels<A>, ops<A>(), spin_dots<A>};
}

}  // namespace nib::inline v0::cpu
