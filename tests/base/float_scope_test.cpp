// FloatScope: canonical arithmetic inside, whatever was before; exactly what was before afterwards.
#include <nibble/base/float_scope.hpp>

#include <cfenv>
#include <cmath>
#include <thread>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Results of arithmetic the compiler cannot do itself.
float add(float a, float b) {
  volatile float x = a, y = b, sum = x + y;
  return sum;
}
float multiply(float a, float b) {
  volatile float x = a, y = b, out = x * y;
  return out;
}
float divide(float a, float b) {
  volatile float x = a, y = b, out = x / y;
  return out;
}

void check_canonical() {
  CHECK(add(1, 0x1p-24f) == 1.0f);  // ties to even, on both sides of zero
  CHECK(add(1, 0x1.8p-23f) == 1.0f + 0x1p-22f);
  CHECK(add(-1, -0x1p-24f) == -1.0f);
  CHECK(multiply(0x1p-126f, 0.5f) == 0.0f);         // a subnormal result
  CHECK(std::signbit(multiply(-0x1p-126f, 0.5f)));  // with its sign
  CHECK(multiply(0x1p-127f, 0x1p100f) == 0.0f);     // a subnormal operand
  CHECK(multiply(0x1p-126f, 0x1p126f) == 1.0f);     // the least normal number is one
  CHECK(std::isinf(divide(1, 0)));                  // without a trap
  CHECK(std::isnan(divide(0, 0)));
}

// How this thread rounds, told by results: <cfenv> may look at another unit of the processor.
int rounding() {
  if (add(1, 0x1p-24f) > 1) return FE_UPWARD;
  if (add(-1, -0x1p-24f) < -1) return FE_DOWNWARD;
  return add(1, 0x1.8p-23f) > 1.0f + 0x1p-23f ? FE_TONEAREST : FE_TOWARDZERO;
}

class Rounding {
 public:
  explicit Rounding(int mode) { std::fesetround(mode); }
  ~Rounding() { std::fesetround(FE_TONEAREST); }
};

TEST_CASE("canonical inside, the host's rounding and subnormals afterwards") {
  for (const int mode : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    CAPTURE(mode);
    const Rounding host(mode);
    REQUIRE(rounding() == mode);
    {
      const FloatScope scope;
      CHECK(rounding() == FE_TONEAREST);
      check_canonical();
    }
    CHECK(rounding() == mode);
    CHECK(multiply(0x1p-126f, 0.5f) == 0x1p-127f);
    CHECK(multiply(0x1p-127f, 0x1p100f) == 0x1p-27f);
  }
}

TEST_CASE("with subnormals kept: IEEE 754 inside, around and within another") {
  const Rounding host(FE_UPWARD);
  const FloatScope flushing;
  {
    const FloatScope keeping(Subnormals::kept);
    CHECK(rounding() == FE_TONEAREST);
    CHECK(multiply(0x1p-126f, 0.5f) == 0x1p-127f);
    CHECK(multiply(0x1p-127f, 0x1p100f) == 0x1p-27f);
    {
      const FloatScope again;
      check_canonical();
    }
    CHECK(multiply(0x1p-126f, 0.5f) == 0x1p-127f);
  }
  check_canonical();
}

TEST_CASE("nested, also around a host that changes the environment itself") {
  const Rounding host(FE_UPWARD);
  {
    const FloatScope outer;
    {
      const FloatScope inner;
      check_canonical();
    }
    check_canonical();  // the end of the inner one does not end the outer one
    std::fesetround(FE_DOWNWARD);
    {
      const FloatScope inner;
      check_canonical();
    }
    CHECK(rounding() == FE_DOWNWARD);
  }
  CHECK(rounding() == FE_UPWARD);
}

TEST_CASE("what happens inside leaves no exception flags outside") {
  std::feclearexcept(FE_ALL_EXCEPT);
  {
    const FloatScope scope;
    check_canonical();
    multiply(0x1p127f, 4);
  }
  CHECK(std::fetestexcept(FE_ALL_EXCEPT) == 0);
  std::feraiseexcept(FE_UNDERFLOW);
  { const FloatScope scope; }
  CHECK(std::fetestexcept(FE_UNDERFLOW) != 0);
  std::feclearexcept(FE_ALL_EXCEPT);
}

TEST_CASE("of its own thread only") {
  const Rounding host(FE_UPWARD);
  const FloatScope scope;
  int other = -1;
  std::thread([&] {
    std::fesetround(FE_UPWARD);
    other = rounding();
    { const FloatScope theirs; }
    std::fesetround(FE_DOWNWARD);
  }).join();
  CHECK(other == FE_UPWARD);
  check_canonical();
}

#if defined(__x86_64__)
TEST_CASE("every state of the control register comes back, unmasked traps too") {
  const unsigned before = _mm_getcsr();
  int wrong_inside = 0, wrong_after = 0;
  for (unsigned state = 0; state < 0x10000; state += 1) {
    // A flag that is set under an unmasked trap would trap at the next operation: flags stay where masked.
    if ((state & 0x3fu) & ~(state >> 7)) continue;
    _mm_setcsr(state);
    {
      const FloatScope scope;
      wrong_inside += (_mm_getcsr() & 0xffc0u) != 0x9fc0u;
      volatile float zero = 0, one = 1, infinite = one / zero;
      wrong_inside += infinite <= 1;
    }
    wrong_after += _mm_getcsr() != state;
    _mm_setcsr(before);
  }
  CHECK(wrong_inside == 0);
  CHECK(wrong_after == 0);
}
#endif

}  // namespace
}  // namespace nib::test
