// Room formats: Block<...>: a storage format put together from an element codec, a scale codec, a group size,
// a scale rule and an order of codes in bytes. A format of that family is one `using`: see mxfp4.hpp.
//
//   value[i] = Element::decode(code[i]) * Scale::decode(scale)     for the `group` values that share a scale
//
// A matrix in such a format is two planes: the codes, `code_bytes` a group, row after row; and the scales,
// `scale_bytes` a group, in the same order. No padding; a row is a whole number of groups. Any thread.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/formats/lanes.hpp>
#include <nibble/formats/rounding.hpp>

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace nib::inline v0 {

// What every storage format offers. The plain ones (plain.hpp) are groups of one value without a scale; those
// whose scales lie inside the codes (ggml.hpp) ignore the scale pointer, which may be null.
//   decode_group(codes, scale, out)      `group` values to float or double
template <class F>
concept StoredFormat = requires(const std::byte* stored, float* single, double* exact) {
  { F::id } -> std::convertible_to<Format>;
  { F::bits } -> std::convertible_to<int>;  // of one code, scales not counted
  { F::group } -> std::convertible_to<int>;
  { F::code_bytes } -> std::convertible_to<std::size_t>;
  { F::scale_bytes } -> std::convertible_to<std::size_t>;
  F::decode_group(stored, stored, single);
  F::decode_group(stored, stored, exact);
};

// One that can be written a group at a time.
//   encode_group(values, codes, scale)   `group` values from float, by the format's scale rule
template <class F>
concept BlockFormat = StoredFormat<F> && requires(const float* values, std::byte* store) {
  F::encode_group(values, store, store);
};

// One whose f32 scales each tensor shares in its own way (ScaleSharing): a group is what one byte holds, and
// decode_group takes the address of the f32 that belongs to it. Its scale is chosen over all values that
// share it, which are no group, so it is written in two steps.
//   scale_of(largest)                    the scale of values of that largest magnitude
//   encode_codes(values, scale, codes)   `group` values under a scale
template <class F>
concept SharedScaleFormat = StoredFormat<F> && requires(const float* values, float scale, std::byte* store) {
  { F::scale_of(scale) } -> std::same_as<float>;
  F::encode_codes(values, scale, store);
};

// An element: a code of `bits` bits that means a number.
template <class T>
concept ElementCodec = requires(typename T::Code code, float value) {
  { T::bits } -> std::convertible_to<int>;
  { T::decode(code) } -> std::same_as<float>;
  { T::encode(value) } -> std::same_as<typename T::Code>;
  { T::max() } -> std::same_as<float>;
};

// A scale: a code of whole bytes; quotient(value, code) is the value in units of the scale, ready for the
// element codec.
template <class T>
concept ScaleCodec = requires(typename T::Code code, float value) {
  { T::decode(code) } -> std::same_as<float>;
  { T::quotient(value, code) } -> std::same_as<float>;
};

// An unsigned integer as its bytes, the lowest first, on any machine.
template <std::unsigned_integral T>
constexpr T load_little_endian(const std::byte* from) {
  T value = 0;
  if (!std::is_constant_evaluated() && std::endian::native == std::endian::little) {
    std::memcpy(&value, from, sizeof value);  // which loops over many are vectorized with
    return value;
  }
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | (static_cast<T>(std::to_integer<std::uint8_t>(from[i])) << (8 * i)));
  return value;
}
template <std::unsigned_integral T>
constexpr void store_little_endian(T value, std::byte* to) {
  for (std::size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<std::byte>((value >> (8 * i)) & 0xffu);
}

// The usual order of codes in bytes: one stream of bits, lowest bit of the lowest byte first, code i at bits
// i * Bits .. i * Bits + Bits - 1. For 4 bits: the even element in the low nibble; for 8: a byte each.
template <int Bits>
struct BitStream {
  static constexpr std::size_t bytes(int group) { return static_cast<std::size_t>(group) * Bits / 8; }

  template <class Code>
  static constexpr void pack(const Code* codes, int group, std::byte* out) {
    if constexpr (Bits == 8) {  // the common ones, without a window
      for (int i = 0; i < group; ++i) out[i] = static_cast<std::byte>(codes[i]);
      return;
    }
    if constexpr (Bits == 4) {
      for (int i = 0; i < group; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
      return;
    }
    std::uint32_t window = 0;
    int filled = 0;
    for (int i = 0; i < group; ++i) {
      window |= static_cast<std::uint32_t>(codes[i]) << filled;
      for (filled += Bits; filled >= 8; filled -= 8, window >>= 8)
        *out++ = static_cast<std::byte>(window & 0xffu);
    }
  }

  template <class Code>
  static constexpr void unpack(const std::byte* in, int group, Code* codes) {
    std::uint32_t window = 0;
    int filled = 0;
    for (int i = 0; i < group; ++i) {
      for (; filled < Bits; filled += 8) window |= std::to_integer<std::uint32_t>(*in++) << filled;
      codes[i] = static_cast<Code>(window & ((1u << Bits) - 1u));
      window >>= Bits;
      filled -= Bits;
    }
  }
};

// The composition. Id: the format's name among the stored ones, or Format::none for one that files do not
// have.
template <Format Id, ElementCodec ElementT, ScaleCodec ScaleT, int Group, class RuleT,
          template <int> class Order = BitStream>
struct Block {
  static_assert(Group * ElementT::bits % 8 == 0, "the codes of a group fill whole bytes");

  using Element = ElementT;
  using Scale = ScaleT;
  using Rule = RuleT;
  using Code = typename Element::Code;
  using ScaleCode = typename Scale::Code;

  static constexpr Format id = Id;
  static constexpr int bits = Element::bits;
  static constexpr int group = Group;
  static constexpr std::size_t code_bytes = Order<bits>::bytes(Group);
  static constexpr std::size_t scale_bytes = sizeof(ScaleCode);

  static constexpr float level(Code code) { return Element::decode(code); }

  // `group` values from `code_bytes` and `scale_bytes` bytes. T is float (one rounding; exact in the range of
  // f32 when the scale is a power of two) or double (exact).
  template <class T>
  static constexpr void decode_group(const std::byte* codes, const std::byte* scale, T* out) {
    Code unpacked[Group] = {};
    Order<bits>::unpack(codes, Group, unpacked);
    const auto factor = static_cast<T>(Scale::decode(load_little_endian<ScaleCode>(scale)));
    for (int i = 0; i < Group; ++i) out[i] = static_cast<T>(level(unpacked[i])) * factor;
  }

  // `group` values into `code_bytes` and `scale_bytes` bytes: the scale by the rule, then every value to a
  // level in units of it, the nearest unless a rounding says otherwise.
  template <class Rounding = RoundNearest>
  static constexpr void encode_group(const float* values, std::byte* codes, std::byte* scale,
                                     const Rounding& rounding = {}) {
    const ScaleCode chosen = Rule::template choose<Element, Scale>(values, Group);
    store_little_endian(chosen, scale);
    encode_codes(values, chosen, codes, rounding);
  }

  // The codes alone, under a scale that is already known.
  template <class Rounding = RoundNearest>
  static constexpr void encode_codes(const float* values, ScaleCode scale, std::byte* codes,
                                     const Rounding& rounding = {}) {
    if constexpr (std::same_as<Rounding, RoundNearest> && lanes::Encodable<Element> &&
                  Group % lanes::kLanes == 0) {
      if (!std::is_constant_evaluated() && Scale::has_lanes(scale)) {
        std::int32_t chosen[Group];
        lanes::encode<Element>(values, Group, chosen,
                               [scale](lanes::Floats x) { return Scale::quotient(x, scale); });
        return Order<bits>::pack(chosen, Group, codes);
      }
    }
    Code chosen[Group] = {};
    for (int i = 0; i < Group; ++i)
      chosen[i] = rounding.template encode<Element>(Scale::quotient(values[i], scale), i);
    Order<bits>::pack(chosen, Group, codes);
  }
};

}  // namespace nib::inline v0
