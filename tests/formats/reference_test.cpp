// The oracle itself, against sums written down without it.
#include <nibble/formats/reference.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace {

constexpr std::int64_t kRows = 5, kK = 96, kN = 3;

struct RandomMatrix {
  std::vector<std::byte> codes, scales;
  std::vector<long double> values;  // what the bytes mean, by another route

  RandomMatrix(nib::Format format, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto append = [this](const void* bytes, std::size_t size) {
      const auto* from = static_cast<const std::byte*>(bytes);
      codes.insert(codes.end(), from, from + size);
    };
    if (format == nib::Format::mxfp4) {
      static constexpr double kLevels[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
      for (int group = 0; group < kRows * kK / 32; ++group) {
        const int exponent = static_cast<int>(random() % 40) - 20;
        scales.push_back(static_cast<std::byte>(exponent + 127));
        for (int j = 0; j < 16; ++j) {
          const auto byte = static_cast<std::uint8_t>(random());
          codes.push_back(static_cast<std::byte>(byte));
          for (const int code : {byte & 15, byte >> 4})
            values.push_back((code & 8 ? -1 : 1) *
                             std::ldexp(static_cast<long double>(kLevels[code & 7]), exponent));
        }
      }
      return;
    }
    for (int i = 0; i < kRows * kK; ++i) {  // little-endian machines only, as the tests' hosts are
      const float value = normal(random);
      const auto word = std::bit_cast<std::uint32_t>(value);
      if (format == nib::Format::f32) {
        append(&value, 4);
        values.push_back(static_cast<long double>(value));
      } else if (format == nib::Format::bf16) {
        const auto half = static_cast<std::uint16_t>(word >> 16);
        append(&half, 2);
        values.push_back(static_cast<long double>(std::bit_cast<float>(word & 0xffff'0000u)));
      } else {
        const auto half = static_cast<std::uint16_t>(random() % 0x7c00 | (random() % 2) << 15);
        append(&half, 2);
        const int exponent = (half >> 10) & 31, fraction = half & 1023;
        const long double magnitude = exponent ? std::ldexp(1024.0L + fraction, exponent - 25)
                                               : std::ldexp(static_cast<long double>(fraction), -24);
        values.push_back(half >> 15 ? -magnitude : magnitude);
      }
    }
  }
};

}  // namespace

TEST_CASE("reference: rows, dot products and matrix products in every format") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(kN * kK);
  for (float& value : x) value = normal(random);

  for (const nib::Format format :
       {nib::Format::f32, nib::Format::f16, nib::Format::bf16, nib::Format::mxfp4}) {
    const nib::FormatInfo& info = nib::format_info(format);
    CAPTURE(std::string(info.name));
    const RandomMatrix matrix(info.format, seed);
    const nib::EncodedMatrix w{info.format, kRows, kK, matrix.codes.data(),
                               matrix.scales.empty() ? nullptr : matrix.scales.data()};
    std::vector<nib::ReferenceDot> y(kN * kRows);
    nib::matmul_reference(w, x.data(), kN, y.data());
    for (std::int64_t row = 0; row < kRows; ++row) {
      double exact[kK];
      float rounded[kK];
      nib::decode_row(w, row, exact);
      nib::decode_row(w, row, rounded);
      for (std::int64_t i = 0; i < kK; ++i) {
        const auto expected = static_cast<double>(matrix.values[static_cast<std::size_t>(row * kK + i)]);
        REQUIRE(exact[i] == expected);
        REQUIRE(rounded[i] == static_cast<float>(expected));
      }
      for (std::int64_t n = 0; n < kN; ++n) {
        long double sum = 0, magnitude = 0;
        for (std::int64_t i = 0; i < kK; ++i) {
          const long double term = matrix.values[static_cast<std::size_t>(row * kK + i)] *
                                   static_cast<long double>(x[static_cast<std::size_t>(n * kK + i)]);
          sum += term;
          magnitude += std::fabs(term);
        }
        const nib::ReferenceDot& dot = y[static_cast<std::size_t>(n * kRows + row)];
        // A product is rounded once and passes through at most k additions, each within 2^-53 of the
        // magnitude.
        const long double tolerance = (kK + 1) * 0x1p-53L * magnitude;
        REQUIRE(std::fabs(static_cast<long double>(dot.value) - sum) <= tolerance);
        REQUIRE(std::fabs(static_cast<long double>(dot.magnitude) - magnitude) <= tolerance);
        const nib::ReferenceDot alone = nib::dot_row(w, row, x.data() + n * kK);
        REQUIRE(alone.value == dot.value);
      }
    }
  }
}
