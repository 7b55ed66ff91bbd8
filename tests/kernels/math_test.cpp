// Rotary embedding and the plain functions behind it, against published numbers and long double.
#include <nibble/base/plain_math.hpp>
#include <nibble/kernels/rope.hpp>

#include <cmath>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("log, exp, cos and sin") {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-300, 300), angle(-3e7, 3e7), small(-600, 600);
  for (int i = 0; i < 200000; ++i) {
    const double x = std::pow(2.0, exponent(random)), y = small(random),
                 z = i % 2 ? angle(random) : small(random) / 100;
    CHECK(std::abs(static_cast<long double>(log_plain(x)) - std::log(static_cast<long double>(x))) <=
          4e-16L * std::max(1.0L, std::abs(std::log(static_cast<long double>(x)))));
    CHECK(std::abs(static_cast<long double>(exp_plain(y)) / std::exp(static_cast<long double>(y)) - 1) <
          5e-16L);
    const CosSin both = cos_sin(z);
    CHECK(std::abs(both.cos - std::cos(static_cast<long double>(z))) < 0x1p-50L);
    CHECK(std::abs(both.sin - std::sin(static_cast<long double>(z))) < 0x1p-50L);
  }
}

TEST_CASE("the frequencies of gpt-oss") {
  const double golden[32] = {1.0,
                             6.890443059e-1,
                             4.747820555e-1,
                             3.271458719e-1,
                             2.254180002e-1,
                             1.553229895e-1,
                             1.070244215e-1,
                             7.374456821e-2,
                             5.081327482e-2,
                             3.170569618e-2,
                             1.933500113e-2,
                             1.159204926e-2,
                             6.794959490e-3,
                             3.860359317e-3,
                             2.093792379e-3,
                             1.052602101e-3,
                             4.564839192e-4,
                             1.293187012e-4,
                             3.830881237e-5,
                             2.639646903e-5,
                             1.818833668e-5,
                             1.253256982e-5,
                             8.635495875e-6,
                             5.950239261e-6,
                             4.099978482e-6,
                             2.825066827e-6,
                             1.946596211e-6,
                             1.341291035e-6,
                             9.242089502e-7,
                             6.368209146e-7,
                             4.387978251e-7,
                             3.023511428e-7};
  RopeScaling scaling{.kind = RopeKind::yarn,
                      .factor = 32,
                      .original_context = 4096,
                      .fast = 32,
                      .slow = 1,
                      .truncate = false,
                      .attention = yarn_attention(32)};
  std::vector<float> frequencies(32);
  rope_frequencies(150000, 64, scaling, frequencies);
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(static_cast<double>(frequencies[i]) == doctest::Approx(golden[i]).epsilon(1e-6));
  CHECK(scaling.attention == doctest::Approx(1.3465735902799727).epsilon(1e-15));
  // Rounded bounds change what lies on the ramp (8..18), and nothing else.
  std::vector<float> truncated(32);
  scaling.truncate = true;
  rope_frequencies(150000, 64, scaling, truncated);
  for (std::size_t i = 0; i < 32; ++i) CHECK((frequencies[i] == truncated[i]) == (i < 9 || i > 17));
}

TEST_CASE("angles up to the end of the context") {
  std::vector<float> frequencies(32), cos(32), sin(32);
  rope_frequencies(150000, 64, {.factor = 32, .original_context = 4096, .truncate = false}, frequencies);
  for (const std::int64_t position : {0, 1, 77, 4095, 65537, 131071}) {
    rope_angles(position, frequencies, 1.25, cos.data(), sin.data());
    for (std::size_t i = 0; i < 32; ++i) {
      const long double angle = static_cast<float>(position) * frequencies[i];
      CHECK(static_cast<double>(cos[i]) ==
            doctest::Approx(static_cast<double>(1.25L * std::cos(angle))).epsilon(1e-7));
      CHECK(std::abs(static_cast<long double>(sin[i]) - 1.25L * std::sin(angle)) < 1e-7L);
    }
  }
}

}  // namespace
}  // namespace nib::test
