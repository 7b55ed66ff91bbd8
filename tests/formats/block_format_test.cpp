// The composition: order of bits, bytes of a group, every code under every scale, groups that are not
// ordinary.
#include <nibble/formats/block_format.hpp>
#include <nibble/formats/minifloat.hpp>
#include <nibble/formats/mxfp4.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>

#include <doctest/doctest.h>

using nib::Block;
using nib::Format;
using nib::Minifloat;
using nib::Mxfp4;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using E2M3 = Minifloat<2, 3>;
using E3M2 = Minifloat<3, 2>;
using E4M3 = Minifloat<4, 3, nib::NonFinite::nan>;
using E5M2 = Minifloat<5, 2, nib::NonFinite::ieee>;
template <class Element>
using Mx = Block<Format::none, Element, nib::E8M0, 32, nib::FloorScale>;

std::byte byte(int value) { return static_cast<std::byte>(value); }

template <int Bits>
void check_bit_stream(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uint16_t codes[32], back[32];
  for (auto& code : codes) code = static_cast<std::uint16_t>(random() & ((1u << Bits) - 1));
  std::array<std::byte, 4 * Bits> bytes{};
  static_assert(nib::BitStream<Bits>::bytes(32) == bytes.size());
  nib::BitStream<Bits>::pack(codes, 32, bytes.data());
  for (int bit = 0; bit < 32 * Bits; ++bit) {
    const bool of_code = (codes[bit / Bits] >> (bit % Bits)) & 1;
    const bool of_byte = (std::to_integer<int>(bytes[static_cast<std::size_t>(bit / 8)]) >> (bit % 8)) & 1;
    REQUIRE(of_code == of_byte);
  }
  nib::BitStream<Bits>::unpack(bytes.data(), 32, back);
  for (int i = 0; i < 32; ++i) REQUIRE(back[i] == codes[i]);
}

// Every code under every scale decodes to the product, and encoding it under the same scale gives the code
// back wherever the product is a finite f32.
template <class F>
void check_all_codes_and_scales() {
  constexpr int kCodes = 1 << F::bits;
  std::uint32_t wrong_products = 0, wrong_returns = 0;
  for (int scale = 0; scale < 255; ++scale) {
    const std::byte stored = byte(scale);
    for (int first = 0; first < kCodes; first += F::group) {
      typename F::Code codes[F::group];
      for (int i = 0; i < F::group; ++i) codes[i] = static_cast<typename F::Code>((first + i) % kCodes);
      std::byte bytes[F::code_bytes];
      nib::BitStream<F::bits>::pack(codes, F::group, bytes);
      float values[F::group];
      double exact[F::group];
      F::decode_group(bytes, &stored, values);
      F::decode_group(bytes, &stored, exact);
      bool finite = true;
      for (int i = 0; i < F::group; ++i) {
        const double expected = std::ldexp(static_cast<double>(F::level(codes[i])), scale - 127);
        if (std::isnan(expected)) {
          wrong_products += !std::isnan(values[i]) + !std::isnan(exact[i]);
          finite = false;
          continue;
        }
        wrong_products += exact[i] != expected || std::signbit(exact[i]) != std::signbit(expected);
        wrong_products += values[i] != static_cast<float>(expected);
        finite = finite && std::isfinite(values[i]);
      }
      std::byte again[F::code_bytes];
      F::encode_codes(values, static_cast<std::uint8_t>(scale), again);
      typename F::Code back[F::group];
      nib::BitStream<F::bits>::unpack(again, F::group, back);
      for (int i = 0; i < F::group; ++i)
        if (std::isfinite(values[i])) wrong_returns += back[i] != codes[i];
    }
  }
  CHECK(wrong_products == 0);
  CHECK(wrong_returns == 0);
}

struct Mxfp4Group {
  std::byte codes[16]{}, scale{};
  explicit Mxfp4Group(const float (&values)[32]) { Mxfp4::encode_group(values, codes, &scale); }
  int code(int i) const { return (std::to_integer<int>(codes[i / 2]) >> (i % 2 ? 4 : 0)) & 15; }
};

}  // namespace

TEST_CASE("BitStream: code i lies at bits i * Bits of the stream") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  check_bit_stream<4>(seed);
  check_bit_stream<5>(seed);
  check_bit_stream<6>(seed);
  check_bit_stream<8>(seed);
  check_bit_stream<12>(seed);
}

TEST_CASE("Block: bits and bytes of the MX family") {
  static_assert(Mxfp4::code_bytes == 16 && Mxfp4::scale_bytes == 1 && Mxfp4::group == 32 && Mxfp4::bits == 4);
  static_assert(Mx<E2M3>::code_bytes == 24 && Mx<E3M2>::code_bytes == 24);
  static_assert(Mx<E4M3>::code_bytes == 32 && Mx<E5M2>::code_bytes == 32);
}

TEST_CASE("Block: every code under every scale") {
  check_all_codes_and_scales<Mxfp4>();
  check_all_codes_and_scales<Mx<E2M3>>();
  check_all_codes_and_scales<Mx<E3M2>>();
  check_all_codes_and_scales<Mx<E4M3>>();
  check_all_codes_and_scales<Mx<E5M2>>();
}

TEST_CASE("MXFP4: a group written out by hand") {
  // Bytes 0x10 0x32 ... hold the codes 0 1 2 3 ... with the even element in the low nibble; scale 128 is 2.
  std::byte codes[16];
  for (int j = 0; j < 16; ++j) codes[j] = byte((2 * j) % 16 | ((2 * j + 1) % 16) << 4);
  const std::byte scale = byte(128);
  float values[32];
  Mxfp4::decode_group(codes, &scale, values);
  const float expected[16] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};
  for (int i = 0; i < 32; ++i) {
    CHECK(values[i] == expected[i % 16]);
    CHECK(std::signbit(values[i]) == (i % 16 >= 8));
  }
}

TEST_CASE("MXFP4: scale 255 makes every value NaN") {
  std::byte codes[16];
  for (int j = 0; j < 16; ++j) codes[j] = byte((2 * j) % 16 | ((2 * j + 1) % 16) << 4);
  const std::byte scale = byte(255);
  float values[32];
  Mxfp4::decode_group(codes, &scale, values);
  for (const float value : values) CHECK(std::isnan(value));
}

TEST_CASE("MXFP4: groups that are not ordinary") {
  SUBCASE("zeros keep their sign, under scale code 0") {
    float values[32] = {};
    values[5] = -0.0f;
    const Mxfp4Group group(values);
    CHECK(group.scale == byte(0));
    for (int i = 0; i < 32; ++i) CHECK(group.code(i) == (i == 5 ? 8 : 0));
  }
  SUBCASE("an infinity or a NaN leaves no scale and no codes") {
    for (const float bad : {kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
      float values[32] = {1, 2, 3, -4};
      values[17] = bad;
      const Mxfp4Group group(values);
      CHECK(group.scale == byte(255));
      for (int i = 0; i < 32; ++i) CHECK(group.code(i) == 0);
    }
  }
  SUBCASE("subnormal values: scale code 0, and what is below a quarter of it is zero") {
    float values[32] = {0x1p-127f, -0x1p-128f, 0x1p-129f, 0x1.8p-129f,
                        std::numeric_limits<float>::denorm_min()};
    const Mxfp4Group group(values);
    CHECK(group.scale == byte(0));
    CHECK(group.code(0) == 2);
    CHECK(group.code(1) == 9);
    CHECK(group.code(2) == 0);  // a quarter of the scale: a tie, to even
    CHECK(group.code(3) == 1);
    CHECK(group.code(4) == 0);
  }
  SUBCASE("the largest floats fit") {
    float values[32] = {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(), 0x1p127f};
    const Mxfp4Group group(values);
    CHECK(group.scale == byte(252));
    CHECK(group.code(0) == 7);  // just under 8 in units of the scale: clipped
    CHECK(group.code(1) == 15);
    CHECK(group.code(2) == 6);
  }
}

TEST_CASE("MXFP4: at compile time") {
  constexpr auto kSum = [] {
    float values[32] = {1.0f, -6.0f, 0.3f, 3.4f};
    std::byte codes[16]{}, scale{};
    Mxfp4::encode_group(values, codes, &scale);
    float back[32]{};
    Mxfp4::decode_group(codes, &scale, back);
    return back[0] + back[1] + back[2] + back[3];
  }();
  static_assert(kSum == 1.0f - 6.0f + 0.5f + 3.0f);
}
