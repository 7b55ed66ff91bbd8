// Where the numbers of keys and values stand in a page, by the drawing in ops.hpp, and what they mean.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/small_floats.hpp>
#include <nibble/kernels/ops.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nib::test {

class KvPlaces {
 public:
  KvPlaces(const KvLayout& layout, std::size_t layer_offset) : layout_(layout), layer_offset_(layer_offset) {}

  int bytes() const { return layout_.format == KvFormat::f32 ? 4 : layout_.format == KvFormat::bf16 ? 2 : 1; }
  bool scaled() const { return bytes() == 1; }
  // In bytes from the page's begin: one dimension of one head at one slot, and the scale of that head and
  // slot.
  std::size_t number(bool value, int head, std::int64_t slot, std::int64_t d) const {
    const bool pairs = layout_.format == KvFormat::bf16;
    const std::int64_t key_at = pairs ? (d / 2 * 64 + slot) * 2 + d % 2 : d * 64 + slot;
    const std::int64_t value_at = pairs ? (slot / 2 * padded() + d) * 2 + slot % 2 : slot * padded() + d;
    return block(value, head) + static_cast<std::size_t>((value ? value_at : key_at) * bytes());
  }
  std::size_t scale(bool value, int head, std::int64_t slot) const {
    return block(value, head) + static_cast<std::size_t>(64 * padded() * bytes() + slot * 4);
  }
  // What the bytes mean, scale aside.
  float decode(const std::byte* from) const {
    switch (layout_.format) {
      case KvFormat::f32:
        return read<float>(from);
      case KvFormat::int8:
        return read<std::int8_t>(from);
      case KvFormat::fp8:
        return E4M3::decode(read<std::uint8_t>(from));
      default:
        return to_float(read<bf16>(from));
    }
  }

  template <class T>
  static T read(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  template <class T>
  static void write(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof value);
  }

 private:
  std::int64_t padded() const { return (layout_.head_dim + 15) / 16 * 16; }
  std::size_t block(bool value, int head) const {
    const std::int64_t size = 64 * padded() * bytes() + (scaled() ? 64 * 4 : 0);
    return layer_offset_ + static_cast<std::size_t>((2 * head + (value ? 1 : 0)) * size);
  }

  KvLayout layout_;
  std::size_t layer_offset_;
};

inline constexpr KvFormat kKvStored[] = {KvFormat::bf16, KvFormat::f32, KvFormat::int8, KvFormat::fp8};

}  // namespace nib::test
