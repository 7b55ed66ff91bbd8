// Room formats: formats whose f32 scales each tensor shares in its own way (ScaleSharing): FP8 and INT8 of
// any granularity, LLM.int8, and the 4-bit formats of bitsandbytes.
//
//              codes plane                                   value
//   fp8_*      a byte a value                                level * scale
//   int8       a byte a value, two's complement              code * scale
//   llm_int8   a byte a value, two's complement              code * scale / 127       scale: the row's
//   largest nf4        a byte for two values, the first of them in   level * scale            scale: the
//   block's largest bnb_fp4    bits 7..4: the other way round than MXFP4
#pragma once

#include <nibble/formats/block_format.hpp>
#include <nibble/formats/code_books.hpp>
#include <nibble/formats/float_scales.hpp>
#include <nibble/formats/integer.hpp>
#include <nibble/formats/small_floats.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace nib::inline v0 {

// What a stored scale is, given the level and the largest level m of the element.
struct ScaleIsFactor {  // value = level * scale
  template <class T>
  static constexpr T multiply(T level, T scale) {
    return level * scale;
  }
  static constexpr float of(float largest, float m) { return largest / m; }
  static constexpr float units(float value, float scale) { return divided_by_scale(value, scale); }
  static constexpr bool has_lanes(float scale) { return can_divide(scale); }
  static lanes::Floats units(lanes::Floats values, float scale) { return values / scale; }
};
struct ScaleIsAbsmax {  // the same, of levels up to 1; bitsandbytes multiplies by the reciprocal
  template <class T>
  static constexpr T multiply(T level, T scale) {
    return level * scale;
  }
  static constexpr float of(float largest, float) { return largest; }
  static constexpr float units(float value, float scale) {
    if (!is_finite(scale)) return 0;
    const float x = value * (1.0f / (scale > 1e-38f ? scale : 1e-38f));
    return x < -1 ? -1.0f : x > 1 ? 1.0f : x;
  }
  // Beyond 1 there is no other level, so nothing needs to be cut off.
  static constexpr bool has_lanes(float scale) { return is_finite(scale); }
  static lanes::Floats units(lanes::Floats values, float scale) {
    return values * (1.0f / (scale > 1e-38f ? scale : 1e-38f));
  }
};
struct ScaleIsAbsmaxOf127 {  // value = code * scale / 127; both ways by a reciprocal, as in bitsandbytes
  template <class T>
  static constexpr T multiply(T level, T scale) {
    return level * scale * (T{1} / T{127});
  }
  static constexpr float of(float largest, float) { return largest; }
  static constexpr float units(float value, float scale) {
    return is_finite(scale) && scale != 0 ? value * (127.0f / scale) : 0.0f;
  }
  static constexpr bool has_lanes(float scale) { return is_finite(scale) && scale != 0; }
  static lanes::Floats units(lanes::Floats values, float scale) { return values * (127.0f / scale); }
};

// Two 4-bit codes a byte, the first in the high nibble.
template <int Bits>
struct HighNibbleFirst {
  static_assert(Bits == 4);
  static constexpr std::size_t bytes(int group) { return static_cast<std::size_t>(group) / 2; }
  template <class Code>
  static constexpr void pack(const Code* codes, int group, std::byte* out) {
    for (int i = 0; i < group; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] << 4 | codes[i + 1]);
  }
  static constexpr void unpack(const std::byte* in, int group, std::uint8_t* codes) {
    for (int i = 0; i < group; i += 2) {
      codes[i] = static_cast<std::uint8_t>(in[i / 2] >> 4);
      codes[i + 1] = static_cast<std::uint8_t>(in[i / 2] & std::byte{15});
    }
  }
};

// A SharedScaleFormat. Group: values in a byte.
template <Format Id, ElementCodec ElementT, class Units, template <int> class Order = BitStream>
struct SharedScale {
  using Element = ElementT;
  using Code = typename Element::Code;
  static constexpr Format id = Id;
  static constexpr int bits = Element::bits;
  static constexpr int group = 8 / bits;
  static constexpr std::size_t code_bytes = 1;
  static constexpr std::size_t scale_bytes = 4;

  static constexpr float level(Code code) { return Element::decode(code); }

  template <class T>
  static constexpr void decode_group(const std::byte* codes, const std::byte* scale, T* out) {
    Code unpacked[group] = {};
    Order<bits>::unpack(codes, group, unpacked);
    const auto factor = static_cast<T>(std::bit_cast<float>(load_little_endian<std::uint32_t>(scale)));
    for (int i = 0; i < group; ++i) out[i] = Units::multiply(static_cast<T>(level(unpacked[i])), factor);
  }

  // The scale of values of that largest magnitude; NaN where it is infinite or NaN, and every value that
  // shares it decodes to NaN.
  static constexpr float scale_of(float largest) {
    return is_finite(largest) ? Units::of(largest, Element::max()) : std::numeric_limits<float>::quiet_NaN();
  }

  // `Count` values, whole groups, under one scale. Many at once are a loop that compilers make vectors of.
  template <int Count = group, class Rounding = RoundNearest>
  static constexpr void encode_codes(const float* values, float scale, std::byte* codes,
                                     const Rounding& rounding = {}) {
    static_assert(Count % group == 0);
    if constexpr (std::same_as<Rounding, RoundNearest> && lanes::Encodable<Element> &&
                  Count % lanes::kLanes == 0) {
      if (!std::is_constant_evaluated() && Units::has_lanes(scale)) {
        std::int32_t chosen[Count];
        lanes::encode<Element>(values, Count, chosen,
                               [scale](lanes::Floats x) { return Units::units(x, scale); });
        return Order<bits>::pack(chosen, Count, codes);
      }
    }
    Code chosen[Count] = {};
    for (int i = 0; i < Count; ++i)
      chosen[i] = rounding.template encode<Element>(Units::units(values[i], scale), i);
    Order<bits>::pack(chosen, Count, codes);
  }
};

using Fp8E4M3 = SharedScale<Format::fp8_e4m3, E4M3, ScaleIsFactor>;
using Fp8E5M2 = SharedScale<Format::fp8_e5m2, E5M2, ScaleIsFactor>;
using Int8 = SharedScale<Format::int8, SymmetricInt<8>, ScaleIsFactor>;
using LlmInt8 = SharedScale<Format::llm_int8, SymmetricInt<8>, ScaleIsAbsmaxOf127>;
using Nf4 = SharedScale<Format::nf4, Nf4Levels, ScaleIsAbsmax, HighNibbleFirst>;
using BnbFp4 = SharedScale<Format::bnb_fp4, BnbFp4Levels, ScaleIsAbsmax, HighNibbleFirst>;

static_assert(SharedScaleFormat<Fp8E4M3> && SharedScaleFormat<Int8> && SharedScaleFormat<LlmInt8> &&
              SharedScaleFormat<Nf4> && SharedScaleFormat<BnbFp4>);

}  // namespace nib::inline v0
