// quantize_rows: every value goes to its nearest level, errors stay within what the rule's arithmetic allows,
// and rows are independent.
#include <nibble/base/float_scope.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace {

constexpr std::int64_t kRows = 64, kK = 96;

std::vector<float> random_weights(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(kRows * kK);
  for (float& value : values) value = normal(random) * std::exp(0.75f * normal(random));
  return values;
}

struct Planes {
  std::vector<std::byte> codes, scales;
};

template <class F>
Planes quantized(const std::vector<float>& values, std::int64_t rows_at_once = kRows) {
  const auto row_codes = static_cast<std::int64_t>(F::code_bytes) * kK / F::group;
  const auto row_scales = static_cast<std::int64_t>(F::scale_bytes) * kK / F::group;
  Planes planes{std::vector<std::byte>(static_cast<std::size_t>(kRows * row_codes)),
                std::vector<std::byte>(static_cast<std::size_t>(kRows * row_scales))};
  for (std::int64_t row = 0; row < kRows; row += rows_at_once)
    nib::quantize_rows<F>(values.data() + row * kK, std::min(rows_at_once, kRows - row), kK,
                          planes.codes.data() + row * row_codes, planes.scales.data() + row * row_scales);
  return planes;
}

template <class F>
std::vector<float> dequantized(const Planes& planes) {
  std::vector<float> values(kRows * kK);
  const nib::EncodedMatrix matrix{F::id, kRows, kK, planes.codes.data(), planes.scales.data()};
  for (std::int64_t row = 0; row < kRows; ++row) nib::decode_row(matrix, row, values.data() + row * kK);
  return values;
}

// Largest error of a value in units of its group's largest magnitude, and the sum of squares.
struct Errors {
  double relative = 0, squares = 0;
  int not_nearest = 0;
};

template <class F>
Errors errors(const std::vector<float>& values) {
  const Planes planes = quantized<F>(values);
  const std::vector<float> back = dequantized<F>(planes);
  Errors result;
  for (std::size_t group = 0; group < values.size() / 32; ++group) {
    double largest = 0;
    for (std::size_t i = 0; i < 32; ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(values[group * 32 + i])));
    const double scale = std::ldexp(1.0, std::to_integer<int>(planes.scales[group]) - 127);
    for (std::size_t i = 0; i < 32; ++i) {
      const double value = values[group * 32 + i];
      const double error = std::fabs(value - static_cast<double>(back[group * 32 + i]));
      for (std::uint8_t code = 0; code < 16; ++code)
        result.not_nearest += std::fabs(value - scale * static_cast<double>(nib::E2M1::decode(code))) < error;
      result.relative = std::max(result.relative, error / largest);
      result.squares += error * error;
    }
  }
  return result;
}

}  // namespace

TEST_CASE("quantize_rows: MXFP4 errors are those of the nearest level, within the bound of the rule") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  for (std::uint32_t round = 0; round < 20; ++round) {
    const std::vector<float> values = random_weights(seed + round);
    const Errors floor = errors<nib::Mxfp4With<nib::FloorScale>>(values);
    const Errors round_up = errors<nib::Mxfp4With<nib::RoundUpScale>>(values);
    const Errors least = errors<nib::Mxfp4With<nib::LeastErrorScale>>(values);
    CHECK(floor.not_nearest + round_up.not_nearest + least.not_nearest == 0);
    // In units of the scale: floor puts the largest value in [4, 8), so the worst are 8 clipped to 6 (2 of 8)
    // and the tie at 5 (1 of at least 5). Round-up puts it in (3, 6]: the tie at 5 again, and the tie at 2.5
    // (0.5 of 3).
    CHECK(floor.relative < 1.0 / 4);
    CHECK(round_up.relative <= 1.0 / 5);
    CHECK(least.squares <= floor.squares);
    CHECK(least.squares <= round_up.squares);
  }
}

TEST_CASE("quantize_rows: what was quantized once stays as it is") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const auto check = [&](auto format) {
    using F = decltype(format);
    const std::vector<float> once = dequantized<F>(quantized<F>(random_weights(seed)));
    const std::vector<float> twice = dequantized<F>(quantized<F>(once));
    CHECK(once == twice);
  };
  check(nib::Mxfp4With<nib::FloorScale>{});
  check(nib::Mxfp4With<nib::RoundUpScale>{});
  check(nib::Mxfp4With<nib::LeastErrorScale>{});
  check(nib::PlainF32{});
  check(nib::PlainF16{});
  check(nib::PlainBf16{});
}

TEST_CASE("quantize_rows: pieces give the bytes of the whole") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::vector<float> values = random_weights(seed);
  const Planes whole = quantized<nib::Mxfp4>(values);
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{7}, std::int64_t{63}}) {
    const Planes pieces = quantized<nib::Mxfp4>(values, rows);
    CHECK(pieces.codes == whole.codes);
    CHECK(pieces.scales == whole.scales);
  }
}

TEST_CASE("quantize_rows: the host's rounding mode and flushed subnormals change no byte of normal numbers") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const auto check = [&](auto format) {
    using F = decltype(format);
    for (const int exponent : {-100, 0, 100}) {
      std::vector<float> values = random_weights(seed);
      for (float& value : values) value = std::ldexp(value, exponent);
      const Planes expected = quantized<F>(values);
      for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        std::fesetround(mode);
        const Planes planes = quantized<F>(values);
        std::fesetround(FE_TONEAREST);
        CHECK(planes.codes == expected.codes);
        CHECK(planes.scales == expected.scales);
      }
      const auto flushed = [&] {
        const nib::FloatScope scope;
        return quantized<F>(values);
      }();
      CHECK(flushed.codes == expected.codes);
      CHECK(flushed.scales == expected.scales);
    }
  };
  check(nib::Mxfp4With<nib::FloorScale>{});
  check(nib::Mxfp4With<nib::RoundUpScale>{});
  check(nib::PlainF16{});
  check(nib::PlainBf16{});
}

TEST_CASE("quantize_rows: f32 keeps every bit and needs no scales") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::vector<float> values = random_weights(seed);
  CHECK(dequantized<nib::PlainF32>(quantized<nib::PlainF32>(values)) == values);
}
