// The verbs on AVX2, FMA and F16C: sixteen floats are two xsimd batches. Included by files compiled for it
// only.
#pragma once

#include "simd_bytes.hpp"

#include <cstdint>

#include <immintrin.h>
#include <xsimd/xsimd.hpp>

namespace nib::inline v0::cpu {

// Of AVX2, or of an instruction set that is more (simd_avxvnni.hpp): each has its own copy.
template <class Own>
struct Avx2Verbs {
  using B = xsimd::batch<float, xsimd::fma3<xsimd::avx2>>;
  struct F {
    B lo, hi;
  };
  struct P {
    __m256i lo, hi;
  };
  static constexpr bool kPairDot = false;
  static constexpr int kBlockRows = 6;  // 12 accumulators of 16 registers
  static constexpr int kDirectRows = 4;
  static constexpr int kDirectStrips = 4;  // 8 accumulators
  static constexpr int kChains = 2;        // of two each, beside 8 registers of codes
  static constexpr int kHeadBlock = 4;     // query heads that share a pass over keys and values
  static constexpr int kHeadSums = 4;      // their vectors of sums

  static F set(float x) { return {B(x), B(x)}; }
  static F load(const float* from) { return {B::load_unaligned(from), B::load_unaligned(from + 8)}; }
  static void store(float* to, F x) {
    x.lo.store_unaligned(to);
    x.hi.store_unaligned(to + 8);
  }
  static F add(F a, F b) { return {a.lo + b.lo, a.hi + b.hi}; }
  static F sub(F a, F b) { return {a.lo - b.lo, a.hi - b.hi}; }
  static F mul(F a, F b) { return {a.lo * b.lo, a.hi * b.hi}; }
  static F div(F a, F b) { return {a.lo / b.lo, a.hi / b.hi}; }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) { return {xsimd::fma(a.lo, b.lo, c.lo), xsimd::fma(a.hi, b.hi, c.hi)}; }
  static F if_less(F a, F b, F yes, F no) {
    return {xsimd::select(a.lo < b.lo, yes.lo, no.lo), xsimd::select(a.hi < b.hi, yes.hi, no.hi)};
  }
  static float sqrt1(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

  static F scale(F p, F n) { return {scale8(p.lo, n.lo), scale8(p.hi, n.hi)}; }
  static F round_bf16(F x) { return {round8(x.lo), round8(x.hi)}; }

  static float sum(F x) {
    const __m256 eight = x.lo + x.hi;
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
  static float largest(F x) {
    const __m256 eight = _mm256_max_ps(x.lo, x.hi);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
  }

  static P load_pairs(const void* from) {
    const auto* words = static_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  }
  static F even(P p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(p.lo, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(p.hi, 16))};
  }
  static F odd(P p) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(p.lo, mask)),
            _mm256_castsi256_ps(_mm256_and_si256(p.hi, mask))};
  }
  static P keep(P p, std::uint32_t mask) {
    const __m256i bits = _mm256_set1_epi32(static_cast<int>(mask));
    return {_mm256_and_si256(p.lo, bits), _mm256_and_si256(p.hi, bits)};
  }
  static F load_f16(const void* from) {
    const auto* halves = static_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }

  static P shifted_right(P p, int bits) {
    return {_mm256_srli_epi32(p.lo, bits), _mm256_srli_epi32(p.hi, bits)};
  }
  static P shifted_left(P p, int bits) {
    return {_mm256_slli_epi32(p.lo, bits), _mm256_slli_epi32(p.hi, bits)};
  }
  static P joined(P a, P b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  static P bytes_less(P p, int n) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(n));
    return {_mm256_sub_epi8(p.lo, all), _mm256_sub_epi8(p.hi, all)};
  }
  template <const std::int8_t (&levels)[16]>
  static P looked_up(P p) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    return {_mm256_shuffle_epi8(table, p.lo), _mm256_shuffle_epi8(table, p.hi)};
  }
  // The byte goes to the top of its dword, zeros below it: one shuffle, one conversion.
  static F byte24(P p, int byte) {
    const int from = 0x0080'8080 | byte << 24;
    const __m256i pick =
        _mm256_broadcastsi128_si256(_mm_setr_epi32(from, from | 4 << 24, from | 8 << 24, from | 12 << 24));
    return {_mm256_cvtepi32_ps(_mm256_shuffle_epi8(p.lo, pick)),
            _mm256_cvtepi32_ps(_mm256_shuffle_epi8(p.hi, pick))};
  }
  template <const float (&levels)[16]>
  static F table(P raw, int nibble) {
    const __m256 below = _mm256_loadu_ps(levels), above = _mm256_loadu_ps(levels + 8);
    return {table8(below, above, raw.lo, nibble), table8(below, above, raw.hi, nibble)};
  }
  static F load_i8(const void* from) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  static F load_e4m3(const void* from) {
    return mul(halves(f16_of_e4m3(_mm_loadu_si128(static_cast<const __m128i*>(from)))), set(256.0f));
  }
  static F load_e5m2(const void* from) {
    return halves(f16_of_e5m2(_mm_loadu_si128(static_cast<const __m128i*>(from))));
  }

  // Eight codes of each of sixteen rows and their scales: levels times scale by one fused multiply-add each.
  //
  // A byte table turns a code into 4 n, n = 2 level + 12 (0..24), for all codes at once. A byte 4 n, shuffled
  // to bits 16..23 of a word whose exponent is that of 16, is the float 16 + n / 2 = 22 + level; times the
  // scale, minus 22 times the scale, is the level times the scale, exactly. (The scale is at most 2^123, so
  // that 22 of it are finite; level 0 comes out as +0, and packing has left no negative zeros.)
  class Offsets {
   public:
    Offsets(const std::byte* codes, const std::byte* scales) : scale_(e8m0(scales)) {
      const __m256i table = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(48, 52, 56, 60, 64, 72, 80, 96, 48, 44, 40, 36, 32, 24, 16, 0));
      const __m256i nibbles = _mm256_set1_epi8(15);
      const P raw = load_pairs(codes);
      even_ = {_mm256_shuffle_epi8(table, _mm256_and_si256(raw.lo, nibbles)),
               _mm256_shuffle_epi8(table, _mm256_and_si256(raw.hi, nibbles))};
      odd_ = {_mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(raw.lo, 4), nibbles)),
              _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(raw.hi, 4), nibbles))};
      offset_ = mul(scale_, set(-22.0f));
    }
    F level(int nibble) const {
      const P& bytes = nibble % 2 ? odd_ : even_;
      return fma({placed(bytes.lo, nibble / 2), placed(bytes.hi, nibble / 2)}, scale_, offset_);
    }

   private:
    static __m256 placed(__m256i bytes, int byte) {
      const int none = static_cast<int>(0x8080'8080u);
      const int from = none ^ ((byte | 0x80) << 16);
      const __m256i pick =
          _mm256_broadcastsi128_si256(_mm_setr_epi32(from, from | 4 << 16, from | 8 << 16, from | 12 << 16));
      return _mm256_castsi256_ps(
          _mm256_or_si256(_mm256_shuffle_epi8(bytes, pick), _mm256_set1_epi32(0x4180'0000)));
    }
    P even_, odd_;
    F scale_, offset_;
  };

  static F e2m1(P raw, int nibble) { return {levels8(raw.lo, nibble), levels8(raw.hi, nibble)}; }
  static F e8m0(const void* from) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), 23))};
  }
  // The first scales over the second ones; their bytes are at most 127 apart.
  static F e8m0_ratio(const void* over, const void* under) {
    return e8m0(ratio_of_scales(over, under).bytes);
  }
  // Whether all of `count` (a multiple of 8) numbers are zero or of a magnitude in [least, most].
  static bool all_within(const float* x, std::int64_t count, float least, float most) {
    // As integers magnitudes are in order, NaNs behind the infinity; zero less one is the greatest of all.
    __m256i lowest = _mm256_set1_epi32(-1), highest = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < count; i += 8) {
      const __m256i bits = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)),
                                            _mm256_set1_epi32(INT32_MAX));
      highest = _mm256_max_epu32(highest, bits);
      lowest = _mm256_min_epu32(lowest, _mm256_add_epi32(bits, _mm256_set1_epi32(-1)));
    }
    const __m256i floor = _mm256_sub_epi32(_mm256_castps_si256(_mm256_set1_ps(least)), _mm256_set1_epi32(1));
    const __m256i ceiling = _mm256_castps_si256(_mm256_set1_ps(most));
    const __m256i good = _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_max_epu32(highest, ceiling), ceiling),
                                          _mm256_cmpeq_epi32(_mm256_min_epu32(lowest, floor), floor));
    return _mm256_movemask_epi8(good) == -1;
  }

  // Sums of products of unsigned and signed bytes, exact: four inputs of sixteen outputs at a time, two of
  // them to each half of a dword. Such a half wraps around and comes back: what counts is the sum that is
  // left when the 128 that inputs are too large by are taken away, and this one fits.
  //
  // Narrow: the signed bytes are such that those of a run, a quarter of which meet in a byte, add up in it,
  // and half of their products with 127 in 16 bits: |w| <= 16 in a run of 32, |w| <= 32 in one of 16.
  struct NarrowSums {
    static constexpr bool kCodesAddUp = true;
    static constexpr int kTogether = 4;  // rows that the registers hold
    using Codes = P;
    P sums;
    static Codes codes(P bytes) { return bytes; }
    static Codes plus(Codes a, Codes b) { return {_mm256_add_epi8(a.lo, b.lo), _mm256_add_epi8(a.hi, b.hi)}; }
    static NarrowSums zero() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
    void add(std::uint32_t x, const Codes& w) {
      const __m256i four = _mm256_set1_epi32(static_cast<int>(x));
      sums.lo = _mm256_add_epi16(sums.lo, _mm256_maddubs_epi16(four, w.lo));
      sums.hi = _mm256_add_epi16(sums.hi, _mm256_maddubs_epi16(four, w.hi));
    }
    NarrowSums less(const NarrowSums& other) const {
      return {{_mm256_sub_epi16(sums.lo, other.sums.lo), _mm256_sub_epi16(sums.hi, other.sums.hi)}};
    }
    // Times a factor, both halves of a dword together.
    P integers(int factor) const {
      const __m256i factors = _mm256_set1_epi16(static_cast<std::int16_t>(factor));
      return {_mm256_madd_epi16(sums.lo, factors), _mm256_madd_epi16(sums.hi, factors)};
    }
    F value() const { return of_integers(integers(1)); }
  };
  // Any signed bytes, as 16 * high + low.
  struct WideSums {
    static constexpr bool kCodesAddUp = true;
    static constexpr int kTogether = 2;
    struct Codes {
      P low, high;
    };
    NarrowSums low, high;
    static Codes codes(P bytes) {
      const P upper = keep(shifted_right(bytes, 4), 0x0f0f'0f0fu);
      const __m256i sign = _mm256_set1_epi8(8);
      return {keep(bytes, 0x0f0f'0f0fu),
              bytes_less({_mm256_xor_si256(upper.lo, sign), _mm256_xor_si256(upper.hi, sign)}, 8)};
    }
    static Codes plus(const Codes& a, const Codes& b) {
      return {NarrowSums::plus(a.low, b.low), NarrowSums::plus(a.high, b.high)};
    }
    static WideSums zero() { return {NarrowSums::zero(), NarrowSums::zero()}; }
    void add(std::uint32_t x, const Codes& w) {
      low.add(x, w.low);
      high.add(x, w.high);
    }
    WideSums less(const WideSums& other) const { return {low.less(other.low), high.less(other.high)}; }
    F value() const {
      const P a = low.integers(1), b = high.integers(16);
      return of_integers({_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)});
    }
  };
  static constexpr int kByteRows = 4;
  static constexpr int kByteStrips = 1;
  static constexpr int kGroupRows = 6;  // of a sum each, in 12 of 16 registers; chains lie in memory
  static constexpr int kGroupStrips = 1;

 protected:
  static F of_integers(P p) { return {_mm256_cvtepi32_ps(p.lo), _mm256_cvtepi32_ps(p.hi)}; }
  static F halves(__m256i words) {
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(words)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1))};
  }
  // The permutes read the low three bits of each code, its fourth chooses between them.
  static __m256 table8(__m256 below, __m256 above, __m256i raw, int nibble) {
    const __m256i code = _mm256_srli_epi32(raw, 4 * nibble);
    const __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(raw, 28 - 4 * nibble));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(below, code), _mm256_permutevar8x32_ps(above, code),
                            fourth);
  }
  static __m256 scale8(__m256 p, __m256 n) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  }
  static __m256 round8(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i even_bit = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(even_bit, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040'0000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, quiet, nan);
    return _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // The magnitude from a table of eight (the permute reads three bits of each lane), the sign from bit 3 of
  // the code.
  static __m256 levels8(__m256i raw, int nibble) {
    const __m256 table = _mm256_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6);
    const __m256 magnitude = _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(raw, 4 * nibble));
    const __m256i sign =
        _mm256_and_si256(_mm256_slli_epi32(raw, 28 - 4 * nibble), _mm256_set1_epi32(INT32_MIN));
    return _mm256_xor_ps(magnitude, _mm256_castsi256_ps(sign));
  }
};

struct Avx2 : Avx2Verbs<Avx2> {};

}  // namespace nib::inline v0::cpu
