// The verbs of kernels/decoders.hpp for a device: a vector is the number of one row of a strip, that
// of the thread: lane l of a warp has row l % 16.
#pragma once

#include "../arch.cuh"
#include "halves.cuh"
#include <nibble/formats/small_floats.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

struct OneRow {
  using F = float;
  using P = std::uint32_t;

  NIB_DEVICE static F set(float x) { return x; }
  NIB_DEVICE static F mul(F a, F b) { return a * b; }
  NIB_DEVICE static F fma(F a, F b, F c) { return fused_multiply_add(a, b, c); }

  NIB_DEVICE static F load(const float* from) { return from[row()]; }
  NIB_DEVICE static P load_pairs(const void* from) { return static_cast<const std::uint32_t*>(from)[row()]; }
  NIB_DEVICE static F load_f16(const void* from) { return to_float(static_cast<const f16*>(from)[row()]); }
  NIB_DEVICE static F load_i8(const void* from) { return static_cast<const std::int8_t*>(from)[row()]; }
  NIB_DEVICE static F load_e4m3(const void* from) { return E4M3::decode(byte(from)); }
  NIB_DEVICE static F load_e5m2(const void* from) { return E5M2::decode(byte(from)); }
  // 2^(e - 127); that of e = 0 is subnormal, and kept.
  NIB_DEVICE static F e8m0(const void* from) {
    const std::uint32_t exponent = byte(from);
    return std::bit_cast<float>(exponent ? exponent << 23 : 0x0040'0000u);
  }

  NIB_DEVICE static P keep(P p, std::uint32_t mask) { return p & mask; }
  NIB_DEVICE static P shifted_right(P p, int bits) { return p >> bits; }
  NIB_DEVICE static P shifted_left(P p, int bits) { return p << bits; }
  NIB_DEVICE static P joined(P a, P b) { return a | b; }
  // Each byte less n, modulo 256: the highest bits apart, so that none borrows from its neighbour.
  NIB_DEVICE static P bytes_less(P p, int n) {
    const std::uint32_t all = 0x0101'0101u * static_cast<std::uint32_t>(n);
    return ((p | 0x8080'8080u) - (all & 0x7f7f'7f7fu)) ^ ((p ^ ~all) & 0x8080'8080u);
  }
  NIB_DEVICE static F byte24(P p, int byte) {
    return static_cast<float>(static_cast<std::int32_t>(p << (24 - 8 * byte) & 0xff00'0000u));
  }
  // levels[byte] of each byte, which is below sixteen.
  template <const std::int8_t (&levels)[16]>
  NIB_DEVICE static P looked_up(P p) {
    P out = 0;
    NIB_UNROLL
    for (int at = 0; at < 32; at += 8)
      out |=
          static_cast<std::uint32_t>(static_cast<std::uint8_t>(level_of<std::int8_t, levels>(p >> at & 15)))
          << at;
    return out;
  }
  // levels[code `nibble`].
  template <const float (&levels)[16]>
  NIB_DEVICE static F table(P raw, int nibble) {
    return level_of<float, levels>(raw >> (4 * nibble) & 15);
  }

 private:
  NIB_DEVICE static int row() { return thread_index() % 16; }
  NIB_DEVICE static std::uint8_t byte(const void* from) {
    return static_cast<const std::uint8_t*>(from)[row()];
  }
  // The host's table is a constant here, but no memory: a copy of the device's own is.
  template <class T, const T (&levels)[16]>
  NIB_DEVICE static T level_of(std::uint32_t code) {
    static constexpr T kLevels[16] = {levels[0],  levels[1],  levels[2],  levels[3], levels[4],  levels[5],
                                      levels[6],  levels[7],  levels[8],  levels[9], levels[10], levels[11],
                                      levels[12], levels[13], levels[14], levels[15]};
    return kLevels[code];
  }
};

}  // namespace nib::inline v0::cuda
