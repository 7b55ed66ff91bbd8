// The decoders of bf16 numerics for codes times scales, but of MXFP4: inputs meet the codes, which bf16 holds
// (those of NF4 and bitsandbytes' FP4, which it does not, as f32), and the scale multiplies the sum of a run.
// The order is that of chain_sums (canonical.hpp): in each run the pair dots of its own sum, one chain over
// them. MXFP8 could be folded as MXFP4 is, but for scales of both ends, and NaNs: this has no such cases.
//
// A whole number counts 2^24 here, which is what the top byte of a dword becomes without being shifted down.
#pragma once

#include "groups.hpp"
#include <nibble/formats/small_floats.hpp>

#include <array>
#include <bit>
#include <cstdint>

namespace nib::inline v0::cpu {

// Sums of products of floats, one input at a time.
template <class A>
struct FloatSums {
  static constexpr bool kSignedInputs = true;
  static constexpr int kTogether = A::kGroupRows;
  static constexpr ActivationLayout kLayout = ActivationLayout::group_floats;
  static constexpr int kSteps = 8;  // of an octet
  using Codes = typename A::F;
  typename A::F sum;
  static FloatSums zero() { return {A::set(0.0f)}; }
  void add(std::uint32_t x, const Codes& w) { sum = A::fma(w, A::set(std::bit_cast<float>(x)), sum); }
  typename A::F value() const { return sum; }
};

// And of pairs of bf16.
template <class A>
struct PairSums {
  static constexpr bool kSignedInputs = true;
  static constexpr int kTogether = A::kGroupRows;
  static constexpr ActivationLayout kLayout = ActivationLayout::group_pairs;
  static constexpr int kSteps = 4;
  using Codes = typename A::P;
  typename A::F sum;
  static PairSums zero() { return {A::set(0.0f)}; }
  void add(std::uint32_t x, const Codes& w) { sum = A::dot(sum, w, x); }
  typename A::F value() const { return sum; }
};

// Codes as vectors of floats, in the order of the chain.
template <class A, class Codes>
struct Levels {
  using Sums = FloatSums<A>;
  struct Octet {
    typename Codes::template Octet<A> codes;
    [[gnu::always_inline]] typename A::F step(int s) const { return codes.level(s); }
  };
  static Octet open(const Tile& tile, int octet) { return {Codes::template open<A>(tile, octet)}; }
};

// Codes as vectors of pairs: of levels, or looked up where there are few of them.
template <class A, class Codes>
requires(
    A::kPairDot && !requires { Codes::kCount; } && !requires { Codes::kAnyFloats; }) struct Levels<A, Codes> {
  using Sums = PairSums<A>;
  struct Octet {
    typename Codes::template Octet<A> codes;
    [[gnu::always_inline]] typename A::P step(int s) const {
      return A::pairs(codes.level(2 * s + 1), codes.level(2 * s));
    }
  };
  static Octet open(const Tile& tile, int octet) { return {Codes::template open<A>(tile, octet)}; }
};
template <class Codes>
inline constexpr auto kWords = [] {
  std::array<std::uint16_t, Codes::kCount> words{};
  for (int code = 0; code < Codes::kCount; ++code)
    words[static_cast<std::size_t>(code)] = to_bf16(static_cast<float>(Codes::number(code)) * 0x1p24f).bits;
  return words;
}();
template <class A, class Codes>
requires(A::kPairDot&& requires { Codes::kCount; }) struct Levels<A, Codes> {
  using Sums = PairSums<A>;
  struct Octet {
    OctetBytes<A> codes;
    [[gnu::always_inline]] typename A::P step(int s) const {
      const auto bytes = s % 2 == 0 ? codes.even : codes.odd;
      return A::template words<kWords<Codes>>(s < 2 ? bytes : A::shifted_right(bytes, 8));
    }
  };
  static Octet open(const Tile& tile, int octet) { return {Codes::template stored<A>(tile, octet)}; }
};

// Codes of FP8 without their sign, as bf16.
template <bool kIsE4M3>
inline constexpr auto kFp8Words = [] {
  std::array<std::uint16_t, 128> words{};
  for (std::uint8_t code = 0; code < 128; ++code)
    words[code] = to_bf16(kIsE4M3 ? E4M3::decode(code) : E5M2::decode(code)).bits;
  return words;
}();
template <class A, bool kIsE4M3>
requires(A::kPairDot) struct Levels<A, FloatBytes<kIsE4M3>> {
  using Sums = PairSums<A>;
  struct Octet {
    typename A::P steps[4];
    [[gnu::always_inline]] typename A::P step(int s) const { return steps[s]; }
  };
  static Octet open(const Tile& tile, int octet) {
    const Lines lines(tile, octet * 2);
    Octet opened;
    for (int i = 0; i < 2; ++i) A::template signed_pairs<kFp8Words<kIsE4M3>>(lines[i], opened.steps + 2 * i);
    return opened;
  }
};

// One for all whose panels are alike.
template <class A, class SumsType, int kRun, bool kHasMinima>
struct SumPanels : Grouped<A, Format::none, void, kRun> {
  using Sums = SumsType;
  static constexpr ActivationLayout kLayout = Sums::kLayout;
  static constexpr int kSteps = Sums::kSteps;
  static constexpr bool kMinima = kHasMinima;
};

template <class A, Format Id, class Codes, template <class, class> class Scale, int kRun = 32>
struct SumFormat : Grouped<A, Id, Scale<A, Codes>, kRun>, Levels<A, Codes> {
  using Sums = typename Levels<A, Codes>::Sums;
  using Alike = SumPanels<A, Sums, kRun, SumFormat::kMinima>;
  static constexpr ActivationLayout kLayout = Sums::kLayout;
  static constexpr int kSteps = Sums::kSteps, kRows = A::kGroupRows, kStrips = A::kGroupStrips;
  static constexpr bool kDecodes = true;
};

template <class A, template <class...> class List>
using SumFormats = List<SumFormat<A, Format::nvfp4, E2m1Codes, SmallScaleAndFactor, 16>,
                        SumFormat<A, Format::q4_0, Integers<8>, HalfScale>,
                        SumFormat<A, Format::q4_1, Integers<0>, HalfScaleAndMinimum>,
                        SumFormat<A, Format::q5_0, Integers<16, 1>, HalfScale>,
                        SumFormat<A, Format::q5_1, Integers<0, 1>, HalfScaleAndMinimum>,
                        SumFormat<A, Format::q8_0, Bytes<>, HalfScale>,
                        SumFormat<A, Format::q4_k, Integers<0>, SuperScaleAndMinimum>,
                        SumFormat<A, Format::q5_k, Integers<0, 1>, SuperScaleAndMinimum>,
                        SumFormat<A, Format::q6_k, Integers<32, 2>, SuperScale<16>::Of, 16>,
                        SumFormat<A, Format::iq4_nl, Iq4Codes, HalfScale>,
                        SumFormat<A, Format::iq4_xs, Iq4Codes, SuperScale<32>::Of>,
                        SumFormat<A, Format::int8, Bytes<>, RunScale>,
                        SumFormat<A, Format::llm_int8, Bytes<>, RunScaleOf127>,
                        SumFormat<A, Format::fp8_e4m3, FloatBytes<true>, RunScale>,
                        SumFormat<A, Format::fp8_e5m2, FloatBytes<false>, RunScale>,
                        SumFormat<A, Format::mxfp8_e4m3, FloatBytes<true>, PowerScale>,
                        SumFormat<A, Format::mxfp8_e5m2, FloatBytes<false>, PowerScale>,
                        SumFormat<A, Format::mxint8, Bytes<64>, PowerScale>,
                        SumFormat<A, Format::nf4, FloatTable<Nf4Levels::levels>, RunScale>,
                        SumFormat<A, Format::bnb_fp4, FloatTable<BnbFp4Levels::levels>, RunScale>>;

}  // namespace nib::inline v0::cpu
