// Four values at a time against one at a time: the same codes for any bits whatever, and around every
// threshold.
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/lanes.hpp>
#include <nibble/formats/scale_rules.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Random bits, random numbers of the size of codes, and every halfway point of two levels with its
// neighbours.
template <class Element>
std::vector<float> inputs(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values;
  for (int i = 0; i < 200'000; ++i)
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  std::normal_distribution<float> normal(0, Element::max() / 3);
  for (int i = 0; i < 200'000; ++i) values.push_back(normal(random));
  for (int a = 0; a < 1 << Element::bits; ++a)
    for (int b = 0; b < 1 << Element::bits; ++b) {
      const float low = Element::decode(static_cast<std::uint8_t>(a)),
                  high = Element::decode(static_cast<std::uint8_t>(b));
      const float middle = (low + high) / 2;
      for (const float x : {middle, std::nextafter(middle, low), std::nextafter(middle, high)})
        values.push_back(x);
    }
  const float infinity = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  for (const float x : {0.0f, -0.0f, infinity, -infinity, nan, -nan, 1e-42f, -1e-42f}) values.push_back(x);
  values.resize(values.size() / 4 * 4);
  return values;
}

template <class Element>
void check(const char* name) {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(name);
  CAPTURE(seed);
  const std::vector<float> values = inputs<Element>(seed);
  std::vector<std::int32_t> codes(values.size());
  lanes::encode<Element>(values.data(), static_cast<int>(values.size()), codes.data(),
                         [](lanes::Floats x) { return x; });
  std::size_t different = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (codes[i] == Element::encode(values[i])) continue;
    if (different++ == 0)
      MESSAGE(values[i] << ": " << codes[i] << ", by definition " << int{Element::encode(values[i])});
  }
  CHECK(different == 0);
}

TEST_CASE("four values get the codes that each gets alone") {
  check<E2M1>("e2m1");
  check<Nf4Levels>("nf4");
  check<BnbFp4Levels>("fp4");
  check<SymmetricInt<8>>("int8");
  check<E4M3>("e4m3");
}

TEST_CASE("the largest magnitude, of any count") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int count = 0; count < 70; ++count) {
    std::vector<float> values;
    std::uint32_t expected = 0;
    for (int i = 0; i < count; ++i) {
      values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
      expected = std::max(expected, std::bit_cast<std::uint32_t>(values.back()) & 0x7fff'ffffu);
    }
    CHECK(lanes::largest(values.data(), count) == expected);
  }
}

// A constant expression takes the definition, and a running program the lanes.
template <class F>
bool same_at_both_times() {
  constexpr auto kBlock = [] {
    struct Out {
      std::byte bytes[F::code_bytes] = {};
    } out;
    float values[F::group] = {};
    for (int i = 0; i < F::group; ++i) values[i] = static_cast<float>((i * 37 + 11) % 64 - 30) * 0.37f;
    F::encode_group(values, out.bytes, nullptr);
    return out;
  }();
  float values[F::group];
  std::byte bytes[F::code_bytes];
  for (int i = 0; i < F::group; ++i) values[i] = static_cast<float>((i * 37 + 11) % 64 - 30) * 0.37f;
  F::encode_group(values, bytes, nullptr);
  return std::equal(std::begin(bytes), std::end(bytes), std::begin(kBlock.bytes));
}

TEST_CASE("blocks of GGUF are the same when compiled as when run") {
  CHECK(same_at_both_times<Q4_0>());
  CHECK(same_at_both_times<Q4_1>());
  CHECK(same_at_both_times<Q5_0>());
  CHECK(same_at_both_times<Q5_1>());
  CHECK(same_at_both_times<Q8_0>());
  CHECK(same_at_both_times<GgufMxfp4>());
}

}  // namespace
}  // namespace nib::test
