// The table of one instruction set, from its verbs.
#pragma once

#include "exact.hpp"
#include "int8.hpp"
#include "layer.hpp"
#include "matmul.hpp"
#include "sums.hpp"
#include "vocabulary.hpp"
#include <nibble/kernels/backend.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace nib::inline v0::cpu {

template <class... D>
struct TileKernels {
  static constexpr std::array list = {kernel<D>()...};
};
template <class... D>
struct GroupKernels {
  static constexpr std::array list = {group_kernel<D>()...};
};
template <std::size_t... N>
constexpr auto joined(const std::array<MatmulKernel, N>&... lists) {
  std::array<MatmulKernel, (N + ...)> all{};
  auto* to = all.data();
  ((to = std::copy(lists.begin(), lists.end(), to)), ...);
  return all;
}

// The kernels of an instruction set, in order of preference: D of its own before those that all have.
template <class A, class... D>
struct Kernels {
  static constexpr auto list =
      joined(Int8Formats<A, GroupKernels>::list, SumFormats<A, GroupKernels>::list,
             TileKernels<D..., Mxfp4Floats<A>, Bf16Floats<A>, F16Floats<A>, F32Floats<A>>::list,
             ScaledFormats<A, TileKernels>::list, std::array{record_kernel<A>()});
  static constexpr std::span<const MatmulKernel> all = list;
};

// The same, each exactly (exact.hpp).
template <class A, class... D>
struct ExactKernels {
  static constexpr std::span<const MatmulKernel> fast = Kernels<A, D...>::all,
                                                 exact = Kernels<ExactOf<A>>::all;

  // The exact kernel for the same weights and inputs.
  static constexpr const MatmulKernel& twin(const MatmulKernel& kernel) {
    return *std::find_if(exact.begin(), exact.end(), [&](const MatmulKernel& other) {
      return other.weight == kernel.weight && other.x == kernel.x && other.block_rows == kernel.block_rows;
    });
  }
  template <std::size_t I>
  static void run(const MatmulCall& call) {
    constexpr MatmulKernel kFast = fast[I], kExact = twin(kFast);
    if (A::flushes([&] { kFast.run(call); })) kExact.run(call);
  }
  template <std::size_t I>
  static constexpr MatmulKernel kernel() {
    MatmulKernel kernel = fast[I];
    kernel.run = run<I>;
    return kernel;
  }
  template <std::size_t... I>
  static constexpr auto all_of(std::index_sequence<I...>) {
    return std::array{kernel<I>()...};
  }
  static constexpr auto list = all_of(std::make_index_sequence<fast.size()>());
  static constexpr std::span<const MatmulKernel> all = list;
};

template <class A, class... D>
using KernelsOf = std::conditional_t<std::is_same_v<A, ExactOf<A>>, Kernels<A, D...>, ExactKernels<A, D...>>;

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
constexpr std::span<const MatmulKernel> kernels_of() {
  if constexpr (A::kPairDot)
    return KernelsOf<A, Mxfp4RescaledPairs<A>, Mxfp4Pairs<A>, Bf16Pairs<A>>::all;
  else if constexpr (kHasOffsets<A>)
    return KernelsOf<A, Mxfp4Rescaled<A>, Mxfp4Offsets<A>>::all;
  else if constexpr (kHasRanges<A>)
    return KernelsOf<A, Mxfp4Rescaled<A>>::all;
  else
    return KernelsOf<A>::all;
}

template <class A>
constexpr Backend backend(const char* name, bool (*present)(const CpuFeatures&), const char* needs) {
  constexpr std::size_t kBytes = Int8Formats<A, GroupKernels>::list.size();  // they are first
  return {name,
          present,
          needs,
          kernels_of<A>().first(kBytes),
          kernels_of<A>().subspan(kBytes),
          ops<A>(),
          {block_maxima<A>, block_weights<A>},
          spin_dots<A>};
}

}  // namespace nib::inline v0::cpu
