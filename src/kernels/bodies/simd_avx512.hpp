// The verbs on AVX-512 with BF16: sixteen floats are one register. Plain intrinsics, because Debian's xsimd
// has neither the word permute nor the bf16 dot, and so that the tests can run this very file on machines
// without AVX-512 (they map the intrinsics to portable code; only the bf16 dot needs a twin, below).
#pragma once

#include <cstdint>

#if defined(NIB_EMULATE_AVX512)
#include <nibble/kernels/canonical.hpp>

#include <simde/x86/avx512.h>
#else
#include <immintrin.h>
#endif

#include "simd_bytes.hpp"

#include <array>

namespace nib::inline v0::cpu {

#if defined(NIB_EMULATE_AVX512)
inline namespace emulated {  // another type than the real one: both may be in one program
#endif

template <int kShift, std::size_t N>
constexpr std::array<std::uint8_t, N> bytes_of_words(const std::array<std::uint16_t, N>& words) {
  std::array<std::uint8_t, N> bytes{};
  for (std::size_t i = 0; i < N; ++i) bytes[i] = static_cast<std::uint8_t>(words[i] >> kShift);
  return bytes;
}

struct Avx512 {
  using F = __m512;
  using P = __m512i;
  static constexpr bool kPairDot = true;
  static constexpr int kBlockRows = 12;     // two strips: 24 accumulators of 32 registers
  static constexpr int kDirectRows = 12;    // of pairs and of what is only read (matmul.hpp)
  static constexpr int kDirectStrips = 16;  // accumulators of the direct kernel
  static constexpr int kChains = 8;         // of them, those between two stores
  static constexpr int kHeadBlock = 8;      // query heads that share a pass over keys and values
  static constexpr int kHeadSums = 16;      // their vectors of sums

  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F x) { _mm512_storeu_ps(to, x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F if_less(F a, F b, F yes, F no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
  }
  static float sqrt1(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

  static F scale(F p, F n) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
  }
  static F round_bf16(F x) {
#if defined(NIB_EMULATE_AVX512)
    const P bits = _mm512_castps_si512(x);
    const P even_bit = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    P rounded = _mm512_add_epi32(bits, _mm512_add_epi32(even_bit, _mm512_set1_epi32(0x7fff)));
    const P quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040'0000));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
    return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
#else
    return even(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)));
#endif
  }

  static float sum(F x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), upper(x));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
  static float largest(F x) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), upper(x));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
  }

  static P load_pairs(const void* from) { return _mm512_loadu_si512(from); }
  // Of numbers that bf16 holds: words 1, 3, 5 and so on.
  static void store_bf16(void* to, F x) {
    alignas(64) static constexpr std::uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                             23, 25, 27, 29, 31, 1,  3,  5,  7,  9,  11,
                                                             13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    const P words = _mm512_permutexvar_epi16(_mm512_load_si512(kUpper), _mm512_castps_si512(x));
    _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_castsi512_si256(words));
  }
  static F even(P p) { return _mm512_castsi512_ps(_mm512_slli_epi32(p, 16)); }
  static F odd(P p) {
    return _mm512_castsi512_ps(_mm512_and_si512(p, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // Of numbers that bf16 holds exactly.
  static P pairs(F even, F odd) {
    const P upper =
        _mm512_and_si512(_mm512_castps_si512(odd), _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
    return _mm512_or_si512(upper, _mm512_srli_epi32(_mm512_castps_si512(even), 16));
  }
  static P keep(P p, std::uint32_t mask) {
    return _mm512_and_si512(p, _mm512_set1_epi32(static_cast<int>(mask)));
  }
  static F load_f16(const void* from) {
    return halves(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }

  static P shifted_right(P p, int bits) { return _mm512_srli_epi32(p, static_cast<unsigned>(bits)); }
  static P shifted_left(P p, int bits) { return _mm512_slli_epi32(p, static_cast<unsigned>(bits)); }
  static P joined(P a, P b) { return _mm512_or_si512(a, b); }
  static P bytes_less(P p, int n) { return _mm512_sub_epi8(p, _mm512_set1_epi8(static_cast<char>(n))); }
  template <const std::int8_t (&levels)[16]>
  static P looked_up(P p) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), p);
  }
  // Of the words whose numbers stand in the low byte of each word of `index`; bits above those are ignored.
  template <const auto& table>
  static P words(P index) {
    constexpr std::size_t kCount = table.size();
    static_assert(kCount == 16 || kCount == 32 || kCount == 64);
    if constexpr (kCount == 16) {
      const P twice =
          _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table.data())));
      return _mm512_permutexvar_epi16(index, twice);
    } else if constexpr (kCount == 32) {
      return _mm512_permutexvar_epi16(index, _mm512_loadu_si512(table.data()));
    } else {
      return _mm512_permutex2var_epi16(_mm512_loadu_si512(table.data()), index,
                                       _mm512_loadu_si512(table.data() + 32));
    }
  }
  // Sixty-four codes as pairs: bytes 2i and 2i + 1 of the lower half of each sixteen make a pair of the first
  // vector, those of the upper half one of the second. `table` has the words of magnitudes, which are codes
  // without their highest bit, the sign, or, kTwos, numbers in two's complement.
  template <const auto& table, bool kTwos>
  static void signed_pairs(P codes, P* to) {
    static_assert(table.size() == 128);
    static constexpr auto kLow = bytes_of_words<0>(table), kHigh = bytes_of_words<8>(table);
    // The lesser of a number and its opposite, as unsigned: an abs would take the dots' place on Zen 4.
    const P opposites = _mm512_sub_epi8(_mm512_setzero_si512(), codes);
    const P magnitudes = kTwos ? _mm512_min_epu8(codes, opposites) : codes;
    const auto looked = [&](const auto& bytes) {
      return _mm512_permutex2var_epi8(_mm512_loadu_si512(bytes.data()), magnitudes,
                                      _mm512_loadu_si512(bytes.data() + 64));
    };
    const P low = looked(kLow), sign = _mm512_and_si512(codes, _mm512_set1_epi8(INT8_MIN));
    const P high = _mm512_or_si512(looked(kHigh), sign);
    to[0] = _mm512_unpacklo_epi8(low, high);
    to[1] = _mm512_unpackhi_epi8(low, high);
  }
  // Of vector v (0 or 1) and lane r: bytes even + v * next + r and odd + v * next + r.
  template <std::size_t even, std::size_t odd, std::size_t next>
  static P paired_bytes(P bytes) {
    static constexpr auto kPlaces = [] {
      std::array<std::uint8_t, 64> places{};
      for (std::size_t i = 0; i < 64; ++i)
        places[i] =
            static_cast<std::uint8_t>((i % 2 == 0 ? even : odd) + i / 8 % 2 * next + i / 16 * 4 + i % 8 / 2);
      return places;
    }();
    return _mm512_permutexvar_epi8(_mm512_loadu_si512(kPlaces.data()), bytes);
  }
  // Two rows of thirty-two codes, even and odd.
  template <const auto& table, bool kTwos>
  static void signed_pairs(const void* even, const void* odd, P* to) {
    const auto row = [](const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); };
    const P codes = _mm512_inserti64x4(_mm512_castsi256_si512(row(even)), row(odd), 1);
    signed_pairs<table, kTwos>(paired_bytes<0, 32, 16>(codes), to);
  }
  // Four rows of sixteen codes: odd, even, odd, even.
  template <const auto& table>
  static void signed_pairs(const void* rows, P* to) {
    signed_pairs<table, false>(paired_bytes<16, 0, 32>(_mm512_loadu_si512(rows)), to);
  }
  static F of_integers(P p) {
#if defined(NIB_EMULATE_AVX512)
    std::int32_t integers[16];
    float floats[16];
    _mm512_storeu_si512(integers, p);
    for (int i = 0; i < 16; ++i) floats[i] = static_cast<float>(integers[i]);
    return load(floats);
#else
    return _mm512_cvtepi32_ps(p);
#endif
  }
  static F byte24(P p, int byte) {
    const P top =
        _mm512_and_si512(shifted_left(p, 24 - 8 * byte), _mm512_set1_epi32(static_cast<int>(0xff000000u)));
    return of_integers(top);
  }
  template <const float (&levels)[16]>
  static F table(P raw, int nibble) {
    return _mm512_permutexvar_ps(shifted_right(raw, 4 * nibble), _mm512_loadu_ps(levels));
  }
  static F load_i8(const void* from) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
    return pair(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))));
  }
  static F load_e4m3(const void* from) {
    return mul(halves(f16_of_e4m3(_mm_loadu_si128(static_cast<const __m128i*>(from)))), set(256.0f));
  }
  static F load_e5m2(const void* from) {
    return halves(f16_of_e5m2(_mm_loadu_si128(static_cast<const __m128i*>(from))));
  }

  static F e2m1(P raw, int nibble) {
    const F table = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(raw, static_cast<unsigned>(4 * nibble)), table);
  }
  static F e8m0(const void* from) { return _mm512_castsi512_ps(_mm512_slli_epi32(widen(from), 23)); }

  // acc + the products of both bf16 halves, the odd one first; one instruction, subnormals flushed.
#if defined(NIB_EMULATE_AVX512)
  [[gnu::noinline]]  // its hundreds of copies would take minutes to compile
#endif
  static F
  dot(F acc, P weights, std::uint32_t x) {
    const P pair = _mm512_set1_epi32(static_cast<int>(x));
#if defined(NIB_EMULATE_AVX512)
    float sums[16];
    std::uint32_t pairs[16];
    store(sums, acc);
    _mm512_storeu_si512(pairs, weights);
    const float x_even = to_float(bf16{static_cast<std::uint16_t>(x)});
    const float x_odd = to_float(bf16{static_cast<std::uint16_t>(x >> 16)});
    for (int i = 0; i < 16; ++i) {
      sums[i] = fma_canonical(to_float(bf16{static_cast<std::uint16_t>(pairs[i] >> 16)}), x_odd, sums[i]);
      sums[i] = fma_canonical(to_float(bf16{static_cast<std::uint16_t>(pairs[i])}), x_even, sums[i]);
    }
    static_cast<void>(pair);
    return load(sums);
#else
    return _mm512_dpbf16_ps(acc, (__m512bh)weights, (__m512bh)pair);
#endif
  }
  // Codes `nibble` (low half) and `nibble` + 4 (high half) of each dword as bf16.
  static P e2m1_pairs(P raw, int nibble) {
    alignas(64) static constexpr std::uint16_t kLevels[32] = {
        0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80,
        0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0, 0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040,
        0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0};
    // The permute reads five bits of each word: the table stands twice, so the fifth does not matter (a shift
    // of dwords brings it from the neighbour).
    return _mm512_permutexvar_epi16(_mm512_srli_epi32(raw, static_cast<unsigned>(4 * nibble)),
                                    _mm512_load_si512(kLevels));
  }
  // The same times 2^(e - 127) where `exponents` holds (e - 127) << 7 in both halves: the scale is folded in
  // by adding to the exponent of what is not zero.
  static P e2m1_pairs(P raw, int nibble, P exponents) {
    const P levels = e2m1_pairs(raw, nibble);
    const __mmask32 nonzero = _mm512_test_epi16_mask(levels, _mm512_set1_epi16(0x7fff));
    return _mm512_mask_add_epi16(levels, nonzero, levels, exponents);
  }
  // The first scales over the second ones; their bytes are at most 127 apart.
  static F e8m0_ratio(const void* over, const void* under) {
    return e8m0(ratio_of_scales(over, under).bytes);
  }
  // Whether the magnitudes of all bf16 in `count` dwords (a multiple of 4) are at most that of the bits
  // `most`.
  static bool pairs_below(const void* x, std::int64_t count, int most) {
    const auto* dwords = static_cast<const std::uint32_t*>(x);
    const P magnitude = _mm512_set1_epi16(INT16_MAX), ceiling = _mm512_set1_epi16(static_cast<short>(most));
    P highest = _mm512_setzero_si512();
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16)
      highest = _mm512_max_epu16(highest, _mm512_and_si512(_mm512_loadu_si512(dwords + i), magnitude));
    for (; i < count; i += 4) {
      const __m128i last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(dwords + i));
      highest = _mm512_max_epu16(
          highest, _mm512_and_si512(_mm512_inserti32x4(_mm512_setzero_si512(), last, 0), magnitude));
    }
    const P above = _mm512_subs_epu16(highest, ceiling);
    return _mm512_test_epi16_mask(above, above) == 0;
  }
  static P e8m0_pairs(const void* from) {
    const P both = _mm512_mullo_epi32(widen(from), _mm512_set1_epi32(0x0080'0080));
    return _mm512_sub_epi16(both, _mm512_set1_epi16(127 << 7));
  }

  // Sums of products of unsigned and signed bytes, exact: four inputs of sixteen outputs at a time. Narrow:
  // the signed bytes of a run add up in a byte.
  template <bool kNarrow>
  struct ByteSums {
    static constexpr bool kCodesAddUp = kNarrow;
    static constexpr int kTogether = 6;  // rows that the registers hold
    using Codes = P;
    P sums;
    static Codes codes(P bytes) { return bytes; }
    static Codes plus(Codes a, Codes b) { return _mm512_add_epi8(a, b); }
    static ByteSums zero() { return {_mm512_setzero_si512()}; }
    void add(std::uint32_t x, const Codes& w) {
      sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(static_cast<int>(x)), w);
    }
    ByteSums less(const ByteSums& other) const { return {_mm512_sub_epi32(sums, other.sums)}; }
    F value() const { return of_integers(sums); }
  };
  using NarrowSums = ByteSums<true>;
  using WideSums = ByteSums<false>;
  static constexpr int kByteRows = 6;  // two strips: 12 sums and 12 floats of 32 registers
  static constexpr int kByteStrips = 2;
  static constexpr int kGroupRows = 6;  // the same, of sums.hpp
  static constexpr int kGroupStrips = 2;

 private:
  static F pair(__m256 low, __m256 high) {
    return _mm512_castpd_ps(
        _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_castps_pd(low)), _mm256_castps_pd(high), 1));
  }
  static F halves(__m256i words) {
    return pair(_mm256_cvtph_ps(_mm256_castsi256_si128(words)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1)));
  }
  static __m256 upper(F x) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)); }
  // Sixteen bytes to sixteen dwords.
  static P widen(const void* from) {
#if defined(NIB_EMULATE_AVX512)
    std::uint32_t dwords[16];
    for (int i = 0; i < 16; ++i) dwords[i] = static_cast<const std::uint8_t*>(from)[i];
    return _mm512_loadu_si512(dwords);
#else
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
#endif
  }
};

#if defined(NIB_EMULATE_AVX512)
}  // namespace emulated
#endif
}  // namespace nib::inline v0::cpu
