// The packed order of MXFP4 on a device: every place is taken once, every code and scale comes back as what
// the OCP specification says it is.
#include <nibble/base/float16.hpp>
#include <nibble/formats/mxfp4.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <cuda/arch.cuh>
#include <cuda/bf16_tiles.hpp>
#include <cuda/mxfp4_tiles.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

using namespace cuda;

// A pair's half as a double; bf16's subnormals are exact here whatever the environment flushes.
double half_of(std::uint32_t pair, unsigned half) {
  const std::uint32_t bits = pair >> 16 * half & 0xffff;
  const int exponent = static_cast<int>(bits >> 7 & 0xff);
  const double magnitude =
      std::ldexp(static_cast<double>((bits & 0x7f) + (exponent ? 128 : 0)), (exponent ? exponent : 1) - 134);
  return bits & 0x8000 ? -magnitude : magnitude;
}

// By definition: the value of a code, from its bits.
double level(unsigned code) {
  const double magnitudes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
}

TEST_CASE("a word holds eight codes, each at its own bits") {
  std::uint32_t all = 0;
  for (unsigned at = 0; at < 8; ++at) {
    std::uint8_t codes[8] = {};
    codes[at] = 15;
    const std::uint32_t bits = twiddle(codes);
    CHECK((all & bits) == 0);
    CHECK(__builtin_popcount(bits) == 4);
    all |= bits;
  }
  CHECK(all == 0xffff'ffff);
}

TEST_CASE(
    "every code at every place with every scale is what OCP MX says, exactly, whatever lies beside it") {
  for (const unsigned beside : {0, 5, 10, 15})
    for (unsigned at = 0; at < 8; ++at)
      for (unsigned code = 0; code < 16; ++code) {
        std::uint8_t codes[8];
        std::fill_n(codes, 8, static_cast<std::uint8_t>(beside));
        codes[at] = static_cast<std::uint8_t>(code);
        const CodePairs pairs = untwiddle(twiddle(codes));
        CHECK(half_of(pairs.at[at / 2], at % 2) == std::ldexp(level(code), -126));
        CHECK((pairs.at[at / 2] >> 16 * (at % 2) & 0x8000) == (code & 8) << 12);  // -0 is not 0
        for (int scale = 0; scale <= kMostScale; ++scale) {
          const std::uint32_t factor = scale_pair(static_cast<std::uint32_t>(scale + kScaleBias));
          const std::uint32_t weights = multiply_bf16x2(pairs.at[at / 2], factor);
          if (half_of(weights, at % 2) != std::ldexp(level(code), scale - 127))
            FAIL_CHECK("code ", code, " at ", at, " beside ", beside, ", scale ", scale);
        }
      }
}

TEST_CASE("random words: eight codes come back") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t bits = random();
    std::uint8_t codes[8];
    for (unsigned j = 0; j < 8; ++j) codes[j] = bits >> 4 * j & 15;
    const CodePairs pairs = untwiddle(twiddle(codes));
    bool right = true;
    for (unsigned j = 0; j < 8; ++j)
      right = right && half_of(pairs.at[j / 2], j % 2) == std::ldexp(level(codes[j]), -126);
    CHECK(right);
  }
}

TEST_CASE("each code and scale of a matrix has a place of its own, and nothing is wasted but the padding") {
  for (const Mxfp4Tiles tiles :
       {Mxfp4Tiles{16, 64}, {1, 32}, {17, 96}, {32, 256}, {40, 288}, {16, 2880}, {33, 480}}) {
    CAPTURE(tiles.rows);
    CAPTURE(tiles.k);
    std::vector<int> taken(static_cast<std::size_t>(tiles.bytes()));
    for (std::int64_t row = 0; row < tiles.rows; ++row)
      for (std::int64_t i = 0; i < tiles.k; ++i) {
        const std::int64_t word = mxfp4_word_offset(tiles, row, i);
        REQUIRE((word >= 0 && word + 4 <= tiles.bytes()));
        CHECK(word % 4 == 0);
        if (i % 8)
          CHECK(word == mxfp4_word_offset(tiles, row, i - 1));
        else
          for (int byte = 0; byte < 4; ++byte) ++taken[static_cast<std::size_t>(word + byte)];
        if (i % 32 == 0) ++taken[static_cast<std::size_t>(mxfp4_scale_offset(tiles, row, i / 32))];
      }
    std::int64_t used = 0;
    bool once = true;
    for (const int times : taken) {
      once = once && times <= 1;
      used += times;
    }
    CHECK(once);
    CHECK(used == tiles.rows * tiles.k / 32 * 17);
    if (tiles.rows % 16 == 0 && tiles.k % 256 == 0) CHECK(used == tiles.bytes());
  }
  // gpt-oss: 2880 inputs are eleven slices and one of a single block; 0.4 % more than the bits of the format.
  constexpr Mxfp4Tiles kGptOss{5760, 2880};
  static_assert(kGptOss.tile_bytes() == 11 * 2176 + 640 && kGptOss.slices() == 12 && kGptOss.blocks(11) == 1);
}

TEST_CASE("each number of a bf16 matrix has a place of its own") {
  for (const Bf16Tiles tiles : {Bf16Tiles{16, 64}, {1, 2}, {17, 96}, {40, 200}}) {
    std::vector<int> taken(static_cast<std::size_t>(tiles.bytes()));
    for (std::int64_t row = 0; row < tiles.rows; ++row)
      for (std::int64_t i = 0; i < tiles.k; ++i) {
        const std::int64_t at = bf16_offset(tiles, row, i);
        REQUIRE((at >= 0 && at + 2 <= tiles.bytes()));
        CHECK(at % 4 == i % 2 * 2);
        ++taken[static_cast<std::size_t>(at)];
      }
    CHECK(std::all_of(taken.begin(), taken.end(), [](int times) { return times <= 1; }));
    CHECK(std::count(taken.begin(), taken.end(), 1) == tiles.rows * tiles.k);
  }
}

}  // namespace
}  // namespace nib::test
