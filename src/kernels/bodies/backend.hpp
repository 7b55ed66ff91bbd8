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
    kernel<F16Floats, A, FloatSteps>(), kernel<F32Floats, A, FloatSteps>()};

template <class A>
inline constexpr MatmulKernel kPairKernels[] = {
    kernel<Mxfp4Pairs, A, PairSteps>(),   kernel<Bf16Pairs, A, PairSteps>(),
    kernel<Mxfp4Floats, A, FloatSteps>(), kernel<Bf16Floats, A, FloatSteps>(),
    kernel<F16Floats, A, FloatSteps>(),   kernel<F32Floats, A, FloatSteps>()};

// Independent multiply-adds from registers: the peak that prefill is judged by. Eight chains cover the
// latency.
template <class A>
double spin_dots(Numerics numerics, std::int64_t iterations) {
  constexpr int kChains = A::kPairDot ? 12 : 5;  // vectors in registers beside the two operands
  typename A::F acc[kChains];
  for (auto& a : acc) a = A::set(0.0f);
  double flops = 0;
  if constexpr (A::kPairDot) {
    if (numerics == Numerics::bf16) {
      const std::uint32_t ones[16] = {};
      const auto w = A::load_pairs(ones);
      for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (auto& a : acc) a = A::dot(a, w, 0x3f803f80u);
      }
      flops = 4.0 * 16 * kChains * static_cast<double>(iterations);
    }
  }
  if (flops == 0) {
    const auto x = A::set(1.0f), w = A::set(0.0f);
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
      for (auto& a : acc) {
        a = A::fma(w, x, a);
        asm volatile("" : "+m"(flops));  // keeps the loop: the compiler may not see that nothing changes
      }
    }
    flops = 2.0 * 16 * kChains * static_cast<double>(iterations);
  }
  float lanes[16];
  for (auto& a : acc) {
    A::store(lanes, a);
    flops += lanes[0];  // always zero, but the compiler cannot know
  }
  return flops;
}

template <class A>
constexpr Backend backend(const char* name, bool (*present)(const CpuFeatures&), const char* needs) {
  if constexpr (A::kPairDot)
    return {name, present, needs, kPairKernels<A>, ops<A>(), spin_dots<A>};
  else
    return {name, present, needs, kFloatKernels<A>, ops<A>(), spin_dots<A>};
}

}  // namespace nib::inline v0::cpu
