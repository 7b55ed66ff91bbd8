// The packed order of MXFP4 on a device: every place is taken once, every code and scale comes back as what
// the OCP specification says it is.
#include <nibble/base/float16.hpp>
#include <nibble/formats/mxfp4.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <cuda/arch.cuh>
#include <cuda/pack_mxfp4.hpp>
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
        const std::int64_t word = tiles.word_offset(row, i);
        REQUIRE((word >= 0 && word + 4 <= tiles.bytes()));
        CHECK(word % 4 == 0);
        if (i % 8)
          CHECK(word == tiles.word_offset(row, i - 1));
        else
          for (int byte = 0; byte < 4; ++byte) ++taken[static_cast<std::size_t>(word + byte)];
        if (i % 32 == 0) ++taken[static_cast<std::size_t>(tiles.scale_offset(row, i / 32))];
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

// A lane's view of a tile, as the comment at the top of mxfp4_tiles.hpp tells it: loads and selects by lane,
// independently of word_offset and scale_offset.
double weight_by_lanes(const Mxfp4Tiles& tiles, const std::vector<std::byte>& packed, std::int64_t row,
                       std::int64_t i, int lowered_by) {
  const std::int64_t tile = row / 16, slice = i / 256, block = i % 256 / 64, half = i % 64 / 32;
  const int group = static_cast<int>(row % 8), in_group = static_cast<int>(i % 32 / 8), below = row % 16 >= 8;
  const std::byte* const at = packed.data() + tile * tiles.tile_bytes() + slice * 2176;
  std::uint32_t words[4];
  std::memcpy(words, at + 128 + block * 512 + (group * 4 + in_group) * 16, 16);
  std::uint8_t scales[16];
  std::memcpy(scales, at + group * 16, 16);
  const CodePairs pairs = untwiddle(words[half * 2 + below]);
  const std::uint32_t factor = scale_pair(scales[below * 8 + block * 2 + half]);
  const std::uint32_t weights = multiply_bf16x2(pairs.at[i % 8 / 2], factor);
  return std::ldexp(half_of(weights, static_cast<unsigned>(i % 2)), lowered_by);
}

TEST_CASE("packed matrices read by lanes are what was packed") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (const Mxfp4Tiles tiles : {Mxfp4Tiles{16, 64}, {5, 32}, {37, 352}, {16, 576}})
    for (const int least : {0, 100, 126}) {
      const std::int64_t groups = tiles.rows * tiles.k / 32;
      std::vector<std::byte> codes(static_cast<std::size_t>(groups * 16)),
          scales(static_cast<std::size_t>(groups));
      for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
      for (std::byte& byte : scales)
        byte = static_cast<std::byte>(static_cast<unsigned>(least) + random() % 129);
      scales[0] = static_cast<std::byte>(least + 128);
      codes[0] = std::byte{0x11};
      ScaleExtent extent;
      extent.see(codes, scales);
      const auto lowered = extent.lowered_by();
      REQUIRE(lowered.ok());
      CHECK(lowered.value() == least);
      std::vector<std::byte> packed(static_cast<std::size_t>(tiles.bytes()), std::byte{0xee});
      for (std::int64_t tile = 0; tile < tiles.tiles(); ++tile)
        pack_tile(tiles, consecutive_rows(tile, tiles.rows), codes.data(), scales.data(), lowered.value(),
                  packed.data() + tile * tiles.tile_bytes());
      for (std::int64_t row = 0; row < tiles.tiles() * 16; ++row)
        for (std::int64_t i = 0;
             i < std::int64_t{tiles.slices() - 1} * 256 + tiles.blocks(tiles.slices() - 1) * 64; ++i) {
          double wanted = 0;
          if (row < tiles.rows && i < tiles.k) {
            const std::int64_t index = row * tiles.k + i;
            const auto two = std::to_integer<unsigned>(codes[static_cast<std::size_t>(index / 2)]);
            const auto scale = std::to_integer<int>(scales[static_cast<std::size_t>(index / 32)]);
            wanted = std::ldexp(level(index % 2 ? two >> 4 : two & 15), scale - 127);
          }
          if (weight_by_lanes(tiles, packed, row, i, lowered.value()) != wanted)
            FAIL_CHECK("row ", row, ", input ", i, " of ", tiles.rows, " x ", tiles.k);
        }
    }
}

TEST_CASE("rows of gates and ups: each once, both of a unit eight apart") {
  for (const std::int64_t units : {1, 8, 20, 2880}) {
    std::vector<int> seen(static_cast<std::size_t>(2 * units));
    for (std::int64_t tile = 0; tile < (units + 7) / 8; ++tile) {
      const TileRows rows = gate_up_rows(tile, units);
      for (std::size_t i = 0; i < 8; ++i) {
        CHECK((rows[i] < 0) == (rows[i + 8] < 0));
        if (rows[i] < 0) continue;
        CHECK(rows[i] % 2 == 0);
        CHECK(rows[i + 8] == rows[i] + 1);
        ++seen[static_cast<std::size_t>(rows[i])];
        ++seen[static_cast<std::size_t>(rows[i + 8])];
      }
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  }
}

TEST_CASE("scales: what fits, what is lowered, what is refused") {
  const auto extent_of = [](std::initializer_list<int> of_values, std::initializer_list<int> of_zeros) {
    ScaleExtent extent;
    const auto see = [&](int scale, std::byte code) {
      const std::vector<std::byte> codes(16, code);
      const std::byte one{static_cast<std::uint8_t>(scale)};
      extent.see(codes, {&one, 1});
    };
    for (const int scale : of_values) see(scale, std::byte{0x10});
    for (const int scale : of_zeros) see(scale, std::byte{0x80});
    return extent.lowered_by();
  };
  CHECK(extent_of({}, {}).value() == 0);
  CHECK(extent_of({0, 128}, {}).value() == 0);
  CHECK(extent_of({120, 130}, {}).value() == 2);
  CHECK(extent_of({126, 254}, {}).value() == 126);
  CHECK(extent_of({120}, {0, 254}).value() == 0);
  CHECK(extent_of({1, 130}, {}).status().code() == Code::unsupported);
  CHECK(extent_of({1, 130}, {}).status().message() ==
        "scales from 2^-126 to 2^3: expected the largest at most 2^128 times the smallest");
  CHECK(extent_of({120}, {255}).status().message() == "a scale is NaN");
  CHECK(extent_of({255}, {}).status().code() == Code::unsupported);
}

}  // namespace
}  // namespace nib::test
