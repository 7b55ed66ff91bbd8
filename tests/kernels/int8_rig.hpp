// Weights as int8 numerics see them: whole numbers, their scales and minima, found by decoding copies of a
// matrix whose codes or scales are simple. The kernels' own way to them is another.
#pragma once
#include "rig.hpp"

namespace nib::test {

// Bytes [from, to) of a block of codes, and what they are when every code is the whole number one.
struct OneField {
  std::size_t from, to;
  int one;
};
inline std::vector<OneField> one_fields(Format format) {
  switch (format) {
    case Format::mxfp4:
    case Format::nvfp4:
      return {{0, format_info(format).code_bytes, 0x11}};
    case Format::gguf_mxfp4:
      return {{1, 17, 0x11}};
    case Format::gguf_nvfp4:
      return {{4, 36, 0x11}};
    case Format::q4_0:
      return {{2, 18, 0x99}};
    case Format::q4_1:
      return {{4, 20, 0x11}};
    case Format::q5_0:
      return {{2, 6, 0xff}, {6, 22, 0x11}};
    case Format::q5_1:
      return {{4, 8, 0}, {8, 24, 0x11}};
    case Format::q8_0:
      return {{2, 34, 1}};
    case Format::q4_k:
      return {{16, 144, 0x11}};
    case Format::q5_k:
      return {{16, 48, 0}, {48, 176, 0x11}};
    case Format::q6_k:
      return {{0, 128, 0x11}, {128, 192, 0xaa}};
    case Format::iq4_nl:
      return {{2, 18, 0x88}};
    case Format::iq4_xs:
      return {{8, 136, 0x88}};
    case Format::int8:
    case Format::llm_int8:
    case Format::mxint8:
      return {{0, format_info(format).code_bytes, 1}};
    case Format::fp8_e4m3:
    case Format::mxfp8_e4m3:
      return {{0, format_info(format).code_bytes, 0x38}};
    case Format::fp8_e5m2:
    case Format::mxfp8_e5m2:
      return {{0, format_info(format).code_bytes, 0x3c}};
    case Format::nf4:
      return {{0, format_info(format).code_bytes, 0xff}};
    case Format::bnb_fp4:
      return {{0, format_info(format).code_bytes, 0x33}};
    default:
      return {};
  }
}
inline bool has_minima(Format format) {
  return format == Format::q4_1 || format == Format::q5_1 || format == Format::q4_k || format == Format::q5_k;
}
// Codes that are floats, of which one is 1.
inline bool is_floats(Format format) {
  switch (format) {
    case Format::fp8_e4m3:
    case Format::fp8_e5m2:
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2:
    case Format::nf4:
    case Format::bnb_fp4:
      return true;
    default:
      return false;
  }
}
inline bool is_whole_numbers(Format format) { return !one_fields(format).empty() && !is_floats(format); }
// Whether bf16 numerics multiply the sums of its codes by its scales.
inline bool has_sums(Format format) {
  return !one_fields(format).empty() && tile_format(format) != Format::mxfp4;
}
// Inputs that share a sum.
inline int run_of(Format format) {
  const Format tiles = tile_format(format);
  return tiles == Format::nvfp4 || tiles == Format::q6_k ? 16 : 32;
}

// [rows][k] each: codes are whole numbers, or floats.
struct CodesAndSteps {
  explicit CodesAndSteps(const Encoded& w) {
    const auto copy = [&](bool ones, bool plain_scales) {
      Encoded c = w;
      const FormatInfo& info = format_info(w.format);
      for (std::size_t at = 0; at < c.codes.size(); at += info.code_bytes) {
        std::byte* block = c.codes.data() + at;
        if (ones)
          for (const OneField& field : one_fields(w.format))
            std::fill(block + field.from, block + field.to, static_cast<std::byte>(field.one));
        if (plain_scales) {
          for (const std::size_t field : half_fields(w.format))
            store_little_endian<std::uint16_t>(0x3c00, block + field);
          if (w.format == Format::gguf_mxfp4) block[0] = std::byte{127};
          if (w.format == Format::gguf_nvfp4) std::fill(block, block + 4, std::byte{0x38});
        }
        if (has_minima(w.format)) store_little_endian<std::uint16_t>(0, block + 2);
      }
      if (plain_scales) {
        c.factor = 1;
        if (info.scales == nib::Scales::shared)
          for (std::size_t at = 0; at < c.scales.size(); at += 4) {
            const float one = 1;
            std::memcpy(c.scales.data() + at, &one, 4);
          }
        else
          std::fill(c.scales.begin(), c.scales.end(),
                    w.format == Format::nvfp4 ? std::byte{0x38} : std::byte{127});
      }
      return c.decoded();
    };
    const std::vector<float> plain = copy(false, true), one = copy(true, true);
    steps = copy(true, false);
    codes.resize(plain.size());
    for (std::size_t i = 0; i < plain.size(); ++i)
      codes[i] = is_floats(w.format) ? plain[i]
                 : one[i] == 0       ? 0
                                     : static_cast<float>(std::lround(plain[i] / one[i]));
    if (tile_format(w.format) == Format::mxfp4)
      for (std::int64_t row = 0; row < w.rows; ++row)
        fill_zero_groups(w.k, static_cast<std::size_t>(row * w.k));
    if (!has_minima(w.format)) return;
    Encoded zeros = w;  // steps of zero leave the minima
    for (std::size_t at = 0; at < zeros.codes.size(); at += format_info(w.format).code_bytes)
      store_little_endian<std::uint16_t>(0, zeros.codes.data() + at);
    minima = zeros.decoded();
  }
  std::vector<float> codes, steps, minima;
  StepsInt8 at(std::size_t i) const { return {steps[i], minima.empty() ? 0.0f : minima[i]}; }

 private:
  // As packing does (pack.hpp): a group of zeros has the scale of the one before it that is none, the first
  // ones that of the first that is not.
  void fill_zero_groups(std::int64_t k, std::size_t row) {
    float carried = 0.5f;
    const auto groups = static_cast<std::size_t>(k / 32);
    const auto zeros = [&](std::size_t g) {
      return std::all_of(codes.data() + row + g * 32, codes.data() + row + g * 32 + 32,
                         [](float code) { return code == 0; });
    };
    for (std::size_t g = groups; g-- > 0;)
      if (!zeros(g)) carried = steps[row + g * 32];
    for (std::size_t g = 0; g < groups; ++g) {
      if (zeros(g)) std::fill_n(steps.begin() + static_cast<std::ptrdiff_t>(row + g * 32), 32, carried);
      carried = steps[row + g * 32];
    }
  }
};

// W x in canonical order, [rows of x][rows of w]: of int8 numerics, and of bf16 ones by sums of codes.
inline std::vector<float> product_int8(const Encoded& w, const Rows& x) {
  const CodesAndSteps whole(w);
  std::vector<float> out;
  for (std::int64_t i = 0; i < x.rows; ++i)
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const auto at = [&](std::int64_t k) { return static_cast<std::size_t>(n * w.k + k); };
      out.push_back(chain_int8(
          w.k, run_of(w.format), has_minima(w.format), x.row(i),
          [&](std::int64_t k) { return static_cast<int>(whole.codes[at(k)]); },
          [&](std::int64_t k) { return whole.at(at(k)); }));
    }
  return out;
}
inline std::vector<float> product_sums(const Encoded& w, const Rows& x) {
  const CodesAndSteps found(w);
  const float unit = is_floats(w.format) ? 1.0f : kSumUnit;
  std::vector<float> out, rounded(static_cast<std::size_t>(w.k));
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t k = 0; k < w.k; ++k)
      rounded[static_cast<std::size_t>(k)] = activation_bf16(x.row(i)[k]);
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const auto at = [&](std::int64_t k) { return static_cast<std::size_t>(n * w.k + k); };
      out.push_back(chain_sums(
          w.k, run_of(w.format), has_minima(w.format),
          [&](std::int64_t k) { return found.codes[at(k)] * unit; },
          [&](std::int64_t k) {
            const StepsInt8 steps = found.at(at(k));
            return StepsInt8{mul_canonical(steps.step, 1 / unit), steps.minimum};
          },
          [&](std::int64_t k) { return rounded[static_cast<std::size_t>(k)]; }));
    }
  }
  return out;
}

}  // namespace nib::test
