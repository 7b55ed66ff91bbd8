// Room formats: the super-blocks of GGUF files: 256 values, 8 or 16 sub-blocks whose scales are small
// integers in units of one or two f16. Read only.
//
//            bytes   fields in order                               value
//   q2_K       84    16 x (scale:4, min:4), 64 codes, d, dmin      d * scale * code - dmin * min
//   q3_K      110    32 high bits, 64 low bits, 12 scales, d       d * (scale - 32) * (code - 4)
//   q4_K      144    d, dmin, 12 scales and mins, 128 codes        d * scale * code - dmin * min
//   q5_K      176    d, dmin, 12 scales and mins, 32 high, 128     d * scale * code - dmin * min
//   q6_K      210    128 low bits, 64 high bits, 16 scales, d      d * scale * (code - 32)
//   iq4_xs    136    d, 16 high bits, 4 low of scales, 128 codes   d * (scale - 32) * table[code]
//
// d and dmin are f16. Every product is exact in f32 but the last one of q6_K, so that the order of the
// factors hardly matters: as float, a value is rounded once.
#pragma once

#include <nibble/formats/ggml.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

namespace ggml_detail {

constexpr std::uint32_t at(const std::byte* bytes, int i) { return std::to_integer<std::uint32_t>(bytes[i]); }

// Sub-block j's 6-bit scale and minimum among the 12 bytes of q4_K and q5_K: of the first four in a byte of
// their own, whose two upper bits complete those of the last four.
struct ScaleAndMinimum {
  std::uint32_t scale, minimum;
};
constexpr ScaleAndMinimum scale_and_minimum(const std::byte* s, int j) {
  if (j < 4) return {at(s, j) & 63u, at(s, j + 4) & 63u};
  return {(at(s, j + 4) & 15u) | ((at(s, j - 4) >> 6) << 4), (at(s, j + 4) >> 4) | ((at(s, j) >> 6) << 4)};
}

// Sub-block j's scale in a block of iq4_xs: six bits less 32.
constexpr int iq4_xs_scale(const std::byte* block, int j) {
  const std::byte pair = block[4 + j / 2];
  const std::uint32_t upper = load_little_endian<std::uint16_t>(block + 2) >> (2 * j) & 3u;
  return static_cast<int>((j % 2 ? high(pair) : low(pair)) | upper << 4) - 32;
}

}  // namespace ggml_detail

// What all of them say of themselves.
template <Format Id, int Bits, std::size_t Bytes>
struct SuperBlock {
  static constexpr Format id = Id;
  static constexpr int bits = Bits;
  static constexpr int group = 256;
  static constexpr std::size_t code_bytes = Bytes;
  static constexpr std::size_t scale_bytes = 0;
};

// Two halves of 128 values share 32 bytes: byte l holds elements l, l + 32, l + 64 and l + 96, two bits each,
// the first lowest. A sub-block is 16 values.
struct Q2K : SuperBlock<Format::q2_k, 2, 84> {
  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block + 80), dmin = half_at(block + 82);
    for (int i = 0; i < 256; ++i) {
      const int quarter = i % 128 / 32;
      const std::uint32_t code = at(block, 16 + i / 128 * 32 + i % 32) >> (2 * quarter) & 3u;
      const std::byte s = block[i / 16];
      out[i] = d * static_cast<T>(low(s)) * static_cast<T>(code) - dmin * static_cast<T>(high(s));
    }
  }
};

// Low two bits as in q2_K; bit n of byte l of the high bits is the third bit of element 32 n + l. Of the 16
// scales, the low four bits lie as nibbles in 8 bytes, the upper two as pairs of bits in 4.
struct Q3K : SuperBlock<Format::q3_k, 3, 110> {
  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block + 108);
    const std::byte* scales = block + 96;
    for (int i = 0; i < 256; ++i) {
      const std::uint32_t below = at(block, 32 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3u;
      const std::uint32_t above = at(block, i % 32) >> (i / 32) & 1u;
      const int j = i / 16;
      const std::uint32_t nibble = j < 8 ? low(scales[j]) : high(scales[j - 8]);
      const std::uint32_t scale = nibble | ((at(scales, 8 + j % 4) >> (2 * (j / 4)) & 3u) << 4);
      out[i] = d * static_cast<T>(static_cast<int>(scale) - 32) *
               static_cast<T>(static_cast<int>(below | above << 2) - 4);
    }
  }
};

// Sub-blocks of 32: the 32 bytes of pair p hold sub-block 2p in their low nibbles and 2p + 1 in the high
// ones. q5_K: bit j of byte l of the high bits is the fifth bit of element l of sub-block j.
template <Format Id, int Bits, std::size_t Bytes>
struct GgmlPairs : SuperBlock<Id, Bits, Bytes> {
  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block), dmin = half_at(block + 2);
    const std::byte* fifth = block + 16;
    const std::byte* codes = fifth + (Bits == 5 ? 32 : 0);
    for (int j = 0; j < 8; ++j) {
      const ScaleAndMinimum of = scale_and_minimum(block + 4, j);
      const T scale = d * static_cast<T>(of.scale), minimum = dmin * static_cast<T>(of.minimum);
      for (int l = 0; l < 32; ++l) {
        const std::byte byte = codes[32 * (j / 2) + l];
        std::uint32_t code = j % 2 ? high(byte) : low(byte);
        if constexpr (Bits == 5) code |= (at(fifth, l) >> j & 1u) << 4;
        out[32 * j + l] = scale * static_cast<T>(code) - minimum;
      }
    }
  }
};
using Q4K = GgmlPairs<Format::q4_k, 4, 144>;
using Q5K = GgmlPairs<Format::q5_k, 5, 176>;

// Two halves of 128 values in quarters of 32. Low four bits: 64 bytes hold quarters 0 and 1 in their low
// nibbles, 2 and 3 in their high ones. Upper two bits: byte l of 32 holds those of element l of each quarter.
struct Q6K : SuperBlock<Format::q6_k, 6, 210> {
  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block + 208);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
      const std::byte byte = block[64 * half + quarter % 2 * 32 + l];
      const std::uint32_t below = quarter < 2 ? low(byte) : high(byte);
      const std::uint32_t above = at(block, 128 + 32 * half + l) >> (2 * quarter) & 3u;
      const auto stored = static_cast<int>(at(block, 192 + i / 16));
      const int scale = stored < 128 ? stored : stored - 256;
      out[i] = d * static_cast<T>(scale) * static_cast<T>(static_cast<int>(below | above << 4) - 32);
    }
  }
};

// Sub-blocks of 32, each as in iq4_nl: 16 bytes, element j of them in the low nibbles, j + 16 in the high.
struct Iq4Xs : SuperBlock<Format::iq4_xs, 4, 136> {
  template <class T>
  static constexpr void decode_group(const std::byte* block, const std::byte*, T* out) {
    using namespace ggml_detail;
    const T d = half_at(block);
    for (int j = 0; j < 8; ++j) {
      const T factor = d * static_cast<T>(iq4_xs_scale(block, j));
      for (int l = 0; l < 16; ++l) {
        const std::byte byte = block[8 + 16 * j + l];
        out[32 * j + l] = factor * static_cast<T>(kIq4Levels[low(byte)]);
        out[32 * j + l + 16] = factor * static_cast<T>(kIq4Levels[high(byte)]);
      }
    }
  }
};

static_assert(StoredFormat<Q2K> && StoredFormat<Q3K> && StoredFormat<Q4K> && StoredFormat<Q5K> &&
              StoredFormat<Q6K> && StoredFormat<Iq4Xs>);

}  // namespace nib::inline v0
