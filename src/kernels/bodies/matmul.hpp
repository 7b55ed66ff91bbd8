// The matrix product: one chain per output along k, in canonical order, vectorized across the sixteen rows of
// a strip.
//
// A decoder (kernels/decoders.hpp) says how one format meets the activations on one instruction set. Two
// loops use it.
//
// direct, for few rows of activations: weights are decoded in registers and multiplied at once (bound by
// memory).
//
// panel, for more rows: 16 KiB of weights are decoded into L1, then each block of rows runs through it (bound
// by the dot rate); the inner loop no longer knows the format.
#pragma once

#include "../decode_records.hpp"
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/decoders.hpp>
#include <nibble/kernels/packed.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace nib::inline v0::cpu {

inline constexpr std::size_t kPanelBytes = 16 * 1024;
// In bytes, where decoding is the work: between 4 and 32 KiB it makes no difference.
inline constexpr std::size_t kPrefetchAhead = 8192;

// What a chain may leave in memory: a sum of zero is positive (canonical.hpp).
template <class A>
void store_sum(float* out, typename A::F sum) {
  A::store(out, A::add(sum, A::set(0.0f)));
}

// Asks for the weights of a group of strips before they are read, in the order of memory whatever the order
// of reading: the hardware follows such a stream beyond what it was asked for, and no other. Into the first
// level where decoding is the work; where reading is, into the second.
template <bool kSecondLevel = false>
class Ahead {
 public:
  // `strips` of the group's strips are read.
  template <class D>
  [[gnu::always_inline]] Ahead(const Tiles<D>& tiles, int strips, std::size_t distance = kPrefetchAhead)
      : octet_(tiles.stride() / static_cast<std::size_t>(kTileK / kOctet * strips)),
        next_(tiles.at(0, 0).codes + distance),
        due_(next_) {}
  // As much as goes by while `octets` octets are read.
  [[gnu::always_inline]] void ask(int octets) {
    due_ += octet_ * static_cast<std::size_t>(octets);
    for (; next_ < due_; next_ += 64) __builtin_prefetch(next_, 0, kSecondLevel ? 2 : 3);
  }

 private:
  std::size_t octet_;
  const std::byte *next_, *due_;
};

// Where reading is the work, loads run far ahead of what waits for them, in the order of memory, and the
// hardware follows that best when little is asked of it: lines that are soon due, into the second level only,
// a few at a time. (Weights of bf16 at one row, two cores of a Zen 4 whose memory reads at 62 GB/s: 61 so, 41
// with the strips of an octet one after the other and asked for as above, 51 in order and asked for so.)
inline constexpr int kLinesAhead = 16;  // of each strip
template <class D>
[[gnu::always_inline]] inline void ask_for_line(const Tile* tile, int strips, int octet, int step) {
  constexpr int kLines = static_cast<int>(code_plane_bytes(tile_info(D::kFormat), kOctet) / 64);
  constexpr int kStepsOfLine = D::kSteps / kLines;
  if (step % kStepsOfLine != 0) return;
#pragma GCC unroll 4
  for (int s = 0; s < strips; ++s)
    __builtin_prefetch(tile[s].line(tile[s].codes, octet * kLines + step / kStepsOfLine + kLinesAhead), 0, 2);
}

// ---- direct: few rows

inline constexpr int kDirectRows = 4;  // of any decoder
// Of D, where A has registers for more: of pairs, and of what is only read. (A panel for so few rows is
// written and read again for nothing. Eight rows of a Zen 4's core, from cache: bf16 142 -> 231 GFLOP/s,
// MXFP4 136 -> 206.)
template <class D>
inline constexpr int kMostDirectRows = D::kStripsOfRows &&
                                               (D::kLayout == ActivationLayout::pairs || !D::kDecodes)
                                           ? D::Arch::kDirectRows
                                           : kDirectRows;

// The same octet of T tiles.
template <class D, int T>
struct Octets {
  template <std::size_t... S>
  [[gnu::always_inline]] Octets(const Tile* tile, int o, std::index_sequence<S...>)
      : of{D::open(tile[S], o)...} {}
  decltype(D::open(Tile(), 0)) of[T];
};

// A strip's sums, in units of `unit` so far, in units of `next`.
template <class D, int W>
[[gnu::always_inline]] inline void count_in_units_of(const std::byte* next, const std::byte*& unit,
                                                     typename D::Arch::F (&sums)[W]) {
  const auto ratio = D::Arch::e8m0_ratio(unit, next);
#pragma GCC unroll 12
  for (auto& sum : sums) sum = D::Arch::mul(sum, ratio);
  unit = next;
}

// One tile of each of T strips from `first` on, W rows, octet after octet, step by step in turn. units: the
// scales that sums are counted in, of decoders that rescale.
template <class D, int T, int W>
[[gnu::always_inline]] inline void direct_tiles(const Tiles<D>& tiles, int first, std::int64_t t,
                                                const typename D::X* x, typename D::Arch::F (*sums)[W],
                                                const std::byte** units, Ahead<>& ahead) {
  using A = typename D::Arch;
  typename A::F acc[T][W];
  Tile tile[T];
#pragma GCC unroll 4
  for (int s = 0; s < T; ++s) {
    tile[s] = tiles.at(first + s, t);
#pragma GCC unroll 12
    for (int r = 0; r < W; ++r) acc[s][r] = sums[s][r];
  }
  const int octets = tiles.octets(t);
  for (int o = 0; o < octets;) {
    int end = octets;
    if constexpr (D::kRescales) {
      end = std::min(o + D::kScaleOctets, octets);
#pragma GCC unroll 4
      for (int s = 0; s < T; ++s) count_in_units_of<D>(D::scales(tile[s], o), units[s], acc[s]);
    }
    for (; o < end; ++o, x += D::kSteps * W) {
      if constexpr (D::kDecodes) ahead.ask(T);
      const Octets<D, T> octet(tile, o, std::make_index_sequence<T>());
#pragma GCC unroll 8
      for (int j = 0; j < D::kSteps; ++j) {
        if constexpr (!D::kDecodes) ask_for_line<D>(tile, T, o, j);
#pragma GCC unroll 4
        for (int s = 0; s < T; ++s) {
          const auto w = octet.of[s].step(j);
#pragma GCC unroll 12
          for (int r = 0; r < W; ++r) acc[s][r] = D::mac(acc[s][r], w, x[j * W + r]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < T; ++s)
#pragma GCC unroll 12
    for (int r = 0; r < W; ++r) sums[s][r] = acc[s][r];
}

// How many strips go together.
template <class D>
constexpr int strips_together(int rows) {
  using A = typename D::Arch;
  if (rows > kDirectRows)  // as many sums as a block of a panel has, of two strips or of all four
    return 2 * A::kBlockRows / rows >= kGroupStrips ? kGroupStrips : 2;
  const int most = rows > 1 && !D::kStripsOfRows ? 1 : std::clamp(A::kDirectStrips / rows, 1, 4);
  return D::kDecodes ? std::clamp(A::kChains / rows, 1, most) : most;
}

// The strips of a call, W rows. Reads each tile once, from its beginning to its end.
//
// Where reading is the work, all strips go together, step by step. Where decoding is, a sum that waits for
// its last addition holds up what could be decoded: some strips are added to in turn, as many as the
// registers hold with their codes.
template <class D, int W>
void direct(const MatmulCall& call) {
  using A = typename D::Arch;
  constexpr int kTogether = strips_together<D>(W);
  const auto strips = static_cast<int>(call.strip_end - call.strip_begin);
  typename A::F sums[kGroupStrips][W];
  for (auto& row : sums)
    for (auto& sum : row) sum = A::set(0.0f);
  const Tiles<D> tiles(*call.weight, call.strip_begin);
  Ahead<> ahead(tiles, strips);
  const std::byte* units[kGroupStrips] = {};
  if constexpr (D::kRescales)
    for (int s = 0; s < strips; ++s) units[s] = D::scales(tiles.at(s, 0), 0);
  const auto* x = static_cast<const typename D::X*>(call.x);
  for (std::int64_t t = 0; t < tiles.count(); ++t, x += kTileK / kOctet * D::kSteps * W) {
    int s = 0;
    for (; s + kTogether <= strips; s += kTogether)
      direct_tiles<D, kTogether, W>(tiles, s, t, x, sums + s, units + s, ahead);
    if constexpr (kTogether > 1)
      for (; s < strips; ++s) direct_tiles<D, 1, W>(tiles, s, t, x, sums + s, units + s, ahead);
  }
  if constexpr (D::kRescales)
    for (int s = 0; s < strips; ++s)
      for (auto& sum : sums[s]) sum = A::mul(sum, D::unit(units[s]));
  for (int s = 0; s < strips; ++s)
    for (int r = 0; r < W; ++r) store_sum<A>(call.out + r * call.out_stride + s * kStripRows, sums[s][r]);
}

template <class D>
void direct_any(const MatmulCall& call) {
  static constexpr auto kRun = []<int... W>(std::integer_sequence<int, W...>) {
    return std::array{direct<D, W + 1>...};
  }
  (std::make_integer_sequence<int, kMostDirectRows<D>>());
  kRun[static_cast<std::size_t>(call.rows - 1)](call);
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

// Tiles [begin, end) of S strips, decoded: [octets][steps][S].
template <class D, int S, class Ahead>
void decode_panel(const Tiles<D>& tiles, std::int64_t begin, std::int64_t end, typename D::W* panel,
                  Ahead& ahead) {
  for (std::int64_t t = begin; t < end; ++t) {
    const int octets = tiles.octets(t);
    for (int s = 0; s < S; ++s) {
      const Tile tile = tiles.at(s, t);
      for (int o = 0; o < octets; ++o) {
        if constexpr (D::kDecodes) ahead.ask(1);
        const auto octet = D::open(tile, o);
#pragma GCC unroll 8
        for (int j = 0; j < D::kSteps; ++j) panel[(o * D::kSteps + j) * S + s] = octet.step(j);
      }
    }
    panel += octets * D::kSteps * S;
  }
}

template <class D, class Steps, int S>
void panel_strips(const MatmulCall& call, std::int64_t strip, float* out) {
  static constexpr int kBlock = D::Arch::kBlockRows;
  static constexpr auto kMicro = micro_table<Steps, S>(std::make_integer_sequence<int, kBlock>());
  constexpr std::int64_t kPanelTiles =
      kPanelBytes / sizeof(typename D::W) / (S * D::kSteps) / (kTileK / kOctet);
  static_assert(kPanelTiles > 0);
  alignas(64) typename D::W panel[kPanelTiles * kTileK / kOctet * D::kSteps * S];

  const PackedWeight& weight = *call.weight;
  const Tiles<D> tiles(weight, strip);
  const std::int64_t row_steps = weight.k_padded() / kOctet * D::kSteps;
  const RowBlocks blocks(call.rows, kBlock);
  // Weights that are only read fill a panel with as many bytes as it has: the next one's come meanwhile.
  constexpr bool kWhole = !D::kDecodes;
  const std::size_t panel_bytes = static_cast<std::size_t>(kPanelTiles) * tiles.stride();
  Ahead<kWhole> ahead(tiles, S, kWhole ? panel_bytes : kPrefetchAhead);
  for (std::int64_t begin = 0; begin < tiles.count(); begin += kPanelTiles) {
    const std::int64_t end = std::min(begin + kPanelTiles, tiles.count());
    decode_panel<D, S>(tiles, begin, end, panel, ahead);
    const std::int64_t first = begin * kTileK / kOctet * D::kSteps;
    const auto steps = static_cast<int>(std::min(end * kTileK / kOctet * D::kSteps, row_steps) - first);
    for (int b = 0; b < blocks.count(); ++b) {
      const Range rows = blocks[b];
      constexpr int kPanelOctets = static_cast<int>(kPanelTiles * kTileK / kOctet) * S;
      if constexpr (kWhole)
        ahead.ask(kPanelOctets * (b + 1) / blocks.count() - kPanelOctets * b / blocks.count());
      const auto* x =
          static_cast<const typename D::X*>(call.x) + rows.begin * row_steps + first * rows.size();
      kMicro[static_cast<std::size_t>(rows.size() - 1)](panel, steps, x, out + rows.begin * call.out_stride,
                                                        call.out_stride, begin == 0);
    }
  }
}

template <class D, class Steps>
void matmul(const MatmulCall& call) {
  static_assert(D::Arch::kBlockRows >= kMostDirectRows<D>, "the rows of a direct product are one block");
  if constexpr (D::Arch::kDirectStrips > 0) {
    if (call.rows <= kMostDirectRows<D>) return direct_any<D>(call);
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
  const RowBlocks blocks(call.rows, kBlock);
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end; ++strip) {
    float* out = call.out + (strip - call.strip_begin) * kStripRows;
    for (std::int64_t begin = 0; begin < weight.k; begin += kRecordPanel) {
      const std::int64_t count = std::min(kRecordPanel, weight.k - begin);
      const int steps = static_cast<int>(round_up(count, kOctet));
      decode_records(weight, strip, begin, count, values);
      for (int i = 0; i < steps; ++i) panel[i] = A::load(values + i * kStripRows);
      for (int b = 0; b < blocks.count(); ++b) {
        const Range rows = blocks[b];
        const float* x = static_cast<const float*>(call.x) + rows.begin * row_steps + begin * rows.size();
        kMicro[static_cast<std::size_t>(rows.size() - 1)](panel, steps, x, out + rows.begin * call.out_stride,
                                                          call.out_stride, begin == 0);
      }
    }
  }
}

template <class A>
constexpr MatmulKernel record_kernel() {
  return {Format::none, ActivationLayout::floats, A::kBlockRows, ScaleRange::any, multiply_records<A>};
}

// Few rows where D holds; all others otherwise.
template <class D>
void matmul_rescaled(const MatmulCall& call) {
  if (call.rows <= kMostDirectRows<D> && D::holds(call)) return direct_any<D>(call);
  matmul<typename D::Otherwise, typename D::Steps>(call);
}

template <class D>
constexpr MatmulKernel kernel() {
  constexpr auto shape = [](auto run) {
    return MatmulKernel{D::kFormat, D::kLayout, D::Arch::kBlockRows, D::kScales, run};
  };
  if constexpr (D::kRescales)
    return shape(matmul_rescaled<D>);
  else
    return shape(matmul<D, typename D::Steps>);
}

}  // namespace nib::inline v0::cpu
