// Room formats: f32, f16 and bf16 as formats: a codes plane of little-endian values, groups of one, no
// scales.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/block_format.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// The three value types as element codecs. Decoding is exact; encoding rounds to nearest even, overflow
// becomes infinity and NaN stays NaN.
struct F32Element {
  using Code = std::uint32_t;
  static constexpr float decode(Code code) { return std::bit_cast<float>(code); }
  static constexpr Code encode(float value) { return std::bit_cast<Code>(value); }
};
struct F16Element {
  using Code = std::uint16_t;
  static constexpr float decode(Code code) { return to_float(f16{code}); }
  static constexpr Code encode(float value) { return to_f16(value).bits; }
};
struct Bf16Element {
  using Code = std::uint16_t;
  static constexpr float decode(Code code) { return to_float(bf16{code}); }
  static constexpr Code encode(float value) { return to_bf16(value).bits; }
};

// A BlockFormat whose scale pointers are ignored and may be null.
template <Format Id, class Element>
struct Plain {
  using Code = typename Element::Code;

  static constexpr Format id = Id;
  static constexpr int bits = 8 * sizeof(Code);
  static constexpr int group = 1;
  static constexpr std::size_t code_bytes = sizeof(Code);
  static constexpr std::size_t scale_bytes = 0;

  static constexpr float level(Code code) { return Element::decode(code); }

  template <class T>
  static constexpr void decode_group(const std::byte* codes, const std::byte*, T* out) {
    *out = static_cast<T>(level(load_little_endian<Code>(codes)));
  }
  static constexpr void encode_group(const float* values, std::byte* codes, std::byte*) {
    store_little_endian(Element::encode(*values), codes);
  }
};

using PlainF32 = Plain<Format::f32, F32Element>;
using PlainF16 = Plain<Format::f16, F16Element>;
using PlainBf16 = Plain<Format::bf16, Bf16Element>;

static_assert(BlockFormat<PlainF32> && BlockFormat<PlainF16> && BlockFormat<PlainBf16>);

}  // namespace nib::inline v0
