// The decoders of int8 numerics: weights that are whole numbers times scales meet inputs that are, too. The
// order is that of chain_int8 (canonical.hpp): exact sums of 32 or 16 products, one chain over them.
//
// Inputs are bytes without a sign, q + 128, because that is what the instructions multiply signed bytes with.
// What is too much by that, 128 times the sum of a group's weights, is the same for all rows of activations:
// with few rows (direct) it is summed up beside them, with many (panel) sums begin with it.
#pragma once

#include "groups.hpp"

#include <type_traits>

namespace nib::inline v0::cpu {

// One for all whose panels are alike.
template <class A, class SumsType, int kRun, bool kHasMinima>
struct BytePanels : Grouped<A, Format::none, void, kRun> {
  using Sums = SumsType;
  static constexpr ActivationLayout kLayout = ActivationLayout::bytes;
  static constexpr int kSteps = 2;  // of four inputs each
  static constexpr bool kMinima = kHasMinima;
};

// A format whose codes are whole numbers: in bytes that are kWide (simd_avx2.hpp) or not.
template <class A, Format Id, class Codes, template <class, class> class Scale, bool kWide, int kRun = 32>
struct Int8Format : Grouped<A, Id, Scale<A, Whole<Codes>>, kRun> {
  using Sums = std::conditional_t<kWide, typename A::WideSums, typename A::NarrowSums>;
  using Alike = BytePanels<A, Sums, kRun, Int8Format::kMinima>;
  static constexpr ActivationLayout kLayout = ActivationLayout::bytes;
  static constexpr int kSteps = 2, kRows = A::kByteRows, kStrips = A::kByteStrips;
  static constexpr bool kDecodes = !Int8Format::kIsBytes;
  struct Octet {
    typename Sums::Codes even, odd;
    [[gnu::always_inline]] const typename Sums::Codes& step(int s) const { return s == 0 ? even : odd; }
  };
  static Octet open(const Tile& tile, int octet) {
    const auto codes = Codes::template open<A>(tile, octet);
    return {Sums::codes(codes.bytes.even), Sums::codes(codes.bytes.odd)};
  }
};

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
