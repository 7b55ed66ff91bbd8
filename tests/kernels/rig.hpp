// What the kernel tests share: weights in their natural planes and packed, activations packed by the drawing.
#pragma once
#include "support/backends.hpp"
#include "support/random.hpp"
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
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

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

inline constexpr Numerics kAllNumerics[] = {Numerics::bf16, Numerics::f32, Numerics::int8};

// ---- weights

enum class Scales {
  usual,    // 2^-7 .. 2^3, as trained weights have
  narrow,   // all of ScaleRange::narrow, and groups of zeros with any scale
  extreme,  // all of ScaleRange::usual, and groups of zeros with any scale
  wide,     // also 0, 1, 251 .. 254
};

// W [rows, k] in its natural planes.
struct Encoded {
  Format format;
  std::int64_t rows, k;
  std::vector<std::byte> codes, scales;
  std::int64_t run = 0;  // inputs that share a scale, of formats whose tensors say it
  float factor = 1;      // of formats that have one

  EncodedMatrix view() const {
    return {
        format, rows, k, codes.data(), scales.empty() ? nullptr : scales.data(), ScaleSharing::per_group(run),
        factor};
  }
  std::size_t code_row() const {
    return static_cast<std::size_t>(k / format_info(format).group) * format_info(format).code_bytes;
  }
  std::size_t scale_row() const {
    const FormatInfo& info = format_info(format);
    return info.scales == nib::Scales::shared ? static_cast<std::size_t>((k + run - 1) / run) * 4
                                              : static_cast<std::size_t>(k / info.group) * info.scale_bytes;
  }
  // `count` rows from `first` on.
  Encoded part(std::int64_t first, std::int64_t count) const {
    const auto cut = [&](const std::vector<std::byte>& plane, std::size_t each) {
      const auto begin = plane.begin() + static_cast<std::ptrdiff_t>(each) * first;
      return std::vector<std::byte>(begin, begin + static_cast<std::ptrdiff_t>(each) * count);
    };
    return {format, count, k, cut(codes, code_row()), cut(scales, scale_row()), run, factor};
  }
  // Code of value i (row-major) of MXFP4, as packing takes it: without negative zeros.
  std::uint32_t packed_code(std::size_t i) const {
    const std::uint32_t code = std::to_integer<std::uint32_t>(codes[i / 2]) >> (i % 2 * 4) & 15u;
    return code == 8 ? 0 : code;
  }
  // [rows][k], in the floating-point environment of the caller. Zero levels of E2M1 are positive, as in
  // tiles.
  std::vector<float> decoded() const {
    std::vector<float> values(static_cast<std::size_t>(rows * k));
    for (std::int64_t r = 0; r < rows; ++r) decode_row(view(), r, values.data() + r * k);
    const Format tiles = tile_format(format);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (format == Format::mxfp4 && packed_code(i) == 0) values[i] = 0.0f;
      // Their scales are never zero here.
      if (format != tiles || tiles == Format::nvfp4) values[i] = values[i] == 0 ? 0.0f : values[i];
    }
    return values;
  }
};

// The formats that have tiles, and those that are multiplied as they are stored.
inline std::vector<Format> stored_formats(bool in_tiles) {
  std::vector<Format> formats;
  for (const FormatInfo& info : kFormats)
    if (info.format != Format::none && (tile_info(tile_format(info.format)).bits != 0) == in_tiles)
      formats.push_back(info.format);
  return formats;
}
inline bool is_plain(Format format) {
  return format == Format::bf16 || format == Format::f16 || format == Format::f32;
}

// A run of at most k inputs that tiles of formats with shared scales can have, or (not `tiled`) cannot.
inline std::int64_t random_run(std::int64_t k, Random& random, bool tiled = true) {
  const std::int64_t run = std::int64_t{8} << random.below(6);
  constexpr std::int64_t kNone[] = {4, 6, 10, 12, 20};
  if (!tiled) return std::min<std::int64_t>(k - 2, kNone[random.below(5)]);
  return run > k || random.chance(30) ? k : run;
}

// A value of a plain format: mostly of the size of weights, now and then huge, tiny, subnormal or zero.
inline float plain_weight(Random& random) {
  if (random.chance(3)) return 0.0f;
  if (random.chance(3)) return random.spread(-148, -120);
  if (random.chance(3)) return random.spread(-40, 14);
  return random.normal() * 0.05f;
}

// Where the blocks of a format have f16 scales.
inline std::vector<std::size_t> half_fields(Format format) {
  switch (format) {
    case Format::q4_0:
    case Format::q5_0:
    case Format::q8_0:
    case Format::iq4_nl:
    case Format::iq4_xs:
      return {0};
    case Format::q4_1:
    case Format::q5_1:
    case Format::q4_k:
    case Format::q5_k:
      return {0, 2};
    case Format::q6_k:
      return {208};
    case Format::q2_k:
      return {80, 82};
    case Format::q3_k:
      return {108};
    default:
      return {};
  }
}

// Not a number, or infinite, in one of the formats of eight bits that have such codes.
inline bool special_code(Format format, std::byte code) {
  const int magnitude = std::to_integer<int>(code) & 0x7f;
  if (format == Format::fp8_e4m3 || format == Format::mxfp8_e4m3) return magnitude == 0x7f;
  if (format == Format::fp8_e5m2 || format == Format::mxfp8_e5m2) return magnitude >= 0x7c;
  return false;
}

inline std::byte random_exponent(Random& random, Scales kind) {
  int scale = 120 + random.below(11);
  if (kind == Scales::narrow) scale = 90 + random.below(41);
  if (kind == Scales::extreme || kind == Scales::wide) scale = 2 + random.below(249);
  if (kind == Scales::wide && random.chance(20))
    scale = random.chance(50) ? random.below(2) : 251 + random.below(4);
  return static_cast<std::byte>(scale);
}

// Codes are any, scales as `kind` says. `run`: of formats with shared scales.
inline Encoded random_weights(Format format, std::int64_t rows, std::int64_t k, Random& random,
                              Scales kind = Scales::usual, std::int64_t run = 0) {
  const FormatInfo& info = format_info(format);
  Encoded w{format, rows, k, {}, {}, run ? run : k};
  w.codes.resize(static_cast<std::size_t>(rows) * w.code_row());
  w.scales.resize(static_cast<std::size_t>(rows) * w.scale_row());
  if (is_plain(format)) {
    for (std::int64_t i = 0; i < rows * k; ++i) {
      const float value = plain_weight(random);
      std::byte* to = w.codes.data() + static_cast<std::size_t>(i) * info.code_bytes;
      if (format == Format::f32) std::memcpy(to, &value, 4);
      if (format == Format::bf16) store_little_endian(to_bf16(value).bits, to);
      if (format == Format::f16) store_little_endian(to_f16(value).bits, to);
    }
    return w;
  }
  for (std::byte& b : w.codes) {
    b = static_cast<std::byte>(random.bits());
    if (special_code(format, b) && !(kind == Scales::wide && random.chance(3))) b ^= std::byte{0x60};
  }
  if (info.tensor_scale) w.factor = plain_weight(random);
  for (std::size_t at = 0; at < w.codes.size(); at += info.code_bytes) {
    for (const std::size_t field : half_fields(format)) {
      f16 scale = to_f16(plain_weight(random));
      if (kind == Scales::wide && random.chance(2)) scale.bits = random.chance(50) ? 0x7c00 : 0x7e00;
      store_little_endian(scale.bits, w.codes.data() + at + field);
    }
    if (format == Format::gguf_mxfp4) w.codes[at] = random_exponent(random, Scales::usual);
    for (std::size_t i = 0; format == Format::gguf_nvfp4 && i < 4; ++i)
      w.codes[at + i] = static_cast<std::byte>(1 + random.below(0x7e) + 0x80 * random.below(2));
  }
  if (info.scales == nib::Scales::shared) {
    for (std::size_t at = 0; at < w.scales.size(); at += 4) {
      const float scale = kind == Scales::usual ? plain_weight(random) : random.spread(-140, 120);
      std::memcpy(w.scales.data() + at, &scale, 4);
    }
    return w;
  }
  for (std::byte& b : w.scales) {
    b = random_exponent(random, kind);
    if (format == Format::nvfp4) b = static_cast<std::byte>(1 + random.below(0x7e) + 0x80 * random.below(2));
  }
  if (format == Format::mxfp4)
    for (std::size_t g = 0; kind != Scales::usual && g < w.scales.size(); ++g)
      if (random.chance(20)) {  // zeros, some of them negative, under any scale that is a number
        for (int i = 0; i < 16; ++i) w.codes[g * 16 + static_cast<std::size_t>(i)] &= std::byte{0x88};
        w.scales[g] = static_cast<std::byte>(random.below(255));
      }
  return w;
}

// The same matrix in tiles, or (where its shape has none) in records.
struct Packed {
  explicit Packed(const Encoded& w)
      : shape{tile_format(w.format), w.rows, w.k, nullptr, nullptr, w.run}, bytes(shape.bytes(), 0xa5) {
    shape.data = bytes.data();
    for (std::int64_t strip = 0; strip < shape.strips(); ++strip) {
      StripRows rows;
      for (std::int64_t r = 0; r < kStripRows && strip * kStripRows + r < w.rows; ++r) {
        const auto row = static_cast<std::size_t>(strip * kStripRows + r);
        rows.codes[r] = w.codes.data() + row * w.code_row();
        rows.scales[r] = w.scales.data() + row * w.scale_row();
        rows.factor[r] = w.factor;
      }
      if (!shape.tiled()) {
        copy(w, strip, rows);
        continue;
      }
      const PackFindings found = pack_strip(w.format, shape, strip, rows, bytes.data());
      findings.scales = std::max(findings.scales, found.scales);
      findings.not_a_number |= found.not_a_number;
    }
  }
  void copy(const Encoded& w, std::int64_t strip, const StripRows& rows) {
    for (std::size_t r = 0; r < kStripRows; ++r) {
      std::byte* record =
          bytes.data() + static_cast<std::size_t>(strip) * shape.strip_bytes() + r * shape.record_bytes();
      std::memset(record, 0, shape.record_bytes());
      if (!rows.codes[r]) continue;
      std::memcpy(record, rows.codes[r], w.code_row());
      if (w.scale_row()) std::memcpy(record + w.code_row(), rows.scales[r], w.scale_row());
      if (format_info(w.format).tensor_scale)
        std::memcpy(record + w.code_row() + w.scale_row(), &w.factor, sizeof w.factor);
    }
  }
  PackedWeight with(const MatmulKernel& kernel) const {
    PackedWeight w = shape;
    w.kernel = &kernel;
    return w;
  }
  PackedWeight for_ops(const Backend& backend, Numerics numerics) const {
    const MatmulKernel* kernel = find_kernel(backend, shape, numerics, findings.scales);
    REQUIRE(kernel);
    return with(*kernel);
  }

  PackedWeight shape;
  Bytes bytes;
  PackFindings findings;
};

// ---- activations

// One block of rows in bytes: for each group of 32 inputs eight dwords a row, then scales, then scaled sums.
inline std::byte* pack_byte_groups(const Rows& x, std::int64_t begin, std::int64_t end, std::byte* to) {
  for (std::int64_t first = 0; first < x.width; first += 32) {
    std::vector<GroupInt8> groups;
    for (std::int64_t row = begin; row < end; ++row)
      groups.push_back(group_int8(x.row(row) + first, std::min<std::int64_t>(32, x.width - first)));
    for (int octet = 0; octet < 32; octet += 8)
      for (int odd = 0; odd < 2; ++odd)
        for (const GroupInt8& group : groups)
          for (int i = 0; i < 8; i += 2) *to++ = static_cast<std::byte>(group.codes[octet + odd + i] + 128);
    for (const GroupInt8& group : groups)
      to = std::copy_n(reinterpret_cast<const std::byte*>(&group.scale), 4, to);
    for (const GroupInt8& group : groups)
      to = std::copy_n(reinterpret_cast<const std::byte*>(&group.scaled_sum), 4, to);
  }
  return to;
}

// Rows [begin, end) of x as `kernel` wants them (backend.hpp), from the words alone: octet by octet, step by
// step.
inline Bytes pack_activations(const MatmulKernel& kernel, Numerics numerics, const Rows& x,
                              std::int64_t begin, std::int64_t end) {
  const std::int64_t padded = round_up(x.width, kOctet), rows = end - begin;
  Bytes out(static_cast<std::size_t>(rows) * activation_bytes(kernel.x, padded));
  std::byte* to = out.data();
  const auto value = [&](std::int64_t row, std::int64_t k) {
    const float v = k < x.width ? x.row(begin + row)[k] : 0.0f;
    return rounds_to_bf16(numerics) ? activation_bf16(v) : v;
  };
  // Blocks as even as can be, the longer ones first.
  const std::int64_t blocks = (rows + kernel.block_rows - 1) / kernel.block_rows;
  const bool by_groups = group_dwords(kernel.x) > 0;
  for (std::int64_t block = 0, last = 0, b = 0; b < blocks; block = last, ++b) {
    last = block + rows / blocks + (b < rows % blocks ? 1 : 0);
    if (kernel.x == ActivationLayout::bytes) {
      to = pack_byte_groups(x, begin + block, begin + last, to);
      continue;
    }
    for (std::int64_t octet = 0; octet < (by_groups ? round_up(padded, kInt8Group) : padded);
         octet += kOctet) {
      if (kernel.x == ActivationLayout::floats || kernel.x == ActivationLayout::group_floats) {
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
      if (by_groups && octet % kInt8Group == kInt8Group - kOctet)
        for (std::int64_t row = block; row < last; ++row, to += 4) {
          float inputs[kInt8Group];
          for (int i = 0; i < kInt8Group; ++i) inputs[i] = value(row, octet + kOctet - kInt8Group + i);
          const float sum = sum_of_group(inputs, kInt8Group);
          std::memcpy(to, &sum, 4);
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
    if (rounds_to_bf16(numerics))
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
