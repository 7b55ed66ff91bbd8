// What AVX2 and AVX-512 share of sixteen bytes: floats as words of f16, and scales. Included behind the names
// of the intrinsics, by files compiled for them only, each of which has its own copy.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(NIB_EMULATE_AVX512)
#include <simde/x86/avx512.h>
#else
#include <immintrin.h>
#endif

namespace nib::inline v0::cpu {

// E4M3 times 2^-8: its exponent has the bias 7, that of f16 is 15. Subnormals are subnormal f16, which the
// conversion to f32 takes as what they are; of all codes only that of NaN carries into bit 14 when 1 is
// added, and gets the exponent of f16's NaN by it.
[[gnu::always_inline]] inline __m256i f16_of_e4m3(__m128i bytes) {
  const __m256i words = _mm256_cvtepi8_epi16(bytes);
  const __m256i magnitude = _mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16(0x3f80));
  const __m256i carry =
      _mm256_and_si256(_mm256_add_epi16(magnitude, _mm256_set1_epi16(0x0080)), _mm256_set1_epi16(0x4000));
  const __m256i sign = _mm256_and_si256(words, _mm256_set1_epi16(INT16_MIN));
  return _mm256_or_si256(_mm256_add_epi16(magnitude, carry), sign);
}

// The scale bytes (E8M0) of the first scales over the second ones, which are at most 127 apart.
struct ScaleBytes {
  alignas(16) std::byte bytes[16];
};
[[gnu::always_inline]] inline ScaleBytes ratio_of_scales(const void* over, const void* under) {
  const __m128i a = _mm_loadu_si128(static_cast<const __m128i*>(over)),
                b = _mm_loadu_si128(static_cast<const __m128i*>(under));
  ScaleBytes ratio;
  _mm_store_si128(reinterpret_cast<__m128i*>(ratio.bytes),
                  _mm_add_epi8(_mm_sub_epi8(a, b), _mm_set1_epi8(127)));
  return ratio;
}

// E5M2 is the upper byte of an f16.
[[gnu::always_inline]] inline __m256i f16_of_e5m2(__m128i bytes) {
  return _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8);
}

}  // namespace nib::inline v0::cpu
