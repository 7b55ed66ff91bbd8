// Packing of activations: rows of f32 into the blocks that kernels read (ActivationLayout in backend.hpp).
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/ops.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cpu {

// Packed rows of inputs of one matrix: `rows` of them, of which `row` is meant.
struct PackedRow {
  ActivationLayout layout;
  std::byte* block;  // that the row belongs to
  int row, width;    // the row in the block, and the block's rows
  std::int64_t k_padded;
};
template <class A>
PackedRow packed_row(const PackedWeight& weight, std::byte* packed, std::int64_t row, std::int64_t rows) {
  const MatmulKernel& kernel = *weight.kernel;
  const Range block = RowBlocks(rows, kernel.block_rows).holding(row);
  return {kernel.x,
          packed + static_cast<std::size_t>(block.begin) * activation_bytes(kernel.x, weight.k_padded()),
          static_cast<int>(row - block.begin), static_cast<int>(block.size()), weight.k_padded()};
}

// What bf16 numerics leave of sixteen inputs: |x| < 2^-60 is zero.
template <class A>
typename A::F activation_rounded(typename A::F x) {
  const auto tiny = A::set(0x1p-60f), minus_tiny = A::set(-0x1p-60f), zero = A::set(0.0f);
  return A::round_bf16(A::if_less(x, tiny, A::if_less(minus_tiny, x, zero, x), x));
}

// Eight inputs in the order of steps, as floats or as pairs, `width` dwords apart; returns what follows.
[[gnu::always_inline]] inline std::uint32_t* pack_octet(const float* in, bool pairs, std::uint32_t* out,
                                                        int width) {
  if (pairs)
    for (int s = 0; s < 4; ++s, out += width)
      *out = to_bf16(in[s]).bits | static_cast<std::uint32_t>(to_bf16(in[s + 4]).bits) << 16;
  else
    for (const int k : kChainOrder) {
      *out = std::bit_cast<std::uint32_t>(in[k]);
      out += width;
    }
  return out;
}

// Sixteen inputs from `at` on, a multiple of sixteen, as floats or pairs.
template <class A>
void pack16(const PackedRow& to, bool round, typename A::F x, std::int64_t at) {
  alignas(64) float lanes[16];
  A::store(lanes, round ? activation_rounded<A>(x) : x);
  const bool pairs = to.layout == ActivationLayout::pairs;
  std::uint32_t* out = reinterpret_cast<std::uint32_t*>(to.block) + (pairs ? at / 2 : at) * to.width + to.row;
  for (std::int64_t octet = 0; octet < 16 && at + octet < to.k_padded; octet += kOctet)
    out = pack_octet(lanes + octet, pairs, out, to.width);
}

// A group of 32 inputs as floats or pairs with their sum (sum_of_group in canonical.hpp).
template <class A>
void pack_group(const PackedRow& to, typename A::F low, typename A::F high, std::int64_t at) {
  low = activation_rounded<A>(low);
  high = activation_rounded<A>(high);
  alignas(64) float lanes[kInt8Group];
  A::store(lanes, low);
  A::store(lanes + 16, high);
  std::uint32_t* out = reinterpret_cast<std::uint32_t*>(to.block) +
                       at / kInt8Group * group_dwords(to.layout) * to.width + to.row;
  for (std::int64_t octet = 0; octet < kInt8Group; octet += kOctet)
    out = pack_octet(lanes + octet, to.layout == ActivationLayout::group_pairs, out, to.width);
  *out = std::bit_cast<std::uint32_t>(A::sum(A::add(low, high)));
}

// A group of 32 inputs as bytes: group_int8 (canonical.hpp), the sums and maxima of which are exact.
template <class A>
void pack32(const PackedRow& to, typename A::F low, typename A::F high, std::int64_t at) {
  const auto zero = A::set(0.0f);
  // Infinities and what is no number come through a product with zero.
  const float strange = A::sum(A::add(A::mul(low, zero), A::mul(high, zero)));
  const auto magnitude = [&](typename A::F x) { return A::max(x, A::sub(zero, x)); };
  const float largest = A::largest(A::max(magnitude(low), magnitude(high)));
  float scale = 0, inverse = 0;
  if (largest >= 0x1p-60f) {
    scale = largest / 127.0f;
    inverse = 127.0f / largest;
  }
  if (!(strange == 0)) {
    scale = std::numeric_limits<float>::quiet_NaN();
    low = high = zero;
  }
  // The low byte of the sum's bits is the nearest whole number; its neighbour bit makes it q + 128.
  const auto round = A::set(0x1.8p23f + 128.0f), factor = A::set(inverse);
  alignas(64) std::uint32_t bits[kInt8Group];
  A::store(reinterpret_cast<float*>(bits), A::add(A::mul(low, factor), round));
  A::store(reinterpret_cast<float*>(bits + 16), A::add(A::mul(high, factor), round));
  std::uint32_t* out = reinterpret_cast<std::uint32_t*>(to.block) +
                       at / kInt8Group * group_dwords(to.layout) * to.width + to.row;
  std::uint32_t sum = 0;
  for (const std::uint32_t* octet = bits; octet < bits + kInt8Group; octet += kOctet)
    for (int odd = 0; odd < 2; ++odd, out += to.width) {
      std::uint32_t four = 0;
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t byte = octet[2 * i + odd] & 0xffu;
        four |= byte << (8 * i);
        sum += byte;
      }
      *out = four;
    }
  out[0] = std::bit_cast<std::uint32_t>(scale);
  const int codes = static_cast<int>(sum) - 128 * static_cast<int>(kInt8Group);
  out[to.width] = std::bit_cast<std::uint32_t>(static_cast<float>(codes) * scale);
}

// The inputs of one row from `at` on, a multiple of 32, in any layout: thirty-two, or the first sixteen
// alone.
template <class A>
void pack_inputs(const PackedRow& to, Numerics numerics, const typename A::F (&x)[2], bool both,
                 std::int64_t at) {
  if (group_dwords(to.layout) > 0) {
    const auto high = both ? x[1] : A::set(0.0f);
    return to.layout == ActivationLayout::bytes ? pack32<A>(to, x[0], high, at)
                                                : pack_group<A>(to, x[0], high, at);
  }
  pack16<A>(to, rounds_to_bf16(numerics), x[0], at);
  if (both) pack16<A>(to, rounds_to_bf16(numerics), x[1], at + 16);
}

// One row of f32 into packed rows [row of rows].
template <class A>
void pack_row(const OpContext& context, const PackedWeight& weight, const float* x, std::byte* packed,
              std::int64_t row, std::int64_t rows) {
  const PackedRow to = packed_row<A>(weight, packed, row, rows);
  const std::int64_t stride = row_stride(weight.k);
  for (std::int64_t at = 0; at < weight.k; at += kInt8Group) {
    const bool both = at + 16 < stride;
    const typename A::F inputs[2] = {A::load(x + at), A::load(x + (both ? at + 16 : at))};
    pack_inputs<A>(to, context.numerics, inputs, both, at);
  }
}

}  // namespace nib::inline v0::cpu
