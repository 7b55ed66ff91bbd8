// The matrix product of int8 numerics: weights that are whole numbers times scales meet inputs that are, too.
// The order is that of chain_int8 (canonical.hpp): exact sums of 32 or 16 products, one chain over them.
//
// Inputs are bytes without a sign, q + 128, because that is what the instructions multiply signed bytes with.
// What is too much by that, 128 times the sum of a group's weights, is the same for all rows of activations:
// with few rows (direct) it is summed up beside them, with many (panel) sums begin with it.
#pragma once

#include "matmul.hpp"
#include <nibble/kernels/backend.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace nib::inline v0::cpu {

inline constexpr int kGroupOctets = static_cast<int>(kInt8Group / kOctet);
inline constexpr int kGroupSteps = 2 * kGroupOctets;  // of four inputs each
inline constexpr std::uint32_t kFourOffsets = 0x8080'8080u;

// A format whose codes are whole numbers: in bytes that are kWide (simd_avx2.hpp) or not, with a scale for
// each kRun inputs.
template <class A, Format Id, class Codes, template <class, class> class Scale, bool kWide, int kRun = 32>
struct Int8Format {
  using Arch = A;
  using Sums = std::conditional_t<kWide, typename A::WideSums, typename A::NarrowSums>;
  using Steps = Scale<A, Whole<Codes>>;
  static constexpr Format kFormat = Id;
  static constexpr int kRuns = static_cast<int>(kInt8Group) / kRun;  // in a group
  static constexpr int kRunOctets = kGroupOctets / kRuns;
  static constexpr bool kMinima = requires(Steps steps) { steps.minimum; };
  static constexpr bool kDecodes = code_plane_bytes(tile_info(Id), kOctet) < 2 * 64;  // more than one load does
  static Steps steps(const Tile& tile, int octet) { return Steps::open(tile, octet); }
  struct Octet {
    typename Sums::Codes even, odd;
  };
  static Octet open(const Tile& tile, int octet) {
    const auto codes = Codes::template open<A>(tile, octet);
    return {Sums::codes(codes.bytes.even), Sums::codes(codes.bytes.odd)};
  }
};

// 128 times the sum of codes. Where the codes of a run add up in their bytes, that is one product; where the
// processor multiplies inputs with a sign, there is nothing too much.
template <class Sums>
class Offset {
 public:
  [[gnu::always_inline]] void add(const typename Sums::Codes& codes) {
    if constexpr (!kCounts)
      static_cast<void>(codes);
    else if constexpr (Sums::kCodesAddUp)
      codes_ = Sums::plus(codes_, codes);
    else
      total_.add(kFourOffsets, codes);
  }
  [[gnu::always_inline]] Sums sums() const {
    Sums sums = total_;
    if constexpr (Sums::kCodesAddUp) sums.add(kFourOffsets, codes_);
    return sums;
  }

 private:
  static constexpr bool kCounts = !requires { Sums::kSignedInputs; };
  Sums total_ = Sums::zero();
  typename Sums::Codes codes_{};
};

// One group of W rows of activations.
template <int W>
struct InputGroup {
  const std::uint32_t* at;
  [[gnu::always_inline]] std::uint32_t step(int i, int row) const { return at[i * W + row]; }
  [[gnu::always_inline]] float scale(int row) const {
    return std::bit_cast<float>(at[kGroupSteps * W + row]);
  }
  [[gnu::always_inline]] float scaled_sum(int row) const {
    return std::bit_cast<float>(at[(kGroupSteps + 1) * W + row]);
  }
};
static_assert(kGroupDwords == kGroupSteps + 2);

// What a run adds to the chains of rows [begin, end) of W.
template <class A, int W, class Sums>
[[gnu::always_inline]] inline void add_run(typename A::F (&acc)[W], const Sums (&sums)[W], typename A::F step,
                                           InputGroup<W> x, int begin = 0, int end = W) {
#pragma GCC unroll 16
  for (int r = begin; r < end; ++r)
    acc[r] = A::fma(sums[r].value(), A::mul(step, A::set(x.scale(r))), acc[r]);
}
template <class A, int W>
[[gnu::always_inline]] inline void add_minimum(typename A::F (&acc)[W], typename A::F minimum,
                                               InputGroup<W> x) {
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) acc[r] = A::fma(minimum, A::set(x.scaled_sum(r)), acc[r]);
}

// ---- direct: 1..4 rows

// One group of each of T strips, of which `octets` exist.
template <class D, int T, int W>
[[gnu::always_inline]] inline void direct_groups(typename D::Arch::F (*acc)[W], const Tile* tile, int group,
                                                 int octets, InputGroup<W> x) {
  using A = typename D::Arch;
  using Sums = typename D::Sums;
#pragma GCC unroll 2
  for (int run = 0; run < D::kRuns; ++run) {
    Sums sums[T][W];
    Offset<Sums> offset[T];
    for (auto& row : sums)
      for (Sums& sum : row) sum = Sums::zero();
    const int first = run * D::kRunOctets;
#pragma GCC unroll 4
    for (int o = first; o < first + D::kRunOctets; ++o) {
      if (o >= octets) break;
#pragma GCC unroll 4
      for (int s = 0; s < T; ++s) {
        const auto codes = D::open(tile[s], group + o);
        offset[s].add(codes.even);
        offset[s].add(codes.odd);
#pragma GCC unroll 4
        for (int r = 0; r < W; ++r) {
          sums[s][r].add(x.step(2 * o, r), codes.even);
          sums[s][r].add(x.step(2 * o + 1, r), codes.odd);
        }
      }
    }
#pragma GCC unroll 4
    for (int s = 0; s < T; ++s) {
      const Sums too_much = offset[s].sums();
      for (Sums& sum : sums[s]) sum = sum.less(too_much);
      add_run<A, W>(acc[s], sums[s], D::steps(tile[s], group + std::min(first, octets - 1)).step(), x);
    }
  }
  if constexpr (D::kMinima)
#pragma GCC unroll 4
    for (int s = 0; s < T; ++s) add_minimum<A, W>(acc[s], D::steps(tile[s], group).minimum, x);
}

// All strips of a call, W rows. Codes of a byte are read faster than they could be decoded: strips go
// together, in the order of memory, as far as the registers hold their sums.
template <class D, int W>
void direct_int8(const MatmulCall& call) {
  using A = typename D::Arch;
  constexpr int kTogether = D::kDecodes ? 1 : std::clamp(A::kDirectStrips / 4 / W, 1, 4);
  const auto strips = static_cast<int>(call.strip_end - call.strip_begin);
  typename A::F acc[kGroupStrips][W];
  for (auto& row : acc)
    for (auto& sum : row) sum = A::set(0.0f);
  const Tiles<D> tiles(*call.weight, call.strip_begin);
  Ahead<!D::kDecodes> ahead(tiles, strips);
  InputGroup<W> x{static_cast<const std::uint32_t*>(call.x)};
  for (std::int64_t t = 0; t < tiles.count(); ++t) {
    Tile tile[kGroupStrips];
    for (int s = 0; s < strips; ++s) tile[s] = tiles.at(s, t);
    const int octets = tiles.octets(t);
    for (int group = 0; group < octets; group += kGroupOctets, x.at += kGroupDwords * W) {
      int s = 0;
      for (; s + kTogether <= strips; s += kTogether) {
        ahead.ask(kTogether * kGroupOctets);
        direct_groups<D, kTogether, W>(acc + s, tile + s, group, octets - group, x);
      }
      if constexpr (kTogether > 1)
        for (; s < strips; ++s) {
          ahead.ask(kGroupOctets);
          direct_groups<D, 1, W>(acc + s, tile + s, group, octets - group, x);
        }
    }
  }
  for (int s = 0; s < strips; ++s)
    for (int r = 0; r < W; ++r) store_sum<A>(call.out + r * call.out_stride + s * kStripRows, acc[s][r]);
}

// ---- panel: many rows

// A group of S strips, decoded.
template <class A, class Sums, int kRuns, bool kMinima, int S>
struct PanelGroup {
  typename Sums::Codes codes[kGroupSteps][S];
  Sums start[kRuns][S];  // less the offset
  typename A::F steps[kRuns][S];
  typename A::F minima[kMinima ? S : 1];
};

// W rows times `groups` decoded groups; carries the sums in `out`.
template <class A, class Group, class Sums, int kRuns, bool kMinima, int S, int W>
void micro_int8(const Group* panel, int groups, const std::uint32_t* inputs, float* out, std::int64_t stride,
                bool first) {
  constexpr int kRunSteps = kGroupSteps / kRuns;
  typename A::F acc[S][W];
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) acc[s][r] = first ? A::set(0.0f) : A::load(out + r * stride + s * 16);
  InputGroup<W> x{inputs};
  for (const Group* group = panel; group < panel + groups; ++group, x.at += kGroupDwords * W) {
#pragma GCC unroll 2
    for (int run = 0; run < kRuns; ++run)
#pragma GCC unroll 4
      for (int begin = 0; begin < W; begin += Sums::kTogether) {
        const int end = std::min(begin + Sums::kTogether, W);
        Sums sums[S][W];
#pragma GCC unroll 2
        for (int s = 0; s < S; ++s)
#pragma GCC unroll 16
          for (int r = begin; r < end; ++r) sums[s][r] = group->start[run][s];
            // Steps are not unrolled: compilers would first multiply all, and have no registers for the
            // products.
#pragma GCC unroll 1
        for (int i = run * kRunSteps; i < (run + 1) * kRunSteps; ++i)
#pragma GCC unroll 16
          for (int r = begin; r < end; ++r)
#pragma GCC unroll 2
            for (int s = 0; s < S; ++s) sums[s][r].add(x.step(i, r), group->codes[i][s]);
#pragma GCC unroll 2
        for (int s = 0; s < S; ++s) add_run<A, W>(acc[s], sums[s], group->steps[run][s], x, begin, end);
      }
    if constexpr (kMinima)
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) add_minimum<A, W>(acc[s], group->minima[s], x);
  }
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) store_sum<A>(out + r * stride + s * 16, acc[s][r]);
}

// Strip `s` of a group, of which `octets` exist; the inputs of the others are zero.
template <class D, class Group>
[[gnu::always_inline]] inline void decode_group(const Tile& tile, int octet, int octets, int s,
                                                Group& group) {
  using Sums = typename D::Sums;
#pragma GCC unroll 2
  for (int run = 0; run < D::kRuns; ++run) {
    Offset<Sums> offset;
#pragma GCC unroll 4
    for (int o = run * D::kRunOctets; o < (run + 1) * D::kRunOctets; ++o) {
      const auto codes = D::open(tile, octet + std::min(o, octets - 1));
      group.codes[2 * o][s] = codes.even;
      group.codes[2 * o + 1][s] = codes.odd;
      offset.add(codes.even);
      offset.add(codes.odd);
    }
    group.start[run][s] = Sums::zero().less(offset.sums());
    const int first = octet + std::min(run * D::kRunOctets, octets - 1);
    group.steps[run][s] = D::steps(tile, first).step();
  }
  if constexpr (D::kMinima) group.minima[s] = D::steps(tile, octet).minimum;
}

template <class D, int S>
void panel_int8(const MatmulCall& call, std::int64_t strip, float* out) {
  using A = typename D::Arch;
  using Group = PanelGroup<A, typename D::Sums, D::kRuns, D::kMinima, S>;
  static constexpr auto kMicro = []<int... W>(std::integer_sequence<int, W...>) {
    return std::array{micro_int8<A, Group, typename D::Sums, D::kRuns, D::kMinima, S, W + 1>...};
  }
  (std::make_integer_sequence<int, A::kByteRows>());
  constexpr std::int64_t kTileGroups = kTileK / kInt8Group;
  constexpr std::int64_t kPanelTiles =
      std::max<std::int64_t>(1, kPanelBytes / (kTileGroups * static_cast<std::int64_t>(sizeof(Group))));
  alignas(64) Group panel[kPanelTiles * kTileGroups];

  const Tiles<D> tiles(*call.weight, strip);
  const std::int64_t row_groups = ceil_div(call.weight->k_padded(), kInt8Group);
  const RowBlocks blocks(call.rows, A::kByteRows);
  Ahead<> ahead(tiles, S);
  for (std::int64_t begin = 0; begin < tiles.count(); begin += kPanelTiles) {
    const std::int64_t end = std::min(begin + kPanelTiles, tiles.count());
    int groups = 0;
    for (std::int64_t t = begin; t < end; ++t) {
      const int octets = tiles.octets(t);
      for (int octet = 0; octet < octets; octet += kGroupOctets, ++groups)
        for (int s = 0; s < S; ++s) {
          const Tile tile = tiles.at(s, t);
          ahead.ask(kGroupOctets);
          decode_group<D>(tile, octet, octets - octet, s, panel[groups]);
        }
    }
    for (int b = 0; b < blocks.count(); ++b) {
      const Range rows = blocks[b];
      const auto* x = static_cast<const std::uint32_t*>(call.x) +
                      (rows.begin * row_groups + begin * kTileGroups * rows.size()) * kGroupDwords;
      kMicro[static_cast<std::size_t>(rows.size() - 1)](panel, groups, x, out + rows.begin * call.out_stride,
                                                        call.out_stride, begin == 0);
    }
  }
}

template <class D>
void matmul_int8(const MatmulCall& call) {
  constexpr int kStrips = D::Arch::kByteStrips;
  static_assert(D::Arch::kByteRows >= kDirectRows, "the rows of a direct product are one block");
  if constexpr (D::Arch::kDirectStrips > 0) {
    if (call.rows == 1) return direct_int8<D, 1>(call);
    if (call.rows == 2) return direct_int8<D, 2>(call);
    if (call.rows == 3) return direct_int8<D, 3>(call);
    if (call.rows == 4) return direct_int8<D, 4>(call);
  }
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end;) {
    float* out = call.out + (strip - call.strip_begin) * kStripRows;
    if (kStrips == 2 && strip + 1 < call.strip_end) {
      panel_int8<D, kStrips>(call, strip, out);
      strip += kStrips;
    } else {
      panel_int8<D, 1>(call, strip, out);
      strip += 1;
    }
  }
}

template <class D>
constexpr MatmulKernel int8_kernel() {
  return {D::kFormat, ActivationLayout::bytes, D::Arch::kByteRows, ScaleRange::any, matmul_int8<D>};
}

// The formats that are whole numbers times scales.
template <class A, template <class...> class List>
using Int8Formats = List<Int8Format<A, Format::mxfp4, E2m1Codes, PowerScale, false>,
                         Int8Format<A, Format::nvfp4, E2m1Codes, SmallScaleAndFactor, false, 16>,
                         Int8Format<A, Format::q4_0, Integers<8>, HalfScale, false>,
                         Int8Format<A, Format::q4_1, Integers<0>, HalfScaleAndMinimum, false>,
                         Int8Format<A, Format::q5_0, Integers<16, 1>, HalfScale, false>,
                         Int8Format<A, Format::q5_1, Integers<0, 1>, HalfScaleAndMinimum, true>,
                         Int8Format<A, Format::q8_0, Bytes<>, HalfScale, true>,
                         Int8Format<A, Format::q4_k, Integers<0>, SuperScaleAndMinimum, false>,
                         Int8Format<A, Format::q5_k, Integers<0, 1>, SuperScaleAndMinimum, true>,
                         Int8Format<A, Format::q6_k, Integers<32, 2>, SuperScale<16>::Of, false, 16>,
                         Int8Format<A, Format::iq4_nl, Iq4Codes, HalfScale, true>,
                         Int8Format<A, Format::iq4_xs, Iq4Codes, SuperScale<32>::Of, true>,
                         Int8Format<A, Format::int8, Bytes<>, RunScale, true>,
                         Int8Format<A, Format::llm_int8, Bytes<>, RunScaleOf127, true>,
                         Int8Format<A, Format::mxint8, Bytes<64>, PowerScale, true>>;

}  // namespace nib::inline v0::cpu
