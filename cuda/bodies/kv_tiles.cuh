// Room cuda: how keys and values as pages hold them (kv_pages.hpp) meet their other factor: a tile at a time,
// on tensor cores or without them.
//
// `column` is a column of a block, in shared memory as in the page: [units][32 lanes] of sixteen bytes. The
// other factor is [16][16] of bf16, where it is too: sixteen bytes of each lane (multiply_tile draws them).
#pragma once

#include "../arch.cuh"
#include "../kv_pages.hpp"

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

// Which of the sixteen k of a tile are to be multiplied: bit k. The others may be anything.
inline constexpr std::uint32_t kAllOfTile = 0xffff;

// Two bf16 from the upper halves of two f32, which hold them exactly.
NIB_DEVICE std::uint32_t join_upper_halves(float low, float high) {
  return std::bit_cast<std::uint32_t>(low) >> 16 | (std::bit_cast<std::uint32_t>(high) & 0xffff'0000u);
}
NIB_DEVICE float lower_bf16(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
NIB_DEVICE float upper_bf16(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff'0000u); }

// What a lane has of a tile: as two pairs of bf16, or as four f32.
struct TileBf16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  NIB_DEVICE static void pairs(const Words4& unit, int tile, std::uint32_t (&out)[2]) {
    out[0] = unit.at[tile * 2];
    out[1] = unit.at[tile * 2 + 1];
  }
  NIB_DEVICE static void floats(const Words4& unit, int tile, float (&out)[4]) {
    NIB_UNROLL
    for (int i = 0; i < 2; ++i) {
      out[i * 2] = lower_bf16(unit.at[tile * 2 + i]);
      out[i * 2 + 1] = upper_bf16(unit.at[tile * 2 + i]);
    }
  }
};

struct TileF32 {
  static constexpr int kBytes = 4;
  static constexpr bool kScaled = false;
  NIB_DEVICE static void floats(const Words4& unit, int, float (&out)[4]) {
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) out[i] = std::bit_cast<float>(unit.at[i]);
  }
};

// Forms of a byte, in numbers that bf16 holds.
template <class Code>
struct TileBytes {
  static constexpr int kBytes = 1;
  static constexpr bool kScaled = true;
  NIB_DEVICE static void pairs(const Words4& unit, int tile, std::uint32_t (&out)[2]) {
    Code::pairs(unit.at[tile], out);
  }
  NIB_DEVICE static void floats(const Words4& unit, int tile, float (&out)[4]) {
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) out[i] = Code::decode(unit.at[tile], i);
  }
};

struct CodeInt8 {
  // 2^23 + 128 + x is an f32 whose last byte is that of x with its sign turned round.
  NIB_DEVICE static float decode(std::uint32_t word, int i) {
    return std::bit_cast<float>(byte_of(word ^ 0x8080'8080u, i) | 0x4b00'0000u) - 0x1.0001p23f;
  }
  NIB_DEVICE static void pairs(std::uint32_t word, std::uint32_t (&out)[2]) {
    NIB_UNROLL
    for (int i = 0; i < 2; ++i) out[i] = join_upper_halves(decode(word, i * 2), decode(word, i * 2 + 1));
  }
};
struct CodeE4M3 {
  // Exponents go up by 120. The least of them stands for no leading one: that is put there and taken away.
  NIB_DEVICE static float decode(std::uint32_t word, int i) {
    const std::uint32_t code = byte_of(word, i), size = code & 0x7f, place = size << 20;
    const float value = size < 8 ? std::bit_cast<float>(place + (121u << 23)) - 0x1p-6f
                                 : std::bit_cast<float>(place + (120u << 23));
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | (code & 0x80) << 24);
  }
  // The same for two at once: in its place in bf16 a code is its number times 2^-120.
  NIB_DEVICE static void pairs(std::uint32_t word, std::uint32_t (&out)[2]) {
    NIB_UNROLL
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t two = word >> 16 * i, apart = (two & 0xff) | (two & 0xff00) << 8;
      out[i] = multiply_bf16x2((apart & 0x0080'0080u) << 8 | (apart & 0x007f'007fu) << 4, 0x7b80'7b80u);
    }
  }
};

// sums[i] += factor [16][16] times tile first + i of the column, for i below `tiles`; four sums a lane, those
// of multiply_tile. Unless all of k are kept, only those of the bits in `keep`.
struct OnTensorCores {
  static constexpr bool kLanesShareColumns = false;  // a lane reads nothing that another one copied

  template <class Tile, int tiles, bool keep_all>
  NIB_DEVICE static void multiply(float (*sums)[4], const Words4* factor, const Words4* column, int first,
                                  std::uint32_t keep, int lane) {
    const Words4 a_words = factor[lane];
    const std::uint32_t a[4] = {a_words.at[0], a_words.at[1], a_words.at[2], a_words.at[3]};
    constexpr int kTiles = unit_tiles(Tile::kBytes);
    const int shift = lane % 4 * 2;
    NIB_UNROLL
    for (int i = 0; i < tiles; ++i) {
      std::uint32_t b[2];
      Tile::pairs(column[(first + i) / kTiles * 32 + lane], (first + i) % kTiles, b);
      if constexpr (!keep_all) {
        NIB_UNROLL
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t mine = keep >> (shift + 8 * half);
          b[half] &= (mine & 1 ? 0xffffu : 0u) | (mine & 2 ? 0xffff'0000u : 0u);
        }
      }
      multiply_tile(sums[i], a, b);
    }
  }
};

// The same sums by fused multiply-adds, one chain each: k = 0, 1, 8, 9, 2, 3, 10, 11, and so on.
struct OnPlainCores {
  static constexpr bool kLanesShareColumns = true;

  template <class Tile, int tiles, bool keep_all>
  NIB_DEVICE static void multiply(float (*sums)[4], const Words4* factor, const Words4* column, int first,
                                  std::uint32_t keep, int lane) {
    constexpr int kTiles = unit_tiles(Tile::kBytes);
    const int group = lane / 4, in_group = lane % 4;
    NIB_ROLLED
    for (int from = 0; from < 4; ++from) {  // whose k
      const Words4 a = factor[group * 4 + from];
      const float upper[4] = {lower_bf16(a.at[0]), upper_bf16(a.at[0]), lower_bf16(a.at[2]),
                              upper_bf16(a.at[2])};
      const float lower[4] = {lower_bf16(a.at[1]), upper_bf16(a.at[1]), lower_bf16(a.at[3]),
                              upper_bf16(a.at[3])};
      NIB_UNROLL
      for (int i = 0; i < tiles; ++i) {
        NIB_UNROLL
        for (int n = 0; n < 2; ++n) {
          float b[4];
          Tile::floats(column[(first + i) / kTiles * 32 + (in_group * 2 + n) * 4 + from],
                       (first + i) % kTiles, b);
          NIB_UNROLL
          for (int j = 0; j < 4; ++j) {
            if constexpr (!keep_all)
              if (!(keep >> (from * 2 + j % 2 + j / 2 * 8) & 1)) b[j] = 0;
            sums[i][n] = fused_multiply_add(upper[j], b[j], sums[i][n]);
            sums[i][2 + n] = fused_multiply_add(lower[j], b[j], sums[i][2 + n]);
          }
        }
      }
    }
  }
};

}  // namespace nib::inline v0::cuda
