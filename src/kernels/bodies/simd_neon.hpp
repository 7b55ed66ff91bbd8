// The verbs on AArch64's vectors (ASIMD) and byte dots: sixteen floats are four registers of thirty-two.
// Included by files compiled for it only.
//
// The pair dot of canonical arithmetic is two fused multiply-adds. BFDOT is not it: before Armv9.2 it adds
// both products first and rounds to odd.
#pragma once

#include <nibble/kernels/canonical.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <arm_neon.h>

namespace nib::inline v0::cpu {

struct Neon {
  using V = float32x4_t;
  using U = uint32x4_t;
  struct F {
    V a, b, c, d;
  };
  struct P {
    U a, b, c, d;
  };
  static constexpr bool kPairDot = false;
  static constexpr int kBlockRows = 6;  // 24 accumulators of 32 registers
  static constexpr int kDirectRows = 4;
  static constexpr int kDirectStrips = 4;  // 16 accumulators
  static constexpr int kChains = 2;        // of four each, beside 16 registers of codes
  static constexpr int kHeadBlock = 4;     // query heads that share a pass over keys and values
  static constexpr int kHeadSums = 4;      // their vectors of sums

  static F set(float x) {
    const V v = vdupq_n_f32(x);
    return {v, v, v, v};
  }
  static F load(const float* from) {
    return {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
  }
  static void store(float* to, F x) {
    vst1q_f32(to, x.a);
    vst1q_f32(to + 4, x.b);
    vst1q_f32(to + 8, x.c);
    vst1q_f32(to + 12, x.d);
  }
  static F add(F x, F y) {
    return each(x, y, [](V p, V q) { return vaddq_f32(p, q); });
  }
  static F sub(F x, F y) {
    return each(x, y, [](V p, V q) { return vsubq_f32(p, q); });
  }
  static F mul(F x, F y) {
    return each(x, y, [](V p, V q) { return vmulq_f32(p, q); });
  }
  static F div(F x, F y) {
    return each(x, y, [](V p, V q) { return vdivq_f32(p, q); });
  }
  // The second where one is NaN, which the instructions for it would give.
  static F max(F x, F y) { return each(x, y, larger); }
  static F min(F x, F y) {
    return each(x, y, [](V p, V q) { return vbslq_f32(vcltq_f32(p, q), p, q); });
  }
  static F fma(F x, F y, F z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
            vfmaq_f32(z.d, x.d, y.d)};
  }
  static F if_less(F x, F y, F yes, F no) {
    return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
            vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
  }
  static float sqrt1(float x) { return std::sqrt(x); }

  static F scale(F p, F n) {
    return each(p, n, [](V x, V by) { return floats(vaddq_u32(bits(x), vshlq_n_u32(bits(by), 23))); });
  }
  static F round_bf16(F x) { return each(x, round4); }

  static float sum(F x) {
    const V four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  static float largest(F x) {
    const V four = larger(larger(x.a, x.c), larger(x.b, x.d));
    const V two = larger(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(larger(two, vextq_f32(two, two, 1)), 0);
  }

  static P load_pairs(const void* from) {
    const auto* words = static_cast<const std::uint32_t*>(from);
    return {vld1q_u32(words), vld1q_u32(words + 4), vld1q_u32(words + 8), vld1q_u32(words + 12)};
  }
  static F even(P p) {
    return each_float(p, [](U x) { return floats(vshlq_n_u32(x, 16)); });
  }
  static F odd(P p) {
    return each_float(p, [](U x) { return floats(vandq_u32(x, vdupq_n_u32(0xffff'0000u))); });
  }
  static P keep(P p, std::uint32_t mask) {
    return each(p, [=](U x) { return vandq_u32(x, vdupq_n_u32(mask)); });
  }
  static F load_f16(const void* from) {
    const auto* words = static_cast<const std::uint16_t*>(from);
    return halves(vld1q_u16(words), vld1q_u16(words + 8));
  }

  static P shifted_right(P p, int by) {
    return each(p, [=](U x) { return vshlq_u32(x, vdupq_n_s32(-by)); });
  }
  static P shifted_left(P p, int by) {
    return each(p, [=](U x) { return vshlq_u32(x, vdupq_n_s32(by)); });
  }
  static P joined(P x, P y) {
    return {vorrq_u32(x.a, y.a), vorrq_u32(x.b, y.b), vorrq_u32(x.c, y.c), vorrq_u32(x.d, y.d)};
  }
  static P bytes_less(P p, int n) {
    const uint8x16_t all = vdupq_n_u8(static_cast<std::uint8_t>(n));
    return each(p, [=](U x) { return vreinterpretq_u32_u8(vsubq_u8(vreinterpretq_u8_u32(x), all)); });
  }
  template <const std::int8_t (&levels)[16]>
  static P looked_up(P p) {
    const uint8x16_t table = vreinterpretq_u8_s8(vld1q_s8(levels));
    return each(p, [=](U x) { return picked(table, x); });
  }
  // The byte goes to the top of its dword, zeros below it (as of every index beyond the table).
  static F byte24(P p, int byte) {
    const U pick = byte_on_top(byte);
    return each_float(p, [=](U x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(picked(x, pick))); });
  }
  // A table for each byte of the levels: what it has for the nibbles of four dwords is looked up at once;
  // then bytes and halves are zipped to the floats of the one nibble that is meant. The compiler sees that
  // the others of these dwords share all but the last step.
  template <const float (&levels)[16]>
  static F table(P raw, int nibble) {
    const uint8x16x4_t planes = vld4q_u8(reinterpret_cast<const std::uint8_t*>(levels));
    const P codes = nibbles(raw, nibble % 2);
    return each_float(codes, [&](U x) { return floats(float_of(planes, x, nibble / 2)); });
  }
  static F load_i8(const void* from) {
    const int8x16_t bytes = vld1q_s8(static_cast<const std::int8_t*>(from));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
  }
  // As words of f16, 2^-8 times as large: simd_bytes.hpp says how.
  static F load_e4m3(const void* from) {
    const int8x16_t bytes = vld1q_s8(static_cast<const std::int8_t*>(from));
    return mul(halves(f16_of_e4m3(vmovl_s8(vget_low_s8(bytes))), f16_of_e4m3(vmovl_high_s8(bytes))),
               set(256.0f));
  }
  // E5M2 is the upper byte of an f16.
  static F load_e5m2(const void* from) {
    const uint8x16_t bytes = vld1q_u8(static_cast<const std::uint8_t*>(from));
    return halves(vshll_n_u8(vget_low_u8(bytes), 8), vshll_high_n_u8(bytes, 8));
  }

  // Twice the level from a table of bytes, for every second code of a dword at once; then the byte as a
  // number with 25 bits behind the point.
  static F e2m1(P raw, int nibble) {
    const int8x16_t twice = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const U pick = byte_on_top(nibble / 2);
    return each_float(nibbles(raw, nibble % 2), [=](U x) {
      const U levels = picked(vreinterpretq_u8_s8(twice), x);
      return vcvtq_n_f32_s32(vreinterpretq_s32_u32(picked(levels, pick)), 25);
    });
  }
  static F e8m0(const void* from) { return e8m0_bytes(vld1q_u8(static_cast<const std::uint8_t*>(from))); }
  // The first scales over the second ones; their bytes are at most 127 apart.
  static F e8m0_ratio(const void* over, const void* under) {
    const uint8x16_t x = vld1q_u8(static_cast<const std::uint8_t*>(over)),
                     y = vld1q_u8(static_cast<const std::uint8_t*>(under));
    return e8m0_bytes(vaddq_u8(vsubq_u8(x, y), vdupq_n_u8(127)));
  }
  // Whether all of `count` (a multiple of 8) numbers are zero or of a magnitude in [least, most].
  static bool all_within(const float* x, std::int64_t count, float least, float most) {
    // As integers magnitudes are in order, NaNs behind the infinity; zero less one is the greatest of all.
    U lowest = vdupq_n_u32(UINT32_MAX), highest = vdupq_n_u32(0);
    for (std::int64_t i = 0; i < count; i += 4) {
      const U size = vandq_u32(bits(vld1q_f32(x + i)), vdupq_n_u32(INT32_MAX));
      highest = vmaxq_u32(highest, size);
      lowest = vminq_u32(lowest, vsubq_u32(size, vdupq_n_u32(1)));
    }
    return vmaxvq_u32(highest) <= std::bit_cast<std::uint32_t>(most) &&
           vminvq_u32(lowest) >= std::bit_cast<std::uint32_t>(least) - 1;
  }

  // Sums of products of bytes, exact: four inputs of sixteen outputs at a time. Inputs come as q + 128, and
  // the dot takes signed bytes: with the upper bit turned they are q.
  struct ByteSums {
    static constexpr bool kCodesAddUp = false;
    static constexpr bool kSignedInputs = true;
    static constexpr int kTogether = 6;  // rows: 24 sums of 32 registers
    using Codes = P;
    P sums;
    static Codes codes(P bytes) { return bytes; }
    static ByteSums zero() {
      return {each(P(), [](U) { return vdupq_n_u32(0); })};
    }
    void add(std::uint32_t x, const Codes& w) {
      const int8x16_t four = vreinterpretq_s8_u32(vdupq_n_u32(x ^ 0x8080'8080u));
      sums = {dot(sums.a, four, w.a), dot(sums.b, four, w.b), dot(sums.c, four, w.c), dot(sums.d, four, w.d)};
    }
    ByteSums less(const ByteSums& other) const {
      return {{vsubq_u32(sums.a, other.sums.a), vsubq_u32(sums.b, other.sums.b),
               vsubq_u32(sums.c, other.sums.c), vsubq_u32(sums.d, other.sums.d)}};
    }
    F value() const {
      return each_float(sums, [](U x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x)); });
    }

   private:
    static U dot(U sum, int8x16_t four, U w) {
      return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sum), vreinterpretq_s8_u32(w), four));
    }
  };
  using NarrowSums = ByteSums;
  using WideSums = ByteSums;
  static constexpr int kByteRows = 6;
  static constexpr int kByteStrips = 1;
  static constexpr int kGroupRows = 6;  // of a sum each, in 24 of 32 registers; chains lie in memory
  static constexpr int kGroupStrips = 1;

  struct Exact;
  // Whether some result of `work` was flushed to zero: the processor remembers it. All that is computed is to
  // end up in memory, which keeps compilers from moving it across.
  template <class Work>
  [[gnu::always_inline]] static bool flushes(Work&& work) {
    asm volatile("msr fpsr, xzr" ::: "memory");
    work();
    std::uint64_t flags;
    asm volatile("mrs %0, fpsr" : "=r"(flags)::"memory");
    return (flags & 1u << 3) != 0;
  }

 private:
  static U bits(V x) { return vreinterpretq_u32_f32(x); }
  static V floats(U x) { return vreinterpretq_f32_u32(x); }
  template <class Op>
  static F each(F x, Op op) {
    return {op(x.a), op(x.b), op(x.c), op(x.d)};
  }
  template <class Op>
  static F each(F x, F y, Op op) {
    return {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)};
  }
  template <class Op>
  static P each(P x, Op op) {
    return {op(x.a), op(x.b), op(x.c), op(x.d)};
  }
  template <class Op>
  static F each_float(P x, Op op) {
    return {op(x.a), op(x.b), op(x.c), op(x.d)};
  }
  static V larger(V x, V y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
  static V round4(V x) {
    const U even_bit = vandq_u32(vshrq_n_u32(bits(x), 16), vdupq_n_u32(1));
    const U rounded = vaddq_u32(bits(x), vaddq_u32(even_bit, vdupq_n_u32(0x7fff)));
    const U quiet = vorrq_u32(bits(x), vdupq_n_u32(0x0040'0000));
    return floats(vandq_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), vdupq_n_u32(0xffff'0000u)));
  }

  // table[byte] of each byte of `index`; 0 where it is beyond sixteen.
  static U picked(uint8x16_t table, U index) {
    return vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(index)));
  }
  static U picked(U bytes, U index) { return picked(vreinterpretq_u8_u32(bytes), index); }
  // Indices that bring byte `byte` of each dword to its top.
  static U byte_on_top(int byte) {
    const U first = {0x00ff'ffffu, 0x04ff'ffffu, 0x08ff'ffffu, 0x0cff'ffffu};
    return vaddq_u32(first, vdupq_n_u32(static_cast<std::uint32_t>(byte) << 24));
  }
  // The lower nibble of each byte, or the upper one.
  static P nibbles(P raw, bool upper) {
    return each(raw, [=](U x) {
      const uint8x16_t bytes = vreinterpretq_u8_u32(x);
      return vreinterpretq_u32_u8(upper ? vshrq_n_u8(bytes, 4) : vandq_u8(bytes, vdupq_n_u8(15)));
    });
  }
  // The dwords of which planes have a byte each for the codes in byte `byte` of each dword.
  static U float_of(const uint8x16x4_t& planes, U codes, int byte) {
    const auto plane = [&](int i) { return vqtbl1q_u8(planes.val[i], vreinterpretq_u8_u32(codes)); };
    const bool odd = byte % 2, above = byte / 2;
    const auto zip = [&](uint8x16_t x, uint8x16_t y) {
      return vreinterpretq_u16_u8(odd ? vtrn2q_u8(x, y) : vtrn1q_u8(x, y));
    };
    const uint16x8_t low = zip(plane(0), plane(1)), high = zip(plane(2), plane(3));
    return vreinterpretq_u32_u16(above ? vtrn2q_u16(low, high) : vtrn1q_u16(low, high));
  }

  static F halves(uint16x8_t low, uint16x8_t high) {
    const float16x8_t x = vreinterpretq_f16_u16(low), y = vreinterpretq_f16_u16(high);
    return {vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x), vcvt_f32_f16(vget_low_f16(y)),
            vcvt_high_f32_f16(y)};
  }
  static uint16x8_t f16_of_e4m3(int16x8_t bytes) {
    const uint16x8_t words = vreinterpretq_u16_s16(bytes);
    const uint16x8_t magnitude = vandq_u16(vshlq_n_u16(words, 7), vdupq_n_u16(0x3f80));
    const uint16x8_t carry = vandq_u16(vaddq_u16(magnitude, vdupq_n_u16(0x0080)), vdupq_n_u16(0x4000));
    return vorrq_u16(vaddq_u16(magnitude, carry), vandq_u16(words, vdupq_n_u16(0x8000)));
  }
  static F e8m0_bytes(uint8x16_t bytes) {
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    const auto power = [](U x) { return floats(vshlq_n_u32(x, 23)); };
    return {power(vmovl_u16(vget_low_u16(low))), power(vmovl_high_u16(low)),
            power(vmovl_u16(vget_low_u16(high))), power(vmovl_high_u16(high))};
  }
};

// The verbs that round, each with a look at its result: a zero that no operand explains is one that was
// flushed, rightly or not.
struct Neon::Exact : Neon {
  static constexpr int kDirectStrips = 0;
  static F mul(F x, F y) {
    const F product = Neon::mul(x, y);
    if (!lost(product, x, y)) [[likely]]
      return product;
    return lanes(x, y, x, [](float a, float b, float) { return mul_canonical(a, b); });
  }
  [[gnu::noinline]] static F fma(F x, F y, F z) {
    const F sum = Neon::fma(x, y, z);
    if (!lost(sum, x, y)) [[likely]]
      return sum;
    return lanes(x, y, z, [](float a, float b, float c) { return fma_canonical(a, b, c); });
  }

 private:
  static bool lost(F result, F x, F y) {
    const auto four = [](V r, V p, V q) {
      return vbicq_u32(vceqzq_f32(r), vorrq_u32(vceqzq_f32(p), vceqzq_f32(q)));
    };
    const U any = vorrq_u32(vorrq_u32(four(result.a, x.a, y.a), four(result.b, x.b, y.b)),
                            vorrq_u32(four(result.c, x.c, y.c), four(result.d, x.d, y.d)));
    return vmaxvq_u32(any) != 0;
  }
  template <class Op>
  [[gnu::noinline]] static F lanes(F x, F y, F z, Op op) {
    float a[16], b[16], c[16];
    store(a, x);
    store(b, y);
    store(c, z);
    for (int i = 0; i < 16; ++i) a[i] = op(a[i], b[i], c[i]);
    return load(a);
  }
};

}  // namespace nib::inline v0::cpu
