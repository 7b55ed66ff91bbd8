// Room cuda: where the codes and scales of an MXFP4 matrix lie on a device, and how eight codes become bf16.
// Everything here is constexpr: the host packs with it, kernels read with it, tests walk all of it.
//
// A matrix is cut into tiles of 16 rows, slices of 256 inputs and blocks of 64 (kernels/device_layout.hpp): a
// line of 128 bytes of scales, then four blocks of 512 bytes. A block is what a warp loads in one
// instruction, 16 bytes a lane, and multiplies by four tensor products of 16 rows x 16 inputs.
//
// Lane l of a block (group = l / 4, in_group = l % 4) holds four words, each of eight codes that follow each
// other in a row, at inputs 8 in_group .. + 7 of a half block of 32:
//
//   word 0: row group, first half    word 1: row group + 8, first half    words 2, 3: the same, second half
//
// so that a word has one scale. In the line of scales, bytes 16 group .. + 7 are those of row `group`, one
// for each 32 inputs, and bytes 16 group + 8 .. + 15 those of row `group` + 8. A tensor product adds over its
// sixteen inputs in an order of the hardware's own choice; which inputs go together in one is fixed by the
// word: codes 0..3 of four lanes in the first product of a half block, 4..7 in the second.
#pragma once

#include <nibble/kernels/device_layout.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kScaleGroup = 32;

// The byte where the word of eight codes begins that holds input `i` (its code number i % 8) of a row.
constexpr std::int64_t mxfp4_word_offset(const Mxfp4Tiles& tiles, std::int64_t row, std::int64_t i) {
  const auto slice = static_cast<int>(i / Mxfp4Tiles::kSliceDepth);
  const std::int64_t block = i % Mxfp4Tiles::kSliceDepth / kBlockDepth, half = i % kBlockDepth / kScaleGroup;
  const std::int64_t lane = row % 8 * 4 + i % kScaleGroup / 8;
  const std::int64_t word = half * 2 + row % kTileRows / 8;
  return tiles.slice_offset(row / kTileRows, slice) + Mxfp4Tiles::kLineBytes +
         block * Mxfp4Tiles::kBlockBytes + lane * 16 + word * 4;
}
// The byte of the scale of inputs 32 group .. + 31 of a row.
constexpr std::int64_t mxfp4_scale_offset(const Mxfp4Tiles& tiles, std::int64_t row, std::int64_t group) {
  constexpr std::int64_t kGroups = Mxfp4Tiles::kSliceDepth / kScaleGroup;
  return tiles.slice_offset(row / kTileRows, static_cast<int>(group / kGroups)) + row % 8 * 16 +
         row % kTileRows / 8 * 8 + group % kGroups;
}

// Eight codes in a word: codes 0, 2, 4, 6 in its lower sixteen bits, 1, 3, 5, 7 in its upper ones, of which
//
//   bit  15  14  13  12  11  10   9   8   7   6   5   4   3   2   1   0
//        s0  s6  m6  s2  e6  e6  s4  e0  e0  m0  e2  e2  m2  e4  e4  m4
//
// (sign, two bits of exponent, mantissa; the number is that of the code in the lower half). The pattern of
// code 0 read as bf16 is its value times 2^-126; codes 2 and 4 are it, shifted by three and six; what is left
// over is code 6, in three pieces. (No four shifts of the pattern fill sixteen bits.)
constexpr std::uint32_t twiddle(const std::uint8_t (&codes)[8]) {
  std::uint32_t word = 0;
  for (unsigned half = 0; half < 2; ++half) {
    std::uint32_t lane = 0;
    for (unsigned j = 0; j < 4; ++j) {
      const std::uint32_t code = codes[2 * j + half];
      const std::uint32_t sign = code >> 3 & 1, exponent = code >> 1 & 3, mantissa = code & 1;
      lane |= j < 3 ? (sign << 15 | (code & 7) << 6) >> 3 * j : sign << 14 | exponent << 10 | mantissa << 13;
    }
    word |= lane << 16 * half;
  }
  return word;
}

// The way back: four pairs of bf16, codes (0, 1), (2, 3), (4, 5), (6, 7), the first of each in the lower
// half; each is its value times 2^-126. Code 0.5 is a subnormal here.
struct CodePairs {
  std::uint32_t at[4];
};
constexpr CodePairs untwiddle(std::uint32_t word) {
  constexpr std::uint32_t kPattern = 0x81c0'81c0, kSign = 0x8000'8000, kExponent = 0x0180'0180,
                          kMantissa = 0x0040'0040;
  return {{word & kPattern, word << 3 & kPattern, word << 6 & kPattern,
           (word << 1 & kSign) | (word >> 3 & kExponent) | (word >> 7 & kMantissa)}};
}

// A scale's byte is the exponent field of the bf16 that makes weights of such patterns, 2^(byte - 127):
// E8M0's code, of which 127 is 1, plus 126. Codes up to 128 fit; where a matrix has larger ones all of its
// scales are lowered by one power of two, and its products multiplied by it in the end.
inline constexpr int kScaleBias = 126;
inline constexpr int kMostScale = 254 - kScaleBias;
constexpr std::uint32_t scale_pair(std::uint32_t byte) { return byte * 0x0080'0080u; }

}  // namespace nib::inline v0::cuda
