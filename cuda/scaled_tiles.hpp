// Room cuda: where the codes and scales of a matrix of small codes with scales lie on a device, and how codes
// become bf16. Everything here is constexpr: the host packs with it, kernels read with it, tests walk all of
// it.
//
// A matrix is cut into tiles of 16 rows, slices and blocks of 64 inputs (kernels/device_layout.hpp): a line
// of scales, then blocks. Half a block is 32 inputs, of which lane l (group = l / 4, in_group = l % 4) holds
// those from 8 in_group on: eight codes of row `group`, then eight of row `group` + 8; all in one word, or in
// two of four codes. A lane's words of a block follow each other, sixteen bytes in each of the loads of a
// warp:
//
//   4 bits   word 0: row group, first half    1: row group + 8, first half    2, 3: the same, second half
//   8 bits   load 0, words 0, 1: row group, first half    2, 3: row group + 8    load 1: second half
//
// In the line of scales those of row `group` of the slice follow each other, then come those of row `group` +
// 8, then those of the next group.
#pragma once

#include <nibble/formats/small_floats.hpp>
#include <nibble/kernels/device_layout.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

template <class Tiles>
inline constexpr int kCodeBits = Tiles::kBlockBytes * 8 / (kTileRows * kBlockDepth);

// The byte where the word begins that holds the code of input `i` of a row (number i % (32 / bits) in it).
template <class Tiles>
constexpr std::int64_t code_word_offset(const Tiles& tiles, std::int64_t row, std::int64_t i) {
  constexpr std::int64_t kCodes = 32 / kCodeBits<Tiles>, kWords = 8 / kCodes;
  const std::int64_t block = i % Tiles::kSliceDepth / kBlockDepth, half = i % kBlockDepth / 32;
  const std::int64_t lane = row % 8 * 4 + i % 32 / 8;
  const std::int64_t word = (half * 2 + row % kTileRows / 8) * kWords + i % 8 / kCodes;
  return tiles.slice_offset(row / kTileRows, static_cast<int>(i / Tiles::kSliceDepth)) + Tiles::kLineBytes +
         block * Tiles::kBlockBytes + word / 4 * 512 + lane * 16 + word % 4 * 4;
}
// The byte of scale number `index` of a row, each of so many bytes.
template <class Tiles>
constexpr std::int64_t scale_offset(const Tiles& tiles, std::int64_t row, std::int64_t index, int bytes) {
  constexpr std::int64_t kRowBytes = Tiles::kLineBytes / kTileRows;
  const std::int64_t in_slice = kRowBytes / bytes;
  return tiles.slice_offset(row / kTileRows, static_cast<int>(index / in_slice)) +
         (row % 8 * 2 + row % kTileRows / 8) * kRowBytes + index % in_slice * bytes;
}

// A codec. Two codes, which follow each other in a row, are opened to two pairs of bf16, the first code in
// the lower halves; the weights are the pairs' differences or their products, and bf16 holds them exactly.
//   kCodes        in a word
//   kDifference   or product
//   word(codes)   of so many codes, as the format stores them
//   open(word, j) codes 2 j and 2 j + 1
//   holds(code)   whether it is a number; one that is none would become one
struct Masked {  // one instruction of a device
  std::uint32_t bits, mask, with;
  constexpr std::uint32_t value() const { return (bits & mask) | with; }
};
struct Operands {
  Masked first, second;
};
constexpr Masked all_of(std::uint32_t bits) { return {bits, 0xffff'ffffu, 0}; }

// Code 2 j at bits 4 j, code 2 j + 1 at bits 16 + 4 j; the weight is the code less 8. In bf16, 0x4300 is 128
// and its last bit is 1.
struct NibblesLess8 {
  static constexpr int kCodes = 8;
  static constexpr bool kDifference = true;
  static constexpr std::uint32_t word(const std::uint8_t* codes) {
    std::uint32_t out = 0;
    for (unsigned i = 0; i < 8; ++i) out |= std::uint32_t{codes[i]} << (i % 2 * 16 + i / 2 * 4);
    return out;
  }
  static constexpr bool holds(std::uint8_t) { return true; }
  static constexpr Operands open(std::uint32_t word, int j) {
    return {{word >> 4 * j, 0x000f'000fu, 0x4300'4300u}, all_of(0x4308'4308u)};
  }
};

// Bytes in two's complement: code 2 j at bits 8 j, code 2 j + 1 at bits 16 + 8 j. 128 and the lower seven
// bits, less 128 or, where the sign is set, 256.
struct SignedBytes {
  static constexpr int kCodes = 4;
  static constexpr bool kDifference = true;
  static constexpr std::uint32_t word(const std::uint8_t* codes) {
    std::uint32_t out = 0;
    for (unsigned i = 0; i < 4; ++i) out |= std::uint32_t{codes[i]} << (i % 2 * 16 + i / 2 * 8);
    return out;
  }
  static constexpr bool holds(std::uint8_t) { return true; }
  static constexpr Operands open(std::uint32_t word, int j) {
    const std::uint32_t bytes = word >> 8 * j;
    return {{bytes, 0x007f'007fu, 0x4300'4300u}, {bytes, 0x0080'0080u, 0x4300'4300u}};
  }
};

// Floats of a byte that have `ExponentBits` bits of exponent: codes 0 and 1 in the upper bytes of both halves
// of the word, 2 and 3 in the lower ones. A sign, and seven bits so far down that the exponent's last is
// where bf16 has its own: the value, times 2^(bias of the format - 127).
template <class Float, int ExponentBits>
struct FloatBytes {
  static constexpr int kCodes = 4;
  static constexpr bool kDifference = false;
  static constexpr std::uint32_t word(const std::uint8_t* codes) {
    std::uint32_t out = 0;
    for (unsigned i = 0; i < 4; ++i) out |= std::uint32_t{codes[i]} << (i % 2 * 16 + (i / 2 ? 0 : 8));
    return out;
  }
  static constexpr bool holds(std::uint8_t code) { return (code & 0x7fu) <= Float::max_code; }
  static constexpr Operands open(std::uint32_t word, int j) {
    constexpr int kShift = ExponentBits;  // from bit 7 - ExponentBits to bit 7
    constexpr std::uint32_t kBias = (1u << (ExponentBits - 1)) - 1;
    const std::uint32_t sign = (j == 0 ? word : word << 8) & 0x8000'8000u,
                        magnitude = j == 0 ? word >> (8 - kShift) : word << kShift;
    return {{magnitude, 0x007f'007fu << kShift, sign}, all_of((2 * 127 - kBias) * 0x0080'0080u)};
  }
};
using E4M3Bytes = FloatBytes<E4M3, 4>;
using E5M2Bytes = FloatBytes<E5M2, 5>;

}  // namespace nib::inline v0::cuda
