// The matrix product by groups of 32 inputs: in each a sum of its own (or two, of 16), times a scale, and one
// chain over them.
//
// A decoder D has the format's codes as vectors of a strip, kSteps an octet: open(tile, octet).step(s); what
// sums their products with inputs, D::Sums; scale and minimum of a run of inputs, steps(tile, octet); and how
// inputs lie, D::Inputs. int8.hpp has those of whole numbers on both sides, sums.hpp those of bf16 inputs.
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
inline constexpr std::uint32_t kFourOffsets = 0x8080'8080u;  // inputs of zero in bytes (int8.hpp)

// What both kinds of decoders have of a format: a scale for each kRun inputs.
template <class A, Format Id, class Scale, int kRun>
struct Grouped {
  using Arch = A;
  using Steps = Scale;
  static constexpr Format kFormat = Id;
  static constexpr int kRuns = static_cast<int>(kInt8Group) / kRun;  // in a group
  static constexpr int kRunOctets = kGroupOctets / kRuns;
  static constexpr bool kMinima = requires(Steps steps) { steps.minimum; };
  static constexpr bool kIsBytes = code_plane_bytes(tile_info(Id), kOctet) >= 2 * 64;
  static Steps steps(const Tile& tile, int octet) { return Steps::open(tile, octet); }
};

// One group of W rows of activations: kSteps dwords a row; then its scale, if it has one; then the sum of its
// inputs.
template <class D, int W>
struct GroupInputs {
  using A = typename D::Arch;
  static constexpr int kSteps = kGroupOctets * D::kSteps, kDwords = group_dwords(D::kLayout);
  static constexpr bool kScaled = kDwords == kSteps + 2;
  const std::uint32_t* at;
  [[gnu::always_inline]] std::uint32_t step(int i, int row) const { return at[i * W + row]; }
  [[gnu::always_inline]] typename A::F times_scale(typename A::F step, int row) const {
    return kScaled ? A::mul(step, A::set(std::bit_cast<float>(at[kSteps * W + row]))) : step;
  }
  [[gnu::always_inline]] typename A::F sum(int row) const {
    return A::set(std::bit_cast<float>(at[(kDwords - 1) * W + row]));
  }
  [[gnu::always_inline]] void advance() { at += kDwords * W; }
};

// body(octet) for each; of few steps, all at once.
template <class D, class Body>
[[gnu::always_inline]] inline void for_octets(int begin, Body&& body) {
  if constexpr (D::kSteps < 8) {
#pragma GCC unroll 4
    for (int o = begin; o < begin + D::kRunOctets; ++o) body(o);
  } else {
#pragma GCC unroll 1
    for (int o = begin; o < begin + D::kRunOctets; ++o) body(o);
  }
}

// What a run adds to the chains of rows [begin, end) of W.
template <class D, int W>
[[gnu::always_inline]] inline void add_run(typename D::Arch::F (&acc)[W], const typename D::Sums (&sums)[W],
                                           typename D::Arch::F step, GroupInputs<D, W> x, int begin = 0,
                                           int end = W) {
#pragma GCC unroll 16
  for (int r = begin; r < end; ++r) acc[r] = D::Arch::fma(sums[r].value(), x.times_scale(step, r), acc[r]);
}
template <class D, int W>
[[gnu::always_inline]] inline void add_minimum(typename D::Arch::F (&acc)[W], typename D::Arch::F minimum,
                                               GroupInputs<D, W> x) {
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r) acc[r] = D::Arch::fma(minimum, x.sum(r), acc[r]);
}

// What sums are too much by (int8.hpp), unless inputs have their signs.
template <class Sums>
class Offset {
 public:
  static constexpr bool kCounts = !requires { Sums::kSignedInputs; };
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
  Sums total_ = Sums::zero();
  typename Sums::Codes codes_{};
};

// ---- direct: 1..4 rows

// One group of each of T strips, of which `octets` exist.
template <class D, int T, int W>
[[gnu::always_inline]] inline void direct_groups(typename D::Arch::F (*acc)[W], const Tile* tile, int group,
                                                 int octets, GroupInputs<D, W> x) {
  using Sums = typename D::Sums;
#pragma GCC unroll 2
  for (int run = 0; run < D::kRuns; ++run) {
    Sums sums[T][W];
    Offset<Sums> offset[T];
    for (auto& row : sums)
      for (Sums& sum : row) sum = Sums::zero();
    const int first = run * D::kRunOctets;
    for_octets<D>(
        first, [&](int o) __attribute__((always_inline)) {
          if (o >= octets) return;
#pragma GCC unroll 4
          for (int s = 0; s < T; ++s) {
            const auto octet = D::open(tile[s], group + o);
#pragma GCC unroll 8
            for (int j = 0; j < D::kSteps; ++j) {
              const auto codes = octet.step(j);
              offset[s].add(codes);
#pragma GCC unroll 4
              for (int r = 0; r < W; ++r) sums[s][r].add(x.step(D::kSteps * o + j, r), codes);
            }
          }
        });
#pragma GCC unroll 4
    for (int s = 0; s < T; ++s) {
      if constexpr (Offset<Sums>::kCounts) {
        const Sums too_much = offset[s].sums();
        for (Sums& sum : sums[s]) sum = sum.less(too_much);
      }
      add_run<D, W>(acc[s], sums[s], D::steps(tile[s], group + std::min(first, octets - 1)).step(), x);
    }
  }
  if constexpr (D::kMinima)
#pragma GCC unroll 4
    for (int s = 0; s < T; ++s) add_minimum<D, W>(acc[s], D::steps(tile[s], group).minimum, x);
}

// All strips of a call, W rows. Where reading is the work, strips go together, in the order of memory, as far
// as the registers hold their sums.
template <class D, int W>
void direct_by_groups(const MatmulCall& call) {
  using A = typename D::Arch;
  constexpr int kTogether = D::kDecodes ? 1 : std::clamp(A::kDirectStrips / 4 / W, 1, 4);
  const auto strips = static_cast<int>(call.strip_end - call.strip_begin);
  typename A::F acc[kGroupStrips][W];
  for (auto& row : acc)
    for (auto& sum : row) sum = A::set(0.0f);
  const Tiles<D> tiles(*call.weight, call.strip_begin);
  Ahead<!D::kDecodes> ahead(tiles, strips);
  GroupInputs<D, W> x{static_cast<const std::uint32_t*>(call.x)};
  for (std::int64_t t = 0; t < tiles.count(); ++t) {
    Tile tile[kGroupStrips];
    for (int s = 0; s < strips; ++s) tile[s] = tiles.at(s, t);
    const int octets = tiles.octets(t);
    for (int group = 0; group < octets; group += kGroupOctets, x.advance()) {
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
template <class D, int S>
struct PanelGroup {
  typename D::Sums::Codes codes[kGroupOctets * D::kSteps][S];
  typename D::Sums start[D::kRuns][S];  // less the offset
  typename D::Arch::F steps[D::kRuns][S];
  typename D::Arch::F minima[D::kMinima ? S : 1];
};

// W rows times `groups` decoded groups; carries the sums in `out`. D is one decoder for all whose panels are
// alike.
template <class D, int S, int W>
void micro_groups(const PanelGroup<D, S>* panel, int groups, const std::uint32_t* inputs, float* out,
                  std::int64_t stride, bool first) {
  using A = typename D::Arch;
  using Sums = typename D::Sums;
  constexpr int kRunSteps = kGroupOctets * D::kSteps / D::kRuns;
  typename A::F acc[S][W];
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) acc[s][r] = first ? A::set(0.0f) : A::load(out + r * stride + s * 16);
  GroupInputs<D, W> x{inputs};
  for (const PanelGroup<D, S>* group = panel; group < panel + groups; ++group, x.advance()) {
#pragma GCC unroll 2
    for (int run = 0; run < D::kRuns; ++run)
#pragma GCC unroll 4
      for (int begin = 0; begin < W; begin += Sums::kTogether) {
        const int end = std::min(begin + Sums::kTogether, W);
        Sums sums[S][W];
#pragma GCC unroll 2
        for (int s = 0; s < S; ++s)
#pragma GCC unroll 16
          for (int r = begin; r < end; ++r)
            sums[s][r] = Offset<Sums>::kCounts ? group->start[run][s] : Sums::zero();
            // Steps are not unrolled: compilers would first multiply all, and have no registers for the
            // products.
#pragma GCC unroll 1
        for (int i = run * kRunSteps; i < (run + 1) * kRunSteps; ++i)
#pragma GCC unroll 16
          for (int r = begin; r < end; ++r)
#pragma GCC unroll 2
            for (int s = 0; s < S; ++s) sums[s][r].add(x.step(i, r), group->codes[i][s]);
#pragma GCC unroll 2
        for (int s = 0; s < S; ++s) add_run<D, W>(acc[s], sums[s], group->steps[run][s], x, begin, end);
      }
    if constexpr (D::kMinima)
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) add_minimum<D, W>(acc[s], group->minima[s], x);
  }
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) store_sum<A>(out + r * stride + s * 16, acc[s][r]);
}

// Strip `s` of a group, of which `octets` exist; the others are zeros.
template <class D, class Group>
[[gnu::always_inline]] inline void decode_group(const Tile& tile, int octet, int octets, int s,
                                                Group& group) {
  using Sums = typename D::Sums;
#pragma GCC unroll 2
  for (int run = 0; run < D::kRuns; ++run) {
    Offset<Sums> offset;
    for_octets<D>(
        run * D::kRunOctets, [&](int o) __attribute__((always_inline)) {
          const auto opened = D::open(tile, octet + std::min(o, octets - 1));
#pragma GCC unroll 8
          for (int j = 0; j < D::kSteps; ++j) {
            typename Sums::Codes codes{};
            if (o < octets) codes = opened.step(j);
            group.codes[D::kSteps * o + j][s] = codes;
            offset.add(codes);
          }
        });
    if constexpr (Offset<Sums>::kCounts) group.start[run][s] = Sums::zero().less(offset.sums());
    const int first = octet + std::min(run * D::kRunOctets, octets - 1);
    group.steps[run][s] = D::steps(tile, first).step();
  }
  if constexpr (D::kMinima) group.minima[s] = D::steps(tile, octet).minimum;
}

template <class D, int S>
void panel_groups(const MatmulCall& call, std::int64_t strip, float* out) {
  using Alike = typename D::Alike;
  using Group = PanelGroup<Alike, S>;
  static constexpr auto kMicro = []<int... W>(std::integer_sequence<int, W...>) {
    return std::array{micro_groups<Alike, S, W + 1>...};
  }
  (std::make_integer_sequence<int, D::kRows>());
  constexpr std::int64_t kTileGroups = kTileK / kInt8Group;
  constexpr std::int64_t kPanelTiles =
      std::max<std::int64_t>(1, kPanelBytes / (kTileGroups * static_cast<std::int64_t>(sizeof(Group))));
  alignas(64) Group panel[kPanelTiles * kTileGroups];

  const Tiles<D> tiles(*call.weight, strip);
  const std::int64_t row_groups = ceil_div(call.weight->k_padded(), kInt8Group);
  const RowBlocks blocks(call.rows, D::kRows);
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
      const auto* x =
          static_cast<const std::uint32_t*>(call.x) +
          (rows.begin * row_groups + begin * kTileGroups * rows.size()) * group_dwords(D::kLayout);
      kMicro[static_cast<std::size_t>(rows.size() - 1)](panel, groups, x, out + rows.begin * call.out_stride,
                                                        call.out_stride, begin == 0);
    }
  }
}

template <class D>
void matmul_groups(const MatmulCall& call) {
  static_assert(D::kRows >= kDirectRows, "the rows of a direct product are one block");
  if constexpr (D::Arch::kDirectStrips > 0) {
    if (call.rows == 1) return direct_by_groups<D, 1>(call);
    if (call.rows == 2) return direct_by_groups<D, 2>(call);
    if (call.rows == 3) return direct_by_groups<D, 3>(call);
    if (call.rows == 4) return direct_by_groups<D, 4>(call);
  }
  for (std::int64_t strip = call.strip_begin; strip < call.strip_end;) {
    float* out = call.out + (strip - call.strip_begin) * kStripRows;
    if (D::kStrips == 2 && strip + 1 < call.strip_end) {
      panel_groups<D, D::kStrips>(call, strip, out);
      strip += D::kStrips;
    } else {
      panel_groups<D, 1>(call, strip, out);
      strip += 1;
    }
  }
}

template <class D>
constexpr MatmulKernel group_kernel() {
  return {D::kFormat, D::kLayout, D::kRows, ScaleRange::any, matmul_groups<D>};
}

}  // namespace nib::inline v0::cpu
