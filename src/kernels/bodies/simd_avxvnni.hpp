// The verbs on AVX2 with AVX-VNNI: four products of bytes and their sum are one instruction. Included by
// files compiled for it only, and by a test that says the instruction in AVX2.
#pragma once

#include "simd_avx2.hpp"

#include <cstdint>

namespace nib::inline v0::cpu {

#if defined(NIB_EMULATE_AVXVNNI)
inline namespace emulated {  // another type than the real one: both may be in one program
#endif

struct Avxvnni : Avx2Verbs<Avxvnni> {
  // As those of AVX-512, in two registers.
  template <bool kNarrow>
  struct ByteSums {
    static constexpr bool kCodesAddUp = kNarrow;
    static constexpr int kTogether = 6;  // rows that the registers hold
    using Codes = P;
    P sums;
    static Codes codes(P bytes) { return bytes; }
    static Codes plus(Codes a, Codes b) { return {_mm256_add_epi8(a.lo, b.lo), _mm256_add_epi8(a.hi, b.hi)}; }
    static ByteSums zero() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
    void add(std::uint32_t x, const Codes& w) {
      const __m256i four = _mm256_set1_epi32(static_cast<int>(x));
      sums = {dot(sums.lo, four, w.lo), dot(sums.hi, four, w.hi)};
    }
    ByteSums less(const ByteSums& other) const {
      return {{_mm256_sub_epi32(sums.lo, other.sums.lo), _mm256_sub_epi32(sums.hi, other.sums.hi)}};
    }
    F value() const { return of_integers(sums); }
  };
  using NarrowSums = ByteSums<true>;
  using WideSums = ByteSums<false>;
  static constexpr int kByteRows = 6;

 private:
  // sums + the products of unsigned and signed bytes, four to a dword.
  static __m256i dot(__m256i sums, __m256i x, __m256i w) {
#if defined(NIB_EMULATE_AVXVNNI)
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8)),
                  odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
#else
    return _mm256_dpbusd_avx_epi32(sums, x, w);
#endif
  }
};

#if defined(NIB_EMULATE_AVXVNNI)
}  // namespace emulated
#endif
}  // namespace nib::inline v0::cpu
