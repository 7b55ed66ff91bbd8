// The verbs on any processor: sixteen floats in an array. The fma is exact without an instruction for it.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/small_floats.hpp>
#include <nibble/kernels/canonical.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace nib::inline v0::cpu {

struct Scalar {
  struct F {
    float v[16];
  };
  struct P {
    std::uint32_t v[16];
  };
  static constexpr bool kPairDot = false;
  static constexpr int kBlockRows = 4;  // rows of activations in one register block
  static constexpr int kDirectRows = 4;
  static constexpr int kChains = 1;
  static constexpr int kDirectStrips = 0;  // no direct kernel: the panel costs nothing beside such an fma
  static constexpr int kHeadBlock = 1;     // sharing keys and values saves nothing beside such an fma
  static constexpr int kHeadSums = 1;

  template <class Op>
  static F map(Op op) {
    F out;
    for (int i = 0; i < 16; ++i) out.v[i] = op(i);
    return out;
  }

  static F set(float x) {
    return map([&](int) { return x; });
  }
  static F load(const float* from) {
    F out;
    std::memcpy(out.v, from, sizeof out.v);
    return out;
  }
  static void store(float* to, F x) { std::memcpy(to, x.v, sizeof x.v); }
  static F add(F a, F b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(F a, F b) {
    return map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(F a, F b) {
    return map([&](int i) { return mul_canonical(a.v[i], b.v[i]); });
  }
  static F div(F a, F b) {
    return map([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F max(F a, F b) {
    return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F min(F a, F b) {
    return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  [[gnu::noinline]] static F fma(F a, F b, F c) {
    return map([&](int i) { return fma1(a.v[i], b.v[i], c.v[i]); });
  }
  static F if_less(F a, F b, F yes, F no) {
    return map([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
  }
  static float sqrt1(float x) { return std::sqrt(x); }

  // p * 2^n where n stands in the low bits of a float 1.5 * 2^23 + n.
  static F scale(F p, F n) {
    return map([&](int i) {
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p.v[i]) +
                                  (std::bit_cast<std::uint32_t>(n.v[i]) << 23));
    });
  }
  static F round_bf16(F x) {
    return map([&](int i) { return to_float(to_bf16(x.v[i])); });
  }

  static float sum(F x) {
    return tree(x, [](float a, float b) { return a + b; });
  }
  static float largest(F x) {
    return tree(x, [](float a, float b) { return a > b ? a : b; });
  }

  static P load_pairs(const void* from) {
    P out;
    std::memcpy(out.v, from, sizeof out.v);
    return out;
  }
  static F even(P p) {
    return map([&](int i) { return std::bit_cast<float>(p.v[i] << 16); });
  }
  static F odd(P p) {
    return map([&](int i) { return std::bit_cast<float>(p.v[i] & 0xffff'0000u); });
  }
  static P keep(P p, std::uint32_t mask) {
    for (auto& word : p.v) word &= mask;
    return p;
  }
  static F load_f16(const void* from) {
    f16 values[16];
    std::memcpy(values, from, sizeof values);
    return map([&](int i) { return to_float(values[i]); });
  }

  static P shifted_right(P p, int bits) {
    for (auto& word : p.v) word >>= bits;
    return p;
  }
  static P shifted_left(P p, int bits) {
    for (auto& word : p.v) word <<= bits;
    return p;
  }
  static P joined(P a, P b) {
    for (int i = 0; i < 16; ++i) a.v[i] |= b.v[i];
    return a;
  }
  // Each byte less `n`, modulo 256.
  static P bytes_less(P p, int n) {
    return each_byte(p, [&](std::uint32_t byte) { return byte - static_cast<std::uint32_t>(n); });
  }
  // levels[byte] of each byte, which is below sixteen.
  template <const std::int8_t (&levels)[16]>
  static P looked_up(P p) {
    return each_byte(p, [&](std::uint32_t byte) { return static_cast<std::uint32_t>(levels[byte & 15u]); });
  }
  // Byte `byte` of each dword in two's complement, times 2^24.
  static F byte24(P p, int byte) {
    return map([&](int i) {
      return static_cast<float>(static_cast<std::int32_t>(p.v[i] << (24 - 8 * byte) & 0xff00'0000u));
    });
  }
  // levels[code `nibble`] of each dword.
  template <const float (&levels)[16]>
  static F table(P raw, int nibble) {
    return map([&](int i) { return levels[(raw.v[i] >> (4 * nibble)) & 15u]; });
  }
  // Sixteen bytes that are integers, E4M3 or E5M2.
  static F load_i8(const void* from) {
    std::int8_t bytes[16];
    std::memcpy(bytes, from, sizeof bytes);
    return map([&](int i) { return static_cast<float>(bytes[i]); });
  }
  static F load_e4m3(const void* from) { return load_decoded<E4M3>(from); }
  static F load_e5m2(const void* from) { return load_decoded<E5M2>(from); }

  // The E2M1 value of code `nibble` of each dword, without its scale.
  static F e2m1(P raw, int nibble) {
    constexpr float kLevels[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};
    return map([&](int i) { return kLevels[(raw.v[i] >> (4 * nibble)) & 15u]; });
  }
  // 2^(e - 127) of sixteen scale bytes; e = 0 gives 0, as a flushed subnormal would.
  static F e8m0(const void* from) {
    std::uint8_t bytes[16];
    std::memcpy(bytes, from, sizeof bytes);
    return map([&](int i) { return std::bit_cast<float>(static_cast<std::uint32_t>(bytes[i]) << 23); });
  }

  // Sums of products of unsigned and signed bytes, exact: four inputs of sixteen outputs at a time.
  struct ByteSums {
    static constexpr bool kCodesAddUp = false;
    static constexpr int kTogether = 4;
    using Codes = P;
    P sums;
    static Codes codes(P bytes) { return bytes; }
    static ByteSums zero() { return {}; }
    void add(std::uint32_t x, const Codes& w) {
      for (int i = 0; i < 16; ++i) {
        int sum = 0;
        for (int byte = 0; byte < 32; byte += 8)
          sum += static_cast<int>(x >> byte & 0xffu) * static_cast<std::int8_t>(w.v[i] >> byte & 0xffu);
        sums.v[i] += static_cast<std::uint32_t>(sum);
      }
    }
    ByteSums less(ByteSums other) const {
      for (int i = 0; i < 16; ++i) other.sums.v[i] = sums.v[i] - other.sums.v[i];
      return other;
    }
    F value() const {
      return map([&](int i) { return static_cast<float>(static_cast<std::int32_t>(sums.v[i])); });
    }
  };
  using NarrowSums = ByteSums;  // a CPU that adds in 16 bits has two kinds (simd_avx2.hpp)
  using WideSums = ByteSums;
  static constexpr int kByteRows = 4;
  static constexpr int kByteStrips = 1;
  static constexpr int kGroupRows = 4;  // as in a block
  static constexpr int kGroupStrips = 1;

 private:
  // Under FloatScope conversions flush subnormals themselves. A double sum that is no midpoint of two floats
  // rounds correctly; the others take the exact road.
  static float fma1(float a, float b, float c) {
    const double sum = static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c);
    if ((std::bit_cast<std::uint64_t>(sum) & 0x1fff'ffffu) == 0x1000'0000u) [[unlikely]]
      return fma_canonical(a, b, c);
    const auto rounded = static_cast<float>(sum);
    if constexpr (kFlushesBeforeRounding)
      if (rounded == 0 && sum != 0) [[unlikely]]
        return fma_canonical(a, b, c);
    return rounded;
  }
  template <class Op>
  static P each_byte(P p, Op op) {
    for (auto& word : p.v) {
      std::uint32_t out = 0;
      for (int byte = 0; byte < 4; ++byte) out |= (op(word >> (8 * byte) & 0xffu) & 0xffu) << (8 * byte);
      word = out;
    }
    return p;
  }
  template <class Element>
  static F load_decoded(const void* from) {
    std::uint8_t bytes[16];
    std::memcpy(bytes, from, sizeof bytes);
    return map([&](int i) { return Element::decode(bytes[i]); });
  }
  template <class Op>
  static float tree(F x, Op op) {
    for (int half = 8; half >= 1; half /= 2)
      for (int i = 0; i < half; ++i) x.v[i] = op(x.v[i], x.v[i + half]);
    return x.v[0];
  }
};

}  // namespace nib::inline v0::cpu
