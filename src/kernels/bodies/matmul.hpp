// The matrix product: one chain per output along k, in canonical order, vectorized across the sixteen rows of
// a strip.
//
// A decoder (decoders.hpp) says how one format meets the activations on one instruction set. Two loops use
// it.
//
// direct, for 1..4 rows of activations: weights are decoded in registers and multiplied at once (bound by
// memory).
//
// panel, for more rows: 16 KiB of weights are decoded into L1, then each block of rows runs through it (bound
// by the dot rate); the inner loop no longer knows the format.
#pragma once

#include "../decode_records.hpp"
#include "decoders.hpp"
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/packed.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace nib::inline v0::cpu {

inline constexpr std::size_t kPanelBytes = 16 * 1024;
inline constexpr std::size_t kPrefetchAhead = 8192;  // bytes; measured best between 4 and 16 KiB

// What a chain may leave in memory: a sum of zero is positive (canonical.hpp).
template <class A>
void store_sum(float* out, typename A::F sum) {
  A::store(out, A::add(sum, A::set(0.0f)));
}

// ---- direct: 1..4 rows

// S strips of one group, W rows. Reads each tile once, from its beginning to its end.
template <class D, int S, int W>
void direct(const PackedWeight& weight, std::int64_t strip, const typename D::X* x, float* out,
            std::int64_t stride) {
  using A = typename D::Arch;
  typename A::F acc[S][W];
  for (auto& row : acc)
    for (auto& sum : row) sum = A::set(0.0f);
  const std::int64_t count = weight.full_tiles() + (weight.tail_k() ? 1 : 0);
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t k = t < weight.full_tiles() ? kTileK : weight.tail_k();
    const int octets = static_cast<int>(ceil_div(k, kOctet));
    const std::size_t bytes = tile_bytes(D::kFormat, k, weight.run()),
                      line = bytes / static_cast<std::size_t>(octets);
    Tile tiles[S];
    for (int s = 0; s < S; ++s) tiles[s] = tile_of<D>(weight, strip + s, t);
    for (int o = 0; o < octets; ++o) {
      const auto* xo = x + static_cast<std::int64_t>((t * 16 + o) * D::kSteps * W);
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        for (std::size_t b = 0; b < line; b += 64)
          __builtin_prefetch(tiles[s].data + static_cast<std::size_t>(o) * line + b + kPrefetchAhead);
        const auto octet = D::open(tiles[s], o);
#pragma GCC unroll 8
        for (int j = 0; j < D::kSteps; ++j) {
          const auto w = octet.step(j);
#pragma GCC unroll 4
          for (int r = 0; r < W; ++r) acc[s][r] = D::mac(acc[s][r], w, xo[j * W + r]);
        }
      }
    }
  }
  for (int s = 0; s < S; ++s)
    for (int r = 0; r < W; ++r) store_sum<A>(out + r * stride + s * 16, acc[s][r]);
}

// Whole groups of four together where the registers hold their sums, else one strip after another.
template <class D, int W>
void direct_rows(const MatmulCall& call) {
  constexpr int kMost = W > 1 && !D::kStripsOfRows ? 1 : std::clamp(D::Arch::kDirectStrips / W, 1, 4);
  const auto* x = static_cast<const typename D::X*>(call.x);
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end;) {
    float* out = call.out + (strip - call.strip_begin) * 16;
    const bool most = call.strip_end - strip >= kMost;
    if (most)
      direct<D, kMost, W>(*call.weight, strip, x, out, call.out_stride);
    else
      direct<D, 1, W>(*call.weight, strip, x, out, call.out_stride);
    strip += most ? kMost : 1;
  }
}

// ---- panel: many rows

// W rows times a panel of `steps` decoded weight vectors [steps][S]; carries the sums in `out`.
template <class Steps, int S, int W>
void micro(const typename Steps::W* panel, int steps, const typename Steps::X* x, float* out,
           std::int64_t stride, bool first) {
  using A = typename Steps::Arch;
  typename A::F acc[S][W];
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) acc[s][r] = first ? A::set(0.0f) : A::load(out + r * stride + s * 16);
  for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) acc[s][r] = Steps::mac(acc[s][r], panel[i * S + s], x[i * W + r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) store_sum<A>(out + r * stride + s * 16, acc[s][r]);
}

template <class Steps, int S>
using MicroFn = void (*)(const typename Steps::W*, int, const typename Steps::X*, float*, std::int64_t, bool);

template <class Steps, int S, int... W>
constexpr auto micro_table(std::integer_sequence<int, W...>) {
  return std::array<MicroFn<Steps, S>, sizeof...(W)>{micro<Steps, S, W + 1>...};
}

template <class D, class Steps, int S>
void panel_strips(const MatmulCall& call, std::int64_t strip, float* out) {
  static constexpr int kBlock = D::Arch::kBlockRows;
  static constexpr auto kMicro = micro_table<Steps, S>(std::make_integer_sequence<int, kBlock>());
  constexpr int kPanelOctets = static_cast<int>(kPanelBytes / 64) / (S * D::kSteps);
  alignas(64) typename D::W panel[kPanelOctets * D::kSteps * S];

  const PackedWeight& weight = *call.weight;
  const int octets = static_cast<int>(weight.k_padded() / kOctet);
  const std::int64_t row_steps = std::int64_t{octets} * D::kSteps;
  for (int begin = 0; begin < octets; begin += kPanelOctets) {
    const int count = std::min(kPanelOctets, octets - begin);
    for (int o = 0; o < count; ++o) {
      for (int s = 0; s < S; ++s) {
        const auto octet = D::open(tile_of<D>(weight, strip + s, (begin + o) / 16), (begin + o) % 16);
#pragma GCC unroll 8
        for (int j = 0; j < D::kSteps; ++j) panel[(o * D::kSteps + j) * S + s] = octet.step(j);
      }
    }
    for (int row = 0; row < call.rows; row += kBlock) {
      const int width = std::min(kBlock, call.rows - row);
      const auto* x = static_cast<const typename D::X*>(call.x) + row * row_steps +
                      static_cast<std::int64_t>(begin) * D::kSteps * width;
      kMicro[static_cast<std::size_t>(width - 1)](panel, count * D::kSteps, x, out + row * call.out_stride,
                                                  call.out_stride, begin == 0);
    }
  }
}

template <class D, class Steps>
void matmul(const MatmulCall& call) {
  static_assert(D::Arch::kBlockRows >= 4, "the rows of a direct product are one block");
  if constexpr (D::Arch::kDirectStrips > 0) {
    if (call.rows == 1) return direct_rows<D, 1>(call);
    if (call.rows == 2) return direct_rows<D, 2>(call);
    if (call.rows == 3) return direct_rows<D, 3>(call);
    if (call.rows == 4) return direct_rows<D, 4>(call);
  }
  constexpr int kPair = D::Arch::kBlockRows > 6 ? 2 : 1;  // strips of a panel: what the registers hold
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end;) {
    float* out = call.out + (strip - call.strip_begin) * 16;
    if (kPair == 2 && strip + 1 < call.strip_end) {
      panel_strips<D, Steps, kPair>(call, strip, out);
      strip += kPair;
    } else {
      panel_strips<D, Steps, 1>(call, strip, out);
      strip += 1;
    }
  }
}

// ---- any format: rows as they are stored

// A panel of decoded weights at a time, then the same multiply as every other kernel of floats.
template <class A>
void multiply_records(const MatmulCall& call) {
  static constexpr int kBlock = A::kBlockRows;
  static constexpr auto kMicro = micro_table<FloatSteps<A>, 1>(std::make_integer_sequence<int, kBlock>());
  alignas(64) float values[kRecordPanel * kStripRows];
  alignas(64) typename A::F panel[kRecordPanel];
  const PackedWeight& weight = *call.weight;
  const std::int64_t row_steps = weight.k_padded();
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end; ++strip) {
    float* out = call.out + (strip - call.strip_begin) * kStripRows;
    for (std::int64_t begin = 0; begin < weight.k; begin += kRecordPanel) {
      const std::int64_t count = std::min(kRecordPanel, weight.k - begin);
      const int steps = static_cast<int>(round_up(count, kOctet));
      decode_records(weight, strip, begin, count, values);
      for (int i = 0; i < steps; ++i) panel[i] = A::load(values + i * kStripRows);
      for (int row = 0; row < call.rows; row += kBlock) {
        const int width = std::min(kBlock, call.rows - row);
        const float* x = static_cast<const float*>(call.x) + row * row_steps + begin * width;
        kMicro[static_cast<std::size_t>(width - 1)](panel, steps, x, out + row * call.out_stride,
                                                    call.out_stride, begin == 0);
      }
    }
  }
}

template <class A>
constexpr MatmulKernel record_kernel() {
  return {Format::none, ActivationLayout::floats, A::kBlockRows, true, multiply_records<A>};
}

template <class D>
constexpr MatmulKernel kernel() {
  return {D::kFormat, D::kLayout, D::Arch::kBlockRows, D::kAnyScale, matmul<D, typename D::Steps>};
}

}  // namespace nib::inline v0::cpu
