// The packed order of codes with scales on a device: every place is taken once, and every code comes back as
// the number that its format says, whatever lies beside it.
#include <nibble/base/float16.hpp>
#include <nibble/formats/small_floats.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda/arch.cuh>
#include <cuda/scaled_tiles.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

using namespace cuda;

float number_of(NibblesLess8, unsigned code) { return static_cast<float>(static_cast<int>(code) - 8); }
float number_of(SignedBytes, unsigned code) { return static_cast<float>(static_cast<std::int8_t>(code)); }
float number_of(E4M3Bytes, unsigned code) { return E4M3::decode(static_cast<std::uint8_t>(code)); }
float number_of(E5M2Bytes, unsigned code) { return E5M2::decode(static_cast<std::uint8_t>(code)); }

std::uint16_t half_of(std::uint32_t pair, int half) { return static_cast<std::uint16_t>(pair >> 16 * half); }

template <class Codec>
std::uint32_t opened(std::uint32_t word, int j) {
  const Operands of = Codec::open(word, j);
  return Codec::kDifference ? subtract_bf16x2(of.first.value(), of.second.value())
                            : multiply_bf16x2(of.first.value(), of.second.value());
}

TEST_CASE_TEMPLATE("every code at every place is its number in bf16, whatever lies beside it", Codec,
                   NibblesLess8, SignedBytes, E4M3Bytes, E5M2Bytes) {
  constexpr unsigned kAll = Codec::kCodes == 8 ? 16 : 256;
  for (const unsigned beside : {0u, 5u, 10u, kAll - 1, kAll / 2})
    for (int at = 0; at < Codec::kCodes; ++at)
      for (unsigned code = 0; code < kAll; ++code) {
        std::uint8_t codes[8];
        std::fill_n(codes, 8, static_cast<std::uint8_t>(beside));
        codes[at] = static_cast<std::uint8_t>(code);
        const float number = number_of(Codec(), code);
        const bool finite = std::bit_cast<std::uint32_t>(number) << 1 < 0xff00'0000u;
        CHECK(Codec::holds(static_cast<std::uint8_t>(code)) == finite);
        if (!finite) continue;
        const std::uint16_t got = half_of(opened<Codec>(Codec::word(codes), at / 2), at % 2);
        // Of integers zero has no sign.
        if (got != to_bf16(number).bits) FAIL_CHECK("code ", code, " at ", at, " beside ", beside);
        CHECK(to_float(bf16{got}) == number);
      }
}

// Adds up how often each byte of a matrix is taken by codes and scales.
template <class Tiles>
std::vector<int> times_taken(const Tiles& tiles, int scale_bytes) {
  constexpr std::int64_t kCodes = 32 / kCodeBits<Tiles>;
  std::vector<int> taken(static_cast<std::size_t>(tiles.bytes()));
  const auto take = [&](std::int64_t from, std::int64_t bytes) {
    REQUIRE((from >= 0 && from % bytes == 0 && from + bytes <= tiles.bytes()));
    for (std::int64_t i = from; i < from + bytes; ++i) ++taken[static_cast<std::size_t>(i)];
  };
  const std::int64_t run = std::int64_t{Tiles::kSliceDepth} * kTileRows * scale_bytes / Tiles::kLineBytes;
  for (std::int64_t row = 0; row < tiles.rows; ++row) {
    for (std::int64_t i = 0; i < tiles.k; ++i) {
      const std::int64_t word = code_word_offset(tiles, row, i);
      if (i % kCodes)
        CHECK(word == code_word_offset(tiles, row, i - 1));
      else
        take(word, 4);
    }
    for (std::int64_t i = 0; i * run < tiles.k; ++i)
      take(scale_offset(tiles, row, i, scale_bytes), scale_bytes);
  }
  return taken;
}

template <class Tiles>
void check_places(int scale_bytes) {
  for (const Tiles tiles :
       {Tiles{16, 64}, {1, 32}, {17, 96}, {32, 256}, {40, 288}, {16, 2880}, {33, 480}, {16, 384}}) {
    CAPTURE(tiles.rows);
    CAPTURE(tiles.k);
    const std::vector<int> taken = times_taken(tiles, scale_bytes);
    CHECK(std::all_of(taken.begin(), taken.end(), [](int times) { return times <= 1; }));
    if (tiles.rows % 16 == 0 && tiles.k % Tiles::kSliceDepth == 0)
      CHECK(std::all_of(taken.begin(), taken.end(), [](int times) { return times == 1; }));
  }
}

TEST_CASE("codes and scales: each has a place of its own, and nothing is wasted but the padding") {
  check_places<Q4Tiles>(2);
  check_places<Q8Tiles>(2);
  check_places<ByteTiles>(4);
  // As many bytes as GGUF has for them.
  static_assert(Q4Tiles{4096, 4096}.bytes() == std::int64_t{4096} * 4096 / 32 * 18);
  static_assert(Q8Tiles{4096, 4096}.bytes() == std::int64_t{4096} * 4096 / 32 * 34);
}

}  // namespace
}  // namespace nib::test
