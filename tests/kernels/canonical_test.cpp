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
bool has_fma() { return this_machine().features.avx2_fma; }
#elif defined(__aarch64__)
[[gnu::noinline]] float fma_by_processor(float a, float b, float c) {
  float out;
  asm("fmadd %s0, %s1, %s2, %s3" : "=w"(out) : "w"(a), "w"(b), "w"(c));
  return out;
}
bool has_fma() { return true; }
#else
float fma_by_processor(float, float, float) { return 0; }
bool has_fma() { return false; }
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
  if (processor) {
    const FloatScope scope;
    REQUIRE(bits_of(fma_canonical(t.a, t.b, t.c)) == bits_of(got));
    const float hardware = fma_by_processor(t.a, t.b, t.c);
    // One that flushes before rounding is off at the least normal number, and nowhere else.
    const bool flushed = kFlushesBeforeRounding && std::abs(got) == 0x1p-126f && hardware == 0 &&
                         std::signbit(hardware) == std::signbit(got);
    if (bits_of(got) != bits_of(hardware) && !flushed) {
      CAPTURE(bits_of(t.a));
      CAPTURE(bits_of(t.b));
      CAPTURE(bits_of(t.c));
      REQUIRE(bits_of(got) == bits_of(hardware));
    }
  }
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
  const bool processor = has_fma();
  for (int i = 0; i < 2'000'000; ++i)
    check({any_finite(random), any_finite(random), any_finite(random)}, processor);
  for (int i = 0; i < 2'000'000; ++i) check(tight(random), processor);
}

TEST_CASE("fma_canonical: subnormals, signed zeros and the edge of the normal numbers, all combinations") {
  const bool processor = has_fma();
  std::vector<float> edges;
  for (const std::uint32_t bits : {0u, 1u, 0x7f'ffffu, 0x80'0000u, 0x80'0001u, 0xff'ffffu, 0x100'0000u,
                                   0x3f80'0000u, 0x3f80'0001u, 0x3f7f'ffffu, 0x4000'0000u, 0x3f00'0000u,
                                   0x7f7f'ffffu, 0x7f00'0000u, 0x2000'0000u, 0x1f80'0000u, 0x0c00'0000u})
    for (const std::uint32_t sign : {0u, 0x8000'0000u}) edges.push_back(std::bit_cast<float>(bits | sign));
  for (const float a : edges)
    for (const float b : edges)
      for (const float c : edges) check({a, b, c}, processor);
}

// Two numbers of about 2^-63 whose product is within a few units of the last place of 2^-126, mostly below.
Triple least_product(Random& random) {
  const float a = random.spread(-63, -63);
  const auto b = static_cast<float>(0x1p-126 / static_cast<double>(a));
  return {a, std::bit_cast<float>(bits_of(b) - static_cast<std::uint32_t>(random.below(3)) / 2), 0.0f};
}

TEST_CASE("fma_canonical: what rounding makes the least normal number is not flushed, what lies below is") {
  NIB_RANDOM(random);
  for (int i = 0; i < 100'000; ++i) {
    const auto [a, b, zero] = least_product(random);
    check({a, b, zero}, has_fma());
    // 2^-126 less what is about 2^-151, the distance that decides.
    const float sign = random.chance(50) ? 1.0f : -1.0f;
    check({-a * sign, b * 0x1p-25f, 0x1p-126f * sign}, has_fma());
    check({-0x1p-75f * sign, 0x1p-76f * static_cast<float>(1 + random.below(3)), 0x1p-126f * sign},
          has_fma());
  }
  CHECK(fma_canonical(-0x1p-75f, 0x1p-76f, 0x1p-126f) == 0x1p-126f);  // a tie
  CHECK(fma_canonical(-0x1.000002p-75f, 0x1p-76f, 0x1p-126f) == 0.0f);
}

TEST_CASE("mul_canonical at the least normal number, against integers") {
  NIB_RANDOM(random);
  const FloatScope scope;
  for (int i = 0; i < 200'000; ++i) {
    const Triple t = least_product(random);
    REQUIRE(bits_of(mul_canonical(t.a, t.b)) == bits_of(fma_by_integers(t.a, t.b, -0.0f)));
  }
}

// Why there is no div_canonical: of numbers of 24 bits, (m - 1) / m comes nearest to a power of two from
// below, and that is farther than rounding would bridge. So all ways to flush agree.
TEST_CASE("quotients are flushed alike by every processor") {
  NIB_RANDOM(random);
  const FloatScope scope;
  for (int i = 0; i < 200'000; ++i) {
    const auto m = static_cast<float>(0x80'0001u + random.bits() % 0x7f'ffffu);
    REQUIRE(bits_of(std::ldexp(m - 1, -66) / std::ldexp(m, 60)) == 0);
    REQUIRE(std::ldexp(m, -66) / std::ldexp(m, 60) == 0x1p-126f);
  }
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
