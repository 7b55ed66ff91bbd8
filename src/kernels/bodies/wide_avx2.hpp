// The verbs of encoders on AVX2 and F16C: eight floats, their bits, and 32 codes as bytes. Included by files
// compiled for it only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace nib::inline v0::cpu {

struct Avx2;
template <class A>
struct Wide;

template <>
struct Wide<Avx2> {
  using F = float __attribute__((vector_size(32)));
  using I = std::int32_t __attribute__((vector_size(32)));
  using U = std::uint32_t __attribute__((vector_size(32)));
  using PairF = float __attribute__((vector_size(16)));
  using PairI = std::int32_t __attribute__((vector_size(16)));
  using Half = __m128i;  // eight numbers of 16 bits
  using Bytes = __m256i;
  // 32 numbers, narrowed with saturation; in an order of their own, in which they can be widened again.
  using Words = std::int16_t __attribute__((vector_size(32)));
  using Octets = std::int8_t __attribute__((vector_size(32)));
  static constexpr int kLanes = 8, kHalves = 2;

  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static F load_eight(const float* from) { return load(from); }
  static Half load_half(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static void store(F x, std::byte* to) { _mm256_storeu_ps(reinterpret_cast<float*>(to), x); }
  // Eight words as integers.
  static I load_words(const std::byte* from) {
    return reinterpret_cast<I>(_mm256_cvtepu16_epi32(load_half(from)));
  }
  static F all(float x) { return _mm256_set1_ps(x); }
  static I all(std::int32_t x) { return reinterpret_cast<I>(_mm256_set1_epi32(x)); }
  static I bits(F x) { return reinterpret_cast<I>(x); }
  static F floats(I x) { return reinterpret_cast<F>(x); }

  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  // The second where one is NaN.
  static F most(F a, F b) { return _mm256_max_ps(a, b); }
  static F least(F a, F b) { return _mm256_min_ps(a, b); }
  static I most(I a, I b) {
    return reinterpret_cast<I>(_mm256_max_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
  }
  static I nearest(F x) { return reinterpret_cast<I>(_mm256_cvtps_epi32(x)); }
  static I truncate(F x) { return reinterpret_cast<I>(_mm256_cvttps_epi32(x)); }
  static F numbers(I x) { return _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(x)); }

  // table[index % 4] (table: four, twice) and table[index % 8].
  static F pick4(F table, I index) { return _mm256_permutevar_ps(table, reinterpret_cast<__m256i>(index)); }
  static F pick8(F table, I index) {
    return _mm256_permutevar8x32_ps(table, reinterpret_cast<__m256i>(index));
  }
  static F choose(I mask, F yes, F no) { return _mm256_blendv_ps(no, yes, floats(mask)); }

  static float largest(F x) {
    return fold(x, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
  }
  static float smallest(F x) {
    return fold(x, [](__m128 a, __m128 b) { return _mm_min_ps(a, b); });
  }
  static std::uint32_t largest(I x) {
    const auto wide = reinterpret_cast<__m256i>(x);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(four));
  }

  // The largest of each, and of each once more.
  static PairI largest_of_two(I a, I b) {
    const auto low = reinterpret_cast<__m256i>(a), high = reinterpret_cast<__m256i>(b);
    __m256i four = _mm256_max_epi32(_mm256_unpacklo_epi32(low, high), _mm256_unpackhi_epi32(low, high));
    four = _mm256_max_epi32(four, _mm256_shuffle_epi32(four, 0x4e));
    return reinterpret_cast<PairI>(
        _mm_max_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
  }

  // 32 integers of 0..255 as bytes, in order.
  static Bytes bytes(const I (&x)[4]) {
    const auto wide = [&](int i) { return reinterpret_cast<__m256i>(x[i]); };
    const __m256i mixed =
        _mm256_packus_epi16(_mm256_packus_epi32(wide(0), wide(1)), _mm256_packus_epi32(wide(2), wide(3)));
    return in_order(reinterpret_cast<Octets>(mixed));
  }
  static void words(const I (&x)[4], Words (&out)[2]) {
    const auto wide = [&](int i) { return reinterpret_cast<__m256i>(x[i]); };
    out[0] = reinterpret_cast<Words>(_mm256_packs_epi32(wide(0), wide(1)));
    out[1] = reinterpret_cast<Words>(_mm256_packs_epi32(wide(2), wide(3)));
  }
  static Octets octets(const Words (&x)[2]) {
    return reinterpret_cast<Octets>(
        _mm256_packs_epi16(reinterpret_cast<__m256i>(x[0]), reinterpret_cast<__m256i>(x[1])));
  }
  // Of numbers less `than`.
  static Octets octets(const I (&x)[4], std::int16_t than) {
    Words both[2];
    words(x, both);
    return octets({both[0] - than, both[1] - than});
  }
  // Negative where the sign is.
  static Octets signs(const F (&x)[4]) {
    Words both[2];
    words({bits(x[0]), bits(x[1]), bits(x[2]), bits(x[3])}, both);
    return octets(both);
  }
  static Bytes in_order(Octets x) {
    return _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(x),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  // All the same, kept in a register or on the stack: compilers otherwise make it anew wherever it is used.
  static Octets kept(std::int8_t x) {
    __m256i out = _mm256_set1_epi8(x);
    asm("" : "+x"(out));
    return reinterpret_cast<Octets>(out);
  }
  // table[index], of indices below 16, and 0 of negative ones; the table is sixteen bytes, twice.
  static Octets pick16(const std::int8_t (&table)[32], Octets index) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table));
    return reinterpret_cast<Octets>(_mm256_shuffle_epi8(both, reinterpret_cast<__m256i>(index)));
  }
  // The number of each cell.
  template <class CellTable>
  static Octets pick32(const CellTable& table, const Words (&cells)[2]) {
    return pick32(table.low, octets(cells));
  }
  template <class CellTable>
  static void pick32(const CellTable& table, const Words (&cells)[2], Words (&out)[2]) {
    const Octets cell = octets(cells);
    widen(pick32(table.low, cell), pick32(table.high, cell), out);
  }
  // The levels of codes: their bytes, of which the lower ones may be left out, joined to floats.
  template <class LevelTable>
  static void pick16(const LevelTable& table, Octets codes, F (&out)[4]) {
    constexpr int kBytes = sizeof table.byte / sizeof table.byte[0];
    Words low[2] = {}, high[2];
    if constexpr (kBytes == 4) widen(pick16(table.byte[0], codes), pick16(table.byte[1], codes), low);
    widen(pick16(table.byte[kBytes - 2], codes), pick16(table.byte[kBytes - 1], codes), high);
    widen(low, high, out);
  }
  static bool any(Words mask) { return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) != 0; }
  // A bit of each of 32 masks, in order.
  static std::uint32_t which(const I (&masks)[4]) {
    const auto four = [&](int i) { return static_cast<std::uint32_t>(_mm256_movemask_ps(floats(masks[i]))); };
    return four(0) | four(1) << 8 | four(2) << 16 | four(3) << 24;
  }
  static std::uint32_t no_less(const I (&x)[4], std::int32_t than) {
    return which({x[0] >= than, x[1] >= than, x[2] >= than, x[3] >= than});
  }
  static bool any_nan(const F (&x)[4]) {
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x[0], x[1], _CMP_UNORD_Q),
                                           _mm256_cmp_ps(x[2], x[3], _CMP_UNORD_Q))) != 0;
  }
  // Bit `bit` of each byte.
  static std::uint32_t bit_of(Bytes x, int bit) {
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(x, 7 - bit)));
  }
  static Bytes nibbles(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }

  static void store_bytes(Bytes x, std::byte* to) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
  // Neighbours in a byte: byte j = x[2j] * even + x[2j + 1] * odd.
  static void store_pairs(Bytes x, int even, int odd, std::byte* to) {
    const __m256i joined = _mm256_maddubs_epi16(x, _mm256_set1_epi16(static_cast<short>(even | odd << 8)));
    const __m128i out = _mm_packus_epi16(_mm256_castsi256_si128(joined), _mm256_extracti128_si256(joined, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), out);
  }
  // Halves in a byte: byte j = x[j] + 16 * x[j + 16].
  static void store_halves(Bytes x, std::byte* to) {
    const __m128i out =
        _mm_or_si128(_mm256_castsi256_si128(x), _mm_slli_epi16(_mm256_extracti128_si256(x, 1), 4));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), out);
  }
  // The low halves of 32 integers, each of 0..65535.
  static void store_words(const I (&x)[4], std::byte* to) {
    for (int i = 0; i < 4; i += 2) {
      const __m256i mixed =
          _mm256_packus_epi32(reinterpret_cast<__m256i>(x[i]), reinterpret_cast<__m256i>(x[i + 1]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * i), _mm256_permute4x64_epi64(mixed, 0xd8));
    }
  }
  static void store_words(const Half (&x)[4], std::byte* to) {
    for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * i), x[i]);
  }
  // The nearest f16 numbers, and back.
  static Half to_f16(F x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
  static F from_f16(Half x) { return _mm256_cvtph_ps(x); }
  static std::uint16_t to_f16(float x) {
    return static_cast<std::uint16_t>(
        _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
  }
  static float from_f16(std::uint16_t x) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x))); }

  // Sixteen sums, in double.
  class Sums {
   public:
    void add(const F (&x)[2]) {
      for (int i = 0; i < 2; ++i) {
        all_[2 * i] = _mm256_add_pd(all_[2 * i], _mm256_cvtps_pd(_mm256_castps256_ps128(x[i])));
        all_[2 * i + 1] = _mm256_add_pd(all_[2 * i + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(x[i], 1)));
      }
    }
    double total() const {
      const __m256d low = _mm256_add_pd(all_[0], all_[2]), high = _mm256_add_pd(all_[1], all_[3]);
      const __m256d four = _mm256_add_pd(low, high);  // (s0 + s8) + (s4 + s12) ..
      const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
      return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
    }

   private:
    __m256d all_[4] = {};
  };

 private:
  // Of cells, by the two tables of either sign.
  static Octets pick32(const std::int8_t (&table)[2][32], Octets cell) {
    return pick16(table[0], cell ^ std::int8_t{-128}) | pick16(table[1], cell);
  }
  static void widen(Octets low, Octets high, Words (&out)[2]) {
    const auto l = reinterpret_cast<__m256i>(low), h = reinterpret_cast<__m256i>(high);
    out[0] = reinterpret_cast<Words>(_mm256_unpacklo_epi8(l, h));
    out[1] = reinterpret_cast<Words>(_mm256_unpackhi_epi8(l, h));
  }
  // The floats of these halves.
  static void widen(const Words (&low)[2], const Words (&high)[2], F (&out)[4]) {
    for (int i = 0; i < 2; ++i) {
      const auto l = reinterpret_cast<__m256i>(low[i]), h = reinterpret_cast<__m256i>(high[i]);
      out[2 * i] = reinterpret_cast<F>(_mm256_unpacklo_epi16(l, h));
      out[2 * i + 1] = reinterpret_cast<F>(_mm256_unpackhi_epi16(l, h));
    }
  }
  template <class Op>
  static float fold(F x, Op op) {
    __m128 four = op(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = op(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(op(four, _mm_shuffle_ps(four, four, 1)));
  }
};

}  // namespace nib::inline v0::cpu
