// The verbs of encoders on AVX-512 F, BW, VL and DQ: sixteen floats, their bits, and 32 codes as bytes.
// Included by files compiled for it only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace nib::inline v0::cpu {

struct Avx512;
template <class A>
struct Wide;

template <>
struct Wide<Avx512> {
  using F = float __attribute__((vector_size(64)));
  using I = std::int32_t __attribute__((vector_size(64)));
  using U = std::uint32_t __attribute__((vector_size(64)));
  using PairF = float __attribute__((vector_size(16)));
  using PairI = std::int32_t __attribute__((vector_size(16)));
  using Half = __m256i;  // sixteen numbers of 16 bits
  using Bytes = __m256i;
  // 32 numbers, narrowed with saturation; in an order of their own, in which they can be widened again.
  using Words = std::int16_t __attribute__((vector_size(64)));
  using Octets = std::int8_t __attribute__((vector_size(32)));
  static constexpr int kLanes = 16, kHalves = 1;

  static F load(const float* from) { return _mm512_loadu_ps(from); }
  // Twice.
  static F load_eight(const float* from) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(from)); }
  static Half load_half(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(F x, std::byte* to) { _mm512_storeu_ps(to, x); }
  // Sixteen words as integers.
  static I load_words(const std::byte* from) {
    return reinterpret_cast<I>(_mm512_cvtepu16_epi32(load_half(from)));
  }
  static F all(float x) { return _mm512_set1_ps(x); }
  static I all(std::int32_t x) { return reinterpret_cast<I>(_mm512_set1_epi32(x)); }
  static I bits(F x) { return reinterpret_cast<I>(x); }
  static F floats(I x) { return reinterpret_cast<F>(x); }

  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // The second where one is NaN.
  static F most(F a, F b) { return _mm512_max_ps(a, b); }
  static F least(F a, F b) { return _mm512_min_ps(a, b); }
  static I most(I a, I b) {
    return reinterpret_cast<I>(_mm512_max_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
  }
  static I nearest(F x) { return reinterpret_cast<I>(_mm512_cvtps_epi32(x)); }
  static I truncate(F x) { return reinterpret_cast<I>(_mm512_cvttps_epi32(x)); }
  static F numbers(I x) { return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(x)); }

  // table[index % 4] (table: four, four times) and table[index % 8] (eight, twice).
  static F pick4(F table, I index) { return _mm512_permutevar_ps(table, reinterpret_cast<__m512i>(index)); }
  static F pick8(F table, I index) { return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), table); }
  static F choose(I mask, F yes, F no) { return mask ? yes : no; }  // the mask is never made integers

  static float largest(F x) {
    return fold(x, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
  }
  static float smallest(F x) {
    return fold(x, [](__m256 a, __m256 b) { return _mm256_min_ps(a, b); });
  }
  static std::uint32_t largest(I x) {
    const __m256i eight = largest_of_halves(x);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(four));
  }
  // The largest of each, and of each once more.
  static PairI largest_of_two(I a, I b) {
    const __m256i low = largest_of_halves(a), high = largest_of_halves(b);
    __m256i four = _mm256_max_epi32(_mm256_unpacklo_epi32(low, high), _mm256_unpackhi_epi32(low, high));
    four = _mm256_max_epi32(four, _mm256_shuffle_epi32(four, 0x4e));
    return reinterpret_cast<PairI>(
        _mm_max_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
  }

  // 32 integers of 0..255 as bytes, in order.
  static Bytes bytes(const I (&x)[2]) {
    const __m512i words =
        _mm512_packus_epi32(reinterpret_cast<__m512i>(x[0]), reinterpret_cast<__m512i>(x[1]));
    return in_order(reinterpret_cast<Octets>(_mm512_cvtepi16_epi8(words)));
  }
  static void words(const I (&x)[2], Words (&out)[1]) {
    out[0] = reinterpret_cast<Words>(
        _mm512_packs_epi32(reinterpret_cast<__m512i>(x[0]), reinterpret_cast<__m512i>(x[1])));
  }
  static Octets octets(const Words (&x)[1]) {
    return reinterpret_cast<Octets>(_mm512_cvtsepi16_epi8(reinterpret_cast<__m512i>(x[0])));
  }
  // Of numbers less `than`.
  static Octets octets(const I (&x)[2], std::int16_t than) {
    Words both[1];
    words(x, both);
    return octets({both[0] - than});
  }
  // Negative where the sign is.
  static Octets signs(const F (&x)[2]) {
    Words both[1];
    words({bits(x[0]), bits(x[1])}, both);
    return octets(both);
  }
  static Bytes in_order(Octets x) {
    return _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(x),
                                       _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  }
  // All the same, kept in a register or on the stack: compilers otherwise make it anew wherever it is used.
  static Octets kept(std::int8_t x) {
    __m256i out = _mm256_set1_epi8(x);
    asm("" : "+v"(out));
    return reinterpret_cast<Octets>(out);
  }
  // table[index], of indices below 16, and 0 of negative ones; the table is sixteen bytes, twice.
  static Octets pick16(const std::int8_t (&table)[32], Octets index) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table));
    return reinterpret_cast<Octets>(_mm256_shuffle_epi8(both, reinterpret_cast<__m256i>(index)));
  }
  // The number of each cell.
  template <class CellTable>
  static void pick32(const CellTable& table, const Words (&cells)[1], Words (&out)[1]) {
    out[0] = reinterpret_cast<Words>(
        _mm512_permutexvar_epi16(reinterpret_cast<__m512i>(cells[0]), _mm512_loadu_si512(table.word)));
  }
  template <class CellTable>
  static Octets pick32(const CellTable& table, const Words (&cells)[1]) {
    Words out[1];
    pick32(table, cells, out);
    return octets(out);
  }
  // The levels of codes.
  template <class LevelTable>
  static void pick16(const LevelTable& table, Octets codes, F (&out)[2]) {
    const F numbers = load(table.number);
    const __m256i all = in_order(codes);
    out[0] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(all)), numbers);
    out[1] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(all, 1)), numbers);
  }
  static bool any(Words mask) { return _mm512_movepi16_mask(reinterpret_cast<__m512i>(mask)) != 0; }
  // A bit of each of 32 masks, in order.
  static std::uint32_t which(const I (&masks)[2]) {
    return which(masks[0]) | std::uint32_t{which(masks[1])} << 16;
  }
  static std::uint32_t no_less(const I (&x)[2], std::int32_t than) {
    const auto mask = [&](I some) {
      return _mm512_cmpge_epi32_mask(reinterpret_cast<__m512i>(some), _mm512_set1_epi32(than));
    };
    return mask(x[0]) | std::uint32_t{mask(x[1])} << 16;
  }
  static bool any_nan(const F (&x)[2]) { return _mm512_cmp_ps_mask(x[0], x[1], _CMP_UNORD_Q) != 0; }
  // Bit `bit` of each byte.
  static std::uint32_t bit_of(Bytes x, int bit) {
    return _mm256_test_epi8_mask(x, _mm256_set1_epi8(static_cast<char>(1 << bit)));
  }
  static Bytes nibbles(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }

  static void store_bytes(Bytes x, std::byte* to) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
  // Neighbours in a byte: byte j = x[2j] * even + x[2j + 1] * odd.
  static void store_pairs(Bytes x, int even, int odd, std::byte* to) {
    const __m256i joined = _mm256_maddubs_epi16(x, _mm256_set1_epi16(static_cast<short>(even | odd << 8)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtepi16_epi8(joined));
  }
  // Halves in a byte: byte j = x[j] + 16 * x[j + 16].
  static void store_halves(Bytes x, std::byte* to) {
    const __m128i out =
        _mm_or_si128(_mm256_castsi256_si128(x), _mm_slli_epi16(_mm256_extracti128_si256(x, 1), 4));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), out);
  }
  // The low halves of 32 integers.
  static void store_words(const I (&x)[2], std::byte* to) {
    store_words({_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(x[0])),
                 _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(x[1]))},
                to);
  }
  static void store_words(const Half (&x)[2], std::byte* to) {
    for (int i = 0; i < 2; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * i), x[i]);
  }
  // The nearest f16 numbers, and back.
  static Half to_f16(F x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
  static F from_f16(Half x) { return _mm512_cvtph_ps(x); }
  static std::uint16_t to_f16(float x) {
    return static_cast<std::uint16_t>(
        _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
  }
  static float from_f16(std::uint16_t x) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x))); }

  // Sixteen sums, in double.
  class Sums {
   public:
    void add(const F (&x)[1]) {
      low_ = _mm512_add_pd(low_, _mm512_cvtps_pd(_mm512_castps512_ps256(x[0])));
      high_ = _mm512_add_pd(high_, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x[0], 1)));
    }
    double total() const {
      const __m512d eight = _mm512_add_pd(low_, high_);  // s0 + s8 ..
      const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
      const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
      return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
    }

   private:
    __m512d low_ = _mm512_setzero_pd(), high_ = _mm512_setzero_pd();
  };

 private:
  static __mmask16 which(I mask) { return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)); }
  static __m256i largest_of_halves(I x) {
    const auto wide = reinterpret_cast<__m512i>(x);
    return _mm256_max_epi32(_mm512_castsi512_si256(wide), _mm512_extracti64x4_epi64(wide, 1));
  }
  template <class Op>
  static float fold(F x, Op op) {
    const __m256 eight = op(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const auto low = [](__m256 wide) { return _mm256_castps256_ps128(wide); };
    __m256 four = op(eight, _mm256_castps128_ps256(_mm256_extractf128_ps(eight, 1)));
    four = op(four, _mm256_permute_ps(four, 0x4e));
    return _mm_cvtss_f32(low(op(four, _mm256_permute_ps(four, 0xb1))));
  }
};

}  // namespace nib::inline v0::cpu
