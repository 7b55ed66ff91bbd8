// Packing against the drawing in packed.hpp, by a reader of its own that knows nothing but the drawing.
#include "rig.hpp"

namespace nib::test {
namespace {

// Where the drawing says that byte `byte` of the tile of value (row, k) lies: walks groups of four strips,
// macro-tiles, lines.
std::size_t in_tile(const Encoded& w, std::int64_t row, std::int64_t k, std::size_t byte) {
  const auto size_of_tile = [&](std::int64_t inputs) -> std::size_t {
    const auto octets = static_cast<std::size_t>((inputs + 7) / 8);
    if (w.format == Format::bf16 || w.format == Format::f16) return octets * 256;
    if (w.format == Format::f32) return octets * 512;
    const std::size_t scales = octets / 4 * 16;
    return octets * 64 + (scales + 63) / 64 * 64;
  };
  const std::int64_t strips = (w.rows + 15) / 16, strip = row / 16;
  std::size_t at = 0;
  for (std::int64_t group = 0; group < strips; group += 4) {
    const std::int64_t in_group = std::min<std::int64_t>(4, strips - group);
    for (std::int64_t begin = 0; begin < w.k; begin += 128)
      for (std::size_t line = 0; line < size_of_tile(std::min<std::int64_t>(128, w.k - begin)) / 64; ++line)
        for (std::int64_t s = group; s < group + in_group; ++s, at += 64)
          if (s == strip && begin == k / 128 * 128 && line == byte / 64) return at + byte % 64;
  }
  FAIL("no such value");
  return 0;
}

template <class T>
T read(const Packed& packed, std::size_t at) {
  REQUIRE(at + sizeof(T) <= packed.bytes.size());
  T value;
  std::memcpy(&value, packed.bytes.data() + at, sizeof value);
  return value;
}

// The code of (row, k), k < k rounded up to octets.
std::uint32_t code_at(const Encoded& w, const Packed& packed, std::int64_t row, std::int64_t k) {
  const auto at = [&](std::size_t byte) { return in_tile(w, row, std::min(k, w.k - 1), byte); };
  const auto octet = static_cast<std::size_t>(k % 128 / 8), lane = static_cast<std::size_t>(row % 16),
             i = static_cast<std::size_t>(k % 8);
  constexpr std::size_t kStepOf[8] = {1, 3, 5, 7, 0, 2, 4, 6};  // the chain runs 4 0 5 1 6 2 7 3
  switch (w.format) {
    case Format::mxfp4:
      return read<std::uint32_t>(packed, at(octet * 64 + lane * 4)) >> (4 * i) & 15u;
    case Format::bf16:
      return read<std::uint32_t>(packed, at(octet * 256 + i % 4 * 64 + lane * 4)) >> (i < 4 ? 0 : 16) &
             0xffffu;
    case Format::f16:
      return read<std::uint16_t>(packed, at(octet * 256 + kStepOf[i] * 32 + lane * 2));
    default:
      return read<std::uint32_t>(packed, at(octet * 512 + kStepOf[i] * 64 + lane * 4));
  }
}

std::uint32_t natural_code(const Encoded& w, std::int64_t row, std::int64_t k) {
  if (row >= w.rows || k >= w.k) return 0;
  const auto at = static_cast<std::size_t>(row * w.k + k);
  if (w.format == Format::mxfp4) return w.packed_code(at);
  if (w.format == Format::f32) return load_little_endian<std::uint32_t>(&w.codes[at * 4]);
  return load_little_endian<std::uint16_t>(&w.codes[at * 2]);
}

TEST_CASE("pack: every code lies where the drawing says, and what does not exist is zero") {
  NIB_RANDOM(random);
  for (const Format format : {Format::mxfp4, Format::bf16, Format::f16, Format::f32})
    for (const std::int64_t n : {1, 16, 17, 64, 80, 120})
      for (const std::int64_t k : format == Format::mxfp4
                                      ? std::vector<std::int64_t>{32, 96, 128, 192, 288}
                                      : std::vector<std::int64_t>{8, 100, 128, 136, 259}) {
        CAPTURE(std::string(format_name(format)));
        CAPTURE(n);
        CAPTURE(k);
        const Encoded w = random_weights(format, n, k, random);
        const Packed packed(w);
        bool all = true;
        for (std::int64_t row = 0; row < (n + 15) / 16 * 16; ++row)
          for (std::int64_t i = 0; i < (k + 7) / 8 * 8; ++i)
            all &= code_at(w, packed, row, i) == natural_code(w, row, i);
        CHECK(all);
        // The last tile of the last strip ends the matrix.
        CHECK(packed.shape.bytes() % 64 == 0);
        CHECK(packed.shape.bytes() ==
              in_tile(w, n - 1, k - 1, tile_bytes(format, (k - 1) % 128 + 1) - 1) + 1);
      }
}

TEST_CASE("pack: zero groups take the exponent of a neighbour, all others keep their own") {
  NIB_RANDOM(random);
  const Encoded w = random_weights(Format::mxfp4, 40, 352, random, Scales::extreme);
  const Packed packed(w);
  const auto groups = static_cast<std::size_t>(w.k / 32);
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const auto zero = [&](std::size_t g) {
      bool all = true;
      for (std::size_t i = 0; i < 32; ++i)
        all &= (natural_code(w, row, static_cast<std::int64_t>(g * 32 + i)) & 7u) == 0;
      return all;
    };
    for (std::size_t g = 0; g < groups; ++g) {
      const std::int64_t k = static_cast<std::int64_t>(g) * 32;
      const std::size_t octets =
          static_cast<std::size_t>(std::min<std::int64_t>(128, w.k - k / 128 * 128) / 8);
      const auto stored = read<std::uint8_t>(
          packed, in_tile(w, row, k, octets * 64 + g % 4 * 16 + static_cast<std::size_t>(row % 16)));
      std::size_t from = g;
      while (zero(from) && from > 0) --from;  // the last before it that is not zero
      if (zero(from))
        while (from < groups && zero(from)) ++from;  // or the first of the row
      const int expected =
          from == groups ? 127
                         : std::to_integer<int>(w.scales[static_cast<std::size_t>(row) * groups + from]);
      CHECK(int{stored} == expected);
    }
  }
}

TEST_CASE("pack: findings name scales that are no numbers and the range of the others") {
  NIB_RANDOM(random);
  for (const int scale : {0, 1, 2, 89, 90, 127, 130, 131, 250, 251, 254, 255})
    for (const bool zeros : {false, true}) {
      CAPTURE(scale);
      CAPTURE(zeros);
      Encoded w = random_weights(Format::mxfp4, 20, 96, random);
      const auto group = static_cast<std::size_t>(random.below(60));
      w.scales[group] = static_cast<std::byte>(scale);
      for (std::size_t i = 0; i < 16; ++i)
        w.codes[group * 16 + i] = zeros ? std::byte{0x80} : std::byte{0x31};
      const Packed packed(w);
      CHECK(packed.findings.not_a_number == (scale == 255));
      const ScaleRange range = zeros || (scale >= 90 && scale <= 130) ? ScaleRange::narrow
                               : scale >= 2 && scale <= 250           ? ScaleRange::usual
                                                                      : ScaleRange::any;
      CHECK(packed.findings.scales == range);
    }
}

}  // namespace
}  // namespace nib::test
