// Room formats: the blocks of GGUF files that hold 32 or 64 values: scales and codes in one run of bytes.
//
//               bytes   fields in order                  value
//   q4_0          18    d:f16, 16 bytes of nibbles       (code - 8) * d
//   q4_1          20    d:f16, m:f16, 16 bytes           code * d + m
//   q5_0          22    d:f16, 32 high bits, 16 bytes    (code - 16) * d
//   q5_1          24    d:f16, m:f16, 32 high bits, 16   code * d + m
//   q8_0          34    d:f16, 32 bytes                  code * d               two's complement
//   iq4_nl        18    d:f16, 16 bytes                  table[code] * d
//   gguf_mxfp4    17    scale:E8M0, 16 bytes             E2M1(code) * 2^(scale - 127)
//   gguf_nvfp4    36    4 scales:E4M3, 4 x 8 bytes       E2M1(code) * scale     64 values, 16 a scale
//
// Nibbles: byte j of n holds element j in bits 3..0 and element j + n in bits 7..4: halves, not neighbours.
// The fifth bit of element j is bit j of the 32. iq4_nl is read only. Encoders follow the reference
// of ggml, whose scale is the unrounded one: exactly the same bytes where no product is fused with a sum.
// A value that is not finite makes the scale NaN (or infinite), so that the loss stays visible; gguf_nvfp4
// alone has no way to say it: ggml reads the NaN among its scales as zero.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/block_format.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/float_scales.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/small_floats.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

namespace ggml_detail {

constexpr std::uint32_t low(std::byte byte) { return std::to_integer<std::uint32_t>(byte) & 15u; }
constexpr std::uint32_t high(std::byte byte) { return std::to_integer<std::uint32_t>(byte) >> 4; }
constexpr float half_at(const std::byte* at) { return to_float(f16{load_little_endian<std::uint16_t>(at)}); }
constexpr void store_half(float value, std::byte* at) { store_little_endian(to_f16(value).bits, at); }

// The value of `values` with the largest magnitude, sign kept, the first of equals; NaN where one is.
constexpr float extreme(const float* values, int count) {
  if (!std::is_constant_evaluated()) {
    const std::uint32_t largest = lanes::largest(values, count);
    for (int i = 0; i < count && largest <= 0x7f80'0000u; ++i)
      if ((std::bit_cast<std::uint32_t>(values[i]) & 0x7fff'ffffu) == largest)
        return largest ? values[i] : 0.0f;
  }
  float found = 0, largest = 0;
  for (int i = 0; i < count; ++i) {
    const float magnitude = values[i] < 0 ? -values[i] : values[i];
    if (!(magnitude <= largest)) {
      largest = magnitude;
      found = values[i];
      if (magnitude != magnitude) break;
    }
  }
  return found;
}

struct Extent {
  float low, high;
};
constexpr Extent extent(const float* values, int count) {
  Extent found{values[0], values[0]};
  for (int i = 0; i < count; ++i) {
    if (values[i] != values[i]) return {values[i], values[i]};
    found.low = values[i] < found.low ? values[i] : found.low;
    found.high = values[i] > found.high ? values[i] : found.high;
  }
  return found;
}

constexpr float reciprocal(float d) { return d != 0 && is_finite(d) ? 1.0f / d : 0.0f; }

// value + bias without its fraction, as a code of 0..highest; for non-negative sums, and NaN (0).
constexpr std::uint32_t truncated(float sum, int highest) {
  if (!(sum > 0)) return 0;
  return sum >= static_cast<float>(highest) ? static_cast<std::uint32_t>(highest)
                                            : static_cast<std::uint32_t>(sum);
}

}  // namespace ggml_detail

// q4_0, q4_1, q5_0 and q5_1 are one layout: Bits of 4 or 5, a minimum or a middle of zero.
template <Format Id, int Bits, bool WithMinimum>
struct GgmlNibbles {
  static constexpr Format id = Id;
  static constexpr int bits = Bits;
  static constexpr int group = 32;
  static constexpr int levels = 1 << Bits;
  static constexpr std::size_t high_at = WithMinimum ? 4 : 2;
  static constexpr std::size_t codes_at = high_at + (Bits == 5 ? 4 : 0);
  static constexpr std::size_t code_bytes = codes_at + 16;
  static constexpr std::size_t scale_bytes = 0;
  static constexpr const char* rule = WithMinimum ? "minimum and maximum" : "largest at the lowest code";

  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block);
    const T bias = WithMinimum ? static_cast<T>(half_at(block + 2)) : T{0};
    const std::uint32_t fifth = Bits == 5 ? load_little_endian<std::uint32_t>(block + high_at) : 0u;
    for (int i = 0; i < 32; ++i) {
      const std::byte byte = block[codes_at + static_cast<std::size_t>(i % 16)];
      const std::uint32_t code = (i < 16 ? low(byte) : high(byte)) | ((fifth >> i & 1u) << 4);
      if constexpr (WithMinimum)
        out[i] = static_cast<T>(code) * d + bias;
      else
        out[i] = static_cast<T>(static_cast<std::int32_t>(code) - levels / 2) * d;
    }
  }

  static constexpr void encode_group(const float* values, std::byte* block, std::byte*) {
    using namespace ggml_detail;
    float d = 0, minimum = 0;
    if constexpr (WithMinimum) {
      const Extent found = extent(values, 32);
      d = (found.high - found.low) / (levels - 1);
      minimum = found.low;
      store_half(minimum, block + 2);
    } else {
      d = extreme(values, 32) / (-levels / 2);
    }
    store_half(d, block);
    encode_codes(values, d, minimum, block);
  }

  // The codes alone, into a block whose scale (and minimum, where it has one) are known.
  static constexpr void encode_codes(const float* values, float d, float minimum, std::byte* block) {
    using namespace ggml_detail;
    const float inverse = reciprocal(d);
    constexpr float kBias = WithMinimum ? 0.5f : levels / 2 + 0.5f;
    std::int32_t codes[32] = {};
    if (std::is_constant_evaluated()) {
      for (int i = 0; i < 32; ++i)
        codes[i] = static_cast<std::int32_t>(
            truncated((WithMinimum ? values[i] - minimum : values[i]) * inverse + kBias, levels - 1));
    } else {
      for (int i = 0; i < 32; i += lanes::kLanes) {
        const lanes::Floats x = lanes::load(values + i);
        lanes::store(lanes::truncate_to((WithMinimum ? x - minimum : x) * inverse + kBias, levels - 1),
                     codes + i);
      }
    }
    if constexpr (Bits == 5) {
      std::uint32_t fifth = 0;
      for (int i = 0; i < 32; ++i) fifth |= static_cast<std::uint32_t>(codes[i] >> 4) << i;
      store_little_endian(fifth, block + high_at);
    }
    for (std::size_t j = 0; j < 16; ++j)
      block[codes_at + j] = static_cast<std::byte>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
  }
};

using Q4_0 = GgmlNibbles<Format::q4_0, 4, false>;
using Q4_1 = GgmlNibbles<Format::q4_1, 4, true>;
using Q5_0 = GgmlNibbles<Format::q5_0, 5, false>;
using Q5_1 = GgmlNibbles<Format::q5_1, 5, true>;

struct Q8_0 {
  static constexpr Format id = Format::q8_0;
  static constexpr int bits = 8;
  static constexpr int group = 32;
  static constexpr std::size_t code_bytes = 34;
  static constexpr std::size_t scale_bytes = 0;
  static constexpr const char* rule = "absmax";

  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    const T d = ggml_detail::half_at(block);
    for (int i = 0; i < 32; ++i) {
      const auto byte = std::to_integer<std::int32_t>(block[2 + i]);
      out[i] = static_cast<T>(byte < 128 ? byte : byte - 256) * d;
    }
  }

  // Halves go away from zero here, as they do in ggml.
  static constexpr void encode_group(const float* values, std::byte* block, std::byte*) {
    using namespace ggml_detail;
    const float largest = extreme(values, 32);
    const float d = (largest < 0 ? -largest : largest) / 127;
    store_half(d, block);
    encode_codes(values, d, block);
  }

  // The codes alone, under a scale that is already known.
  static constexpr void encode_codes(const float* values, float d, std::byte* block) {
    const float inverse = ggml_detail::reciprocal(d);
    if (!std::is_constant_evaluated()) {
      std::int32_t codes[32];
      for (int i = 0; i < 32; i += lanes::kLanes)
        lanes::store(lanes::round_away(lanes::load(values + i) * inverse), codes + i);
      for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<std::byte>(codes[i] & 0xff);
      return;
    }
    for (int i = 0; i < 32; ++i) {
      const float product = values[i] * inverse;
      const float x = product >= -128 && product <= 128 ? product : 0.0f;
      const auto whole = static_cast<int>(x);
      const float rest = x - static_cast<float>(whole);  // exact
      const int code = whole + static_cast<int>(rest >= 0.5f) - static_cast<int>(rest <= -0.5f);
      block[2 + i] = static_cast<std::byte>(code & 0xff);
    }
  }
};

// The code book of iq4_nl and iq4_xs.
inline constexpr std::int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

struct Iq4Nl {
  static constexpr Format id = Format::iq4_nl;
  static constexpr int bits = 4;
  static constexpr int group = 32;
  static constexpr std::size_t code_bytes = 18;
  static constexpr std::size_t scale_bytes = 0;

  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block);
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<T>(kIq4Levels[low(block[2 + j])]) * d;
      out[j + 16] = static_cast<T>(kIq4Levels[high(block[2 + j])]) * d;
    }
  }
};

// Group values in two halves, the codes of the formats with planes, in ggml's places.
template <int Bits>
struct SplitHalves {
  static_assert(Bits == 4);
  static constexpr std::size_t bytes(int group) { return static_cast<std::size_t>(group) / 2; }
  template <class Code>
  static constexpr void pack(const Code* codes, int group, std::byte* out) {
    for (int j = 0; j < group / 2; ++j) out[j] = static_cast<std::byte>(codes[j] | codes[j + group / 2] << 4);
  }
  static constexpr void unpack(const std::byte* in, int group, std::uint8_t* codes) {
    for (int j = 0; j < group / 2; ++j) {
      codes[j] = static_cast<std::uint8_t>(in[j] & std::byte{15});
      codes[j + group / 2] = static_cast<std::uint8_t>(in[j] >> 4);
    }
  }
};

// `Count` groups of a Block, whose scales lie together before their codes.
template <Format Id, class Part, int Count>
struct Interleaved {
  static constexpr Format id = Id;
  static constexpr int bits = Part::bits;
  static constexpr int group = Count * Part::group;
  static constexpr std::size_t code_bytes = Count * (Part::code_bytes + Part::scale_bytes);
  static constexpr std::size_t scale_bytes = 0;
  static constexpr const char* rule = Part::Rule::name;

  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    for (int s = 0; s < Count; ++s)
      Part::decode_group(codes_of(block, s), block + s * Part::scale_bytes, out + s * Part::group);
  }
  static constexpr void encode_group(const float* values, std::byte* block, std::byte*) {
    for (int s = 0; s < Count; ++s)
      Part::encode_group(values + s * Part::group, codes_of(block, s), block + s * Part::scale_bytes);
  }

 private:
  template <class Byte>
  static constexpr Byte* codes_of(Byte* block, int s) {
    return block + Count * Part::scale_bytes + static_cast<std::size_t>(s) * Part::code_bytes;
  }
};

// NVFP4 scales as ggml reads them: without a sign, and with zero for the code that E4M3 has for NaN. The
// scale is rounded to nearest even where ggml rounds halves up.
struct GgmlE4M3Scale : E4M3Scale {
  static constexpr float decode(Code code) {
    const Code magnitude = code & 0x7f;
    return magnitude == nan ? 0.0f : E4M3::decode(magnitude);
  }
  static constexpr Code nearest(float ratio) { return E4M3::encode(ratio); }
  static constexpr float quotient(float value, Code code) { return divided_by_scale(value, decode(code)); }
  static constexpr bool has_lanes(Code code) { return can_divide(decode(code)); }
  static lanes::Floats quotient(lanes::Floats values, Code code) { return values / decode(code); }
};

template <class Rule>
using GgufMxfp4With =
    Interleaved<Format::gguf_mxfp4, Block<Format::none, E2M1, E8M0, 32, Rule, SplitHalves>, 1>;
template <class Rule>
using GgufNvfp4With =
    Interleaved<Format::gguf_nvfp4, Block<Format::none, E2M1, GgmlE4M3Scale, 16, Rule, SplitHalves>, 4>;
using GgufMxfp4 = GgufMxfp4With<FloorScale>;
using GgufNvfp4 = GgufNvfp4With<AbsmaxScale>;

static_assert(BlockFormat<Q4_0> && BlockFormat<Q8_0> && BlockFormat<GgufMxfp4> && BlockFormat<GgufNvfp4>);
static_assert(StoredFormat<Iq4Nl> && !BlockFormat<Iq4Nl>);

}  // namespace nib::inline v0
