// What the kernel tests share: fresh random numbers with their seed, weights in their natural planes and
// packed, activations packed by the drawing.
#pragma once
#include "support/backends.hpp"
#include <nibble/formats/reference.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/canonical.hpp>
#include <nibble/kernels/pack.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

// Random numbers, other ones in every run: a test that fails prints its seed, and NIBBLE_TEST_SEED repeats
// it.
class Random {
 public:
  Random() {
    const char* fixed = std::getenv("NIBBLE_TEST_SEED");
    seed = fixed ? static_cast<std::uint32_t>(std::strtoul(fixed, nullptr, 10)) : std::random_device{}();
    engine_.seed(seed);
  }

  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  // 0 .. end - 1
  int below(int end) { return static_cast<int>(bits() % static_cast<std::uint32_t>(end)); }
  bool chance(int percent) { return below(100) < percent; }
  float normal() { return static_cast<float>(normal_(engine_)); }
  // Any finite float with an exponent of 2^lowest .. 2^highest.
  float spread(int lowest, int highest) {
    const float mantissa = std::bit_cast<float>(0x3f80'0000u | (bits() & 0x807f'ffffu));
    return std::ldexp(mantissa, lowest + below(highest - lowest + 1));
  }

  std::uint32_t seed;

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};
#define NIB_RANDOM(name)    \
  ::nib::test::Random name; \
  CAPTURE(name.seed)

// Bytes aligned as buffers of the library are, and no byte more than asked for: the sanitizer sees what reads
// past.
class Bytes {
 public:
  explicit Bytes(std::size_t size, int fill = 0)
      : size_(size),
        data_(static_cast<std::byte*>(
                  std::aligned_alloc(64, round_up(std::max<std::size_t>(size, 1), std::size_t{64}))),
              &std::free) {
    std::memset(data_.get(), fill, size);
  }
  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  float* floats() const { return reinterpret_cast<float*>(data_.get()); }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte, void (*)(void*)> data_;
};

// Rows of floats with the stride of ops.hpp; zero beyond the width.
struct Rows {
  Rows(std::int64_t count, std::int64_t columns)
      : rows(count),
        width(columns),
        stride(row_stride(columns)),
        bytes(static_cast<std::size_t>(count * stride) * 4) {}
  float* row(std::int64_t r) const { return bytes.floats() + r * stride; }
  float* data() const { return bytes.floats(); }
  std::span<float> span(std::int64_t r) const { return {row(r), static_cast<std::size_t>(width)}; }
  void fill(auto&& value) const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (float& x : span(r)) x = value();
  }
  std::int64_t rows, width, stride;
  Bytes bytes;
};

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}
// The same, where a NaN equals every NaN: which payload comes out of two is the processor's affair.
inline bool same_numbers(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
        !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

// ---- weights

enum class Scales {
  usual,    // 2^-7 .. 2^3, as trained weights have
  extreme,  // everything that every kernel must hold: kLeastScale .. kMostScale, and groups of zeros with any
            // scale
  wide,     // also 0, 1, 251 .. 254
};

// W [rows, k] in its natural planes.
struct Encoded {
  Format format;
  std::int64_t rows, k;
  std::vector<std::byte> codes, scales;

  EncodedMatrix view() const {
    return {format, rows, k, codes.data(), scales.empty() ? nullptr : scales.data()};
  }
  // Code of value i (row-major) of MXFP4, as packing takes it: without negative zeros.
  std::uint32_t packed_code(std::size_t i) const {
    const std::uint32_t code = std::to_integer<std::uint32_t>(codes[i / 2]) >> (i % 2 * 4) & 15u;
    return code == 8 ? 0 : code;
  }
  // [rows][k], in the floating-point environment of the caller.
  std::vector<float> decoded() const {
    std::vector<float> values(static_cast<std::size_t>(rows * k));
    for (std::int64_t r = 0; r < rows; ++r) decode_row(view(), r, values.data() + r * k);
    for (std::size_t i = 0; format == Format::mxfp4 && i < values.size(); ++i)
      if (packed_code(i) == 0) values[i] = 0.0f;
    return values;
  }
};

// A value of a plain format: mostly of the size of weights, now and then huge, tiny, subnormal or zero.
inline float plain_weight(Random& random) {
  if (random.chance(3)) return 0.0f;
  if (random.chance(3)) return random.spread(-148, -120);
  if (random.chance(3)) return random.spread(-40, 14);
  return random.normal() * 0.05f;
}

inline Encoded random_weights(Format format, std::int64_t rows, std::int64_t k, Random& random,
                              Scales kind = Scales::usual) {
  const FormatInfo& info = format_info(format);
  const auto groups = static_cast<std::size_t>(rows * (k / info.group));
  Encoded w{format, rows, k, std::vector<std::byte>(groups * info.code_bytes),
            std::vector<std::byte>(groups * info.scale_bytes)};
  if (format == Format::mxfp4) {
    for (std::byte& b : w.codes) b = static_cast<std::byte>(random.bits());
    for (std::byte& b : w.scales) {
      int scale = 120 + random.below(11);
      if (kind != Scales::usual) scale = kLeastScale + random.below(kMostScale - kLeastScale + 1);
      if (kind == Scales::wide && random.chance(20))
        scale = random.chance(50) ? random.below(kLeastScale) : kMostScale + 1 + random.below(4);
      b = static_cast<std::byte>(scale);
    }
    for (std::size_t g = 0; kind != Scales::usual && g < groups; ++g)
      if (random.chance(20)) {  // zeros, some of them negative, under any scale that is a number
        for (int i = 0; i < 16; ++i) w.codes[g * 16 + static_cast<std::size_t>(i)] &= std::byte{0x88};
        w.scales[g] = static_cast<std::byte>(random.below(255));
      }
    return w;
  }
  for (std::int64_t i = 0; i < rows * k; ++i) {
    const float value = plain_weight(random);
    std::byte* to = w.codes.data() + static_cast<std::size_t>(i) * info.code_bytes;
    if (format == Format::f32) std::memcpy(to, &value, 4);
    if (format == Format::bf16) store_little_endian(to_bf16(value).bits, to);
    if (format == Format::f16) store_little_endian(to_f16(value).bits, to);
  }
  return w;
}

// The same matrix in tiles.
struct Packed {
  explicit Packed(const Encoded& w)
      : shape{w.format, w.rows, w.k, nullptr, nullptr}, bytes(shape.bytes(), 0xa5) {
    shape.data = bytes.data();
    const FormatInfo& info = format_info(w.format);
    const auto row_groups = static_cast<std::size_t>(w.k / info.group);
    for (std::int64_t strip = 0; strip < shape.strips(); ++strip) {
      const auto rows_at = [&](std::int64_t k) {
        StripRows rows;
        for (std::int64_t r = 0; r < kStripRows && strip * kStripRows + r < w.rows; ++r) {
          const std::size_t group = static_cast<std::size_t>(strip * kStripRows + r) * row_groups +
                                    static_cast<std::size_t>(k / info.group);
          rows.codes[r] = w.codes.data() + group * info.code_bytes;
          rows.scales[r] = w.scales.data() + group * info.scale_bytes;
        }
        return rows;
      };
      auto carried = w.format == Format::mxfp4 ? first_exponents(row_groups, rows_at(0)) : CarriedExponents{};
      for (std::int64_t k = 0; k < w.k; k += kTileK) {
        const PackFindings found = pack_tile(w.format, std::min(kTileK, w.k - k), rows_at(k), carried,
                                             bytes.data() + shape.tile_offset(strip, k / kTileK));
        findings.wide_exponents |= found.wide_exponents;
        findings.not_a_number |= found.not_a_number;
      }
    }
  }
  PackedWeight with(const MatmulKernel& kernel) const {
    PackedWeight w = shape;
    w.kernel = &kernel;
    return w;
  }
  PackedWeight for_ops(const Backend& backend, Numerics numerics) const {
    const MatmulKernel* kernel = find_kernel(backend, shape.format, numerics, findings.wide_exponents);
    REQUIRE(kernel);
    return with(*kernel);
  }

  PackedWeight shape;
  Bytes bytes;
  PackFindings findings;
};

// ---- activations

// Rows [begin, end) of x as `kernel` wants them (backend.hpp), from the words alone: octet by octet, step by
// step.
inline Bytes pack_activations(const MatmulKernel& kernel, Numerics numerics, const Rows& x,
                              std::int64_t begin, std::int64_t end) {
  const std::int64_t padded = round_up(x.width, kOctet), rows = end - begin;
  Bytes out(static_cast<std::size_t>(rows) * activation_bytes(kernel.x, padded));
  std::byte* to = out.data();
  const auto value = [&](std::int64_t row, std::int64_t k) {
    const float v = k < x.width ? x.row(begin + row)[k] : 0.0f;
    return numerics == Numerics::bf16 ? activation_bf16(v) : v;
  };
  for (std::int64_t block = 0; block < rows; block += kernel.block_rows) {
    const std::int64_t last = std::min<std::int64_t>(rows, block + kernel.block_rows);
    for (std::int64_t octet = 0; octet < padded; octet += kOctet) {
      if (kernel.x == ActivationLayout::floats) {
        for (const int k : {4, 0, 5, 1, 6, 2, 7, 3})
          for (std::int64_t row = block; row < last; ++row, to += 4) {
            const float v = value(row, octet + k);
            std::memcpy(to, &v, 4);
          }
      } else {
        for (int k = 0; k < 4; ++k)
          for (std::int64_t row = block; row < last; ++row, to += 4) {
            const std::uint16_t pair[2] = {to_bf16(value(row, octet + k)).bits,
                                           to_bf16(value(row, octet + k + 4)).bits};
            std::memcpy(to, pair, 4);
          }
      }
    }
  }
  return out;
}

// W x in canonical order, from decoded weights: [rows of x][rows of w].
inline std::vector<float> product_canonical(const Encoded& w, const std::vector<float>& decoded,
                                            Numerics numerics, const Rows& x) {
  std::vector<float> out(static_cast<std::size_t>(x.rows * w.rows));
  std::vector<float> rounded(static_cast<std::size_t>(w.k));
  for (std::int64_t i = 0; i < x.rows; ++i) {
    std::copy_n(x.row(i), w.k, rounded.begin());
    if (numerics == Numerics::bf16)
      for (float& v : rounded) v = activation_bf16(v);
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const float* row = decoded.data() + n * w.k;
      out[static_cast<std::size_t>(i * w.rows + n)] = chain_canonical(
          w.k, [&](std::int64_t k) { return row[k]; },
          [&](std::int64_t k) { return rounded[static_cast<std::size_t>(k)]; });
    }
  }
  return out;
}

}  // namespace nib::test
