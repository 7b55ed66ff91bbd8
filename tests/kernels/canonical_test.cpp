// fma_canonical against the processor's own multiply-add under FTZ and DAZ where there is one, and against
// exact arithmetic in 128-bit floats everywhere.
#include "rig.hpp"
#include <nibble/base/float_scope.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nib::test {
namespace {

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

__extension__ using Wide = unsigned __int128;

// a * b + c by integers: exact at any distance of the exponents, then one rounding. Finite a, b, c.
float fma_by_integers(float a, float b, float c) {
  struct Parts {
    bool negative;
    int exponent;  // of the lowest mantissa bit
    Wide mantissa;
  };
  const auto parts = [](float x) {
    const std::uint32_t bits = bits_of(x);
    const auto e = static_cast<int>(bits >> 23 & 0xff);
    return Parts{(bits >> 31) != 0, e - 150,
                 e == 0 ? 0u : (bits & 0x7fffffu) | 0x800000u};  // subnormals are zero
  };
  Parts p = parts(a), q = parts(b), s = parts(c);
  Parts product{p.negative != q.negative, p.exponent + q.exponent, p.mantissa * q.mantissa};
  const bool zero_sign = product.negative && s.negative;
  if (product.mantissa == 0 && s.mantissa == 0) return zero_sign ? -0.0f : 0.0f;
  if (s.mantissa == 0) s.exponent = product.exponent;
  if (product.mantissa == 0) product.exponent = s.exponent;
  // Bring both to the lower exponent; what is more than 60 bits below the other only says "not zero".
  Parts *high = &product, *low = &s;
  if (high->exponent < low->exponent) std::swap(high, low);
  const int shift = high->exponent - low->exponent;
  if (shift <= 60) {
    high->mantissa <<= shift;
    high->exponent = low->exponent;
  } else {
    high->mantissa <<= 60;
    high->exponent -= 60;
    const int down = high->exponent - low->exponent;
    const bool lost =
        down >= 128 ? low->mantissa != 0 : (low->mantissa & ((static_cast<Wide>(1) << down) - 1)) != 0;
    low->mantissa = (down >= 128 ? 0 : low->mantissa >> down) | (lost ? 1u : 0u);  // sticky
    low->exponent = high->exponent;
  }
  Parts sum{high->negative, high->exponent, 0};
  if (high->negative == low->negative) {
    sum.mantissa = high->mantissa + low->mantissa;
  } else if (high->mantissa >= low->mantissa) {
    sum.mantissa = high->mantissa - low->mantissa;
  } else {
    sum.mantissa = low->mantissa - high->mantissa;
    sum.negative = low->negative;
  }
  if (sum.mantissa == 0) return 0.0f;
  int top = 127;
  while (!(sum.mantissa >> top & 1)) --top;
  // Round to 24 bits, to even; tininess is judged after rounding.
  if (top >= 24) {
    const int drop = top - 23;
    const Wide rest = sum.mantissa & ((static_cast<Wide>(1) << drop) - 1);
    const Wide half = static_cast<Wide>(1) << (drop - 1);
    sum.mantissa >>= drop;
    sum.exponent += drop;
    if (rest > half || (rest == half && (sum.mantissa & 1))) ++sum.mantissa;
    if (sum.mantissa == 1u << 24) {
      sum.mantissa >>= 1;
      ++sum.exponent;
    }
  } else {
    sum.mantissa <<= 23 - top;
    sum.exponent -= 23 - top;
  }
  const std::uint32_t sign = sum.negative ? 0x8000'0000u : 0u;
  const int exponent = sum.exponent + 150;
  if (exponent < 1) return std::bit_cast<float>(sign);
  if (exponent > 254) return std::bit_cast<float>(sign | 0x7f80'0000u);
  return std::bit_cast<float>(sign | static_cast<std::uint32_t>(exponent) << 23 |
                              (static_cast<std::uint32_t>(sum.mantissa) & 0x7fffffu));
}

#if defined(__x86_64__)
[[gnu::target("fma"), gnu::noinline]] float fma_by_processor(float a, float b, float c) {
  return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
#endif

struct Triple {
  float a, b, c;
};

void check(const Triple& t, bool processor) {
  const float got = fma_canonical(t.a, t.b, t.c);
  const float want = fma_by_integers(t.a, t.b, t.c);
  if (bits_of(got) != bits_of(want)) {
    CAPTURE(bits_of(t.a));
    CAPTURE(bits_of(t.b));
    CAPTURE(bits_of(t.c));
    REQUIRE(bits_of(got) == bits_of(want));
  }
#if defined(__x86_64__)
  if (processor) {
    const FloatScope scope;
    const float hardware = fma_by_processor(t.a, t.b, t.c);
    if (bits_of(got) != bits_of(hardware)) {
      CAPTURE(bits_of(t.a));
      CAPTURE(bits_of(t.b));
      CAPTURE(bits_of(t.c));
      REQUIRE(bits_of(got) == bits_of(hardware));
    }
  }
#else
  static_cast<void>(processor);
#endif
}

float any_finite(Random& random) {
  for (;;) {
    const auto x = std::bit_cast<float>(random.bits());
    if (std::isfinite(x)) return x;
  }
}

// c such that a * b + c lies at or beside the midpoint of two floats, or at the edge of the normal numbers.
Triple tight(Random& random) {
  Triple t{random.spread(-20, 20), random.spread(-20, 20), 0};
  switch (random.below(4)) {
    case 0: {  // few bits in the product, so that sums end in exact ties
      t.a = std::ldexp(static_cast<float>(random.below(4096)), random.below(20) - 10);
      t.b = std::ldexp(static_cast<float>(random.below(4096)), random.below(20) - 10);
      t.c = std::ldexp(static_cast<float>((random.bits() & 0xffffffu) | 0x800000u), random.below(30) - 15);
      break;
    }
    case 1:  // nearly cancels
      t.c = -t.a * t.b;
      t.c = std::bit_cast<float>(bits_of(t.c) + static_cast<std::uint32_t>(random.below(5)) - 2u);
      break;
    case 2: {  // around 2^-126
      t.a = random.spread(-70, -56);
      t.b = random.spread(-70, -56);
      t.c = random.spread(-128, -124);
      break;
    }
    default: {  // c far below or far above
      t.c = random.spread(-100, 60);
      break;
    }
  }
  if (random.chance(50)) t.c = -t.c;
  return t;
}

TEST_CASE("fma_canonical: four million random and tight triples, against integers and the processor") {
  NIB_RANDOM(random);
  const bool processor = this_machine().features.avx2_fma;
  for (int i = 0; i < 2'000'000; ++i)
    check({any_finite(random), any_finite(random), any_finite(random)}, processor);
  for (int i = 0; i < 2'000'000; ++i) check(tight(random), processor);
}

TEST_CASE("fma_canonical: subnormals, signed zeros and the edge of the normal numbers, all combinations") {
  const bool processor = this_machine().features.avx2_fma;
  std::vector<float> edges;
  for (const std::uint32_t bits : {0u, 1u, 0x7f'ffffu, 0x80'0000u, 0x80'0001u, 0xff'ffffu, 0x100'0000u,
                                   0x3f80'0000u, 0x3f80'0001u, 0x3f7f'ffffu, 0x4000'0000u, 0x3f00'0000u,
                                   0x7f7f'ffffu, 0x7f00'0000u, 0x2000'0000u, 0x1f80'0000u, 0x0c00'0000u})
    for (const std::uint32_t sign : {0u, 0x8000'0000u}) edges.push_back(std::bit_cast<float>(bits | sign));
  for (const float a : edges)
    for (const float b : edges)
      for (const float c : edges) check({a, b, c}, processor);
}

TEST_CASE("fma_canonical: the same in every rounding state of subnormals, and in constant expressions") {
  static_assert(fma_canonical(0x1p-100f, 0x1p-100f, 0.0f) == 0.0f);
  static_assert(fma_canonical(3.0f, 5.0f, 1.0f) == 16.0f);
  static_assert(fma_canonical(0x1.000002p0f, 0x1.000002p0f, -1.0f) == 0x1.000001p-22f);
  NIB_RANDOM(random);
  for (int i = 0; i < 200'000; ++i) {
    const Triple t = random.chance(50) ? tight(random)
                                       : Triple{any_finite(random), any_finite(random), any_finite(random)};
    const float outside = fma_canonical(t.a, t.b, t.c);
    const FloatScope scope;
    const float inside = fma_canonical(t.a, t.b, t.c);
    REQUIRE(bits_of(outside) == bits_of(inside));
  }
}

TEST_CASE("activation_bf16: below 2^-60 nothing is left, above it bf16's nearest") {
  CHECK(activation_bf16(0x1.fffffep-61f) == 0.0f);
  CHECK(activation_bf16(-0x1.fffffep-61f) == 0.0f);
  CHECK(activation_bf16(0x1p-60f) == 0x1p-60f);
  CHECK(activation_bf16(-0x1p-60f) == -0x1p-60f);
  CHECK(activation_bf16(1.0f + 0x1p-8f) == 1.0f);  // a tie goes to even
  CHECK(activation_bf16(1.0f + 0x3p-8f) == 1.0f + 0x1p-6f);
  CHECK(activation_bf16(1.0f + 0x1.0002p-8f) == 1.0f + 0x1p-7f);
}

TEST_CASE("chain_canonical: a whole octet in the order of the pair dot, the tail as zeros") {
  NIB_RANDOM(random);
  float w[13], x[13];
  for (float& v : w) v = random.normal();
  for (float& v : x) v = random.normal();
  float sum = 0;
  for (const int k : {4, 0, 5, 1, 6, 2, 7, 3, 12, 8, 9, 10, 11}) sum = fma_by_integers(w[k], x[k], sum);
  CHECK(bits_of(sum) == bits_of(chain_canonical(
                            13, [&](std::int64_t k) { return w[k]; }, [&](std::int64_t k) { return x[k]; })));
}

}  // namespace
}  // namespace nib::test
