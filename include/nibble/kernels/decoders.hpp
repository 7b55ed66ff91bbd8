// Room kernels: how one format meets the activations on one instruction set A, whose verbs are those of the
// scalar one (src/kernels/bodies/simd_scalar.hpp).
//
// A decoder has kFormat, the vectors of weights an octet (kSteps), the element X of the activations that each
// meets, and the multiply-add; open(tile, octet).step(s) is a vector of weights. Those of plain formats and
// of MXFP4 are written out; all others are Scaled: codes that are levels, times scales. All is constexpr,
// which is what the compiler of a device may call, too: an instruction set can be one row of a thread of it.
#pragma once

#include <nibble/formats/code_books.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/packed.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace nib::inline v0::cpu {

// One tile and what its strip has once. A pointer is to the first line of what it names, the next ones are
// `stride` bytes further each: between them lie lines of the other strips of the group.
struct Tile {
  const std::byte *codes, *high, *scales, *header;  // high: bits above the low four of codes
  std::size_t stride;
  int run_octets;  // octets that share a scale; of formats whose tensors say it

  [[gnu::always_inline]] constexpr const std::byte* line(const std::byte* first, int index) const {
    return first + static_cast<std::size_t>(index) * stride;
  }
  // Byte `offset` of the scales; what is read there lies in one line.
  [[gnu::always_inline]] constexpr const std::byte* scale(int offset) const {
    return line(scales, offset / 64) + offset % 64;
  }
};
// The tiles of the strips from `strip` on, in one group; where they lie is worked out once.
template <class D>
class Tiles {
 public:
  [[gnu::always_inline]] constexpr Tiles(const PackedWeight& weight, std::int64_t strip) {
    PackedWeight shape = weight;
    shape.format = D::kFormat;  // which it is: now the compiler knows
    const auto first = static_cast<std::size_t>(strip % kGroupStrips);
    const std::byte* group = weight.data + static_cast<std::size_t>(strip) / kGroupStrips * kGroupStrips *
                                               shape.tiled_strip_bytes();
    const auto in_group = static_cast<std::size_t>(shape.strips_in_group(strip));
    full_tiles_ = shape.full_tiles();
    tail_k_ = shape.tail_k();
    run_octets_ = static_cast<int>(shape.run() / kOctet);
    bytes_ = tile_bytes(D::kFormat, kTileK, shape.run());
    stride_ = in_group * bytes_;
    line_stride_ = in_group * 64;
    headers_ = group + first * shape.header_bytes();
    tiles_ = group + in_group * shape.header_bytes() + first * 64;
  }
  [[gnu::always_inline]] constexpr std::int64_t count() const { return full_tiles_ + (tail_k_ ? 1 : 0); }
  [[gnu::always_inline]] constexpr int octets(std::int64_t tile) const {
    return static_cast<int>(tile < full_tiles_ ? kTileK / kOctet : ceil_div(tail_k_, kOctet));
  }
  // Bytes from a tile to the next of its strip.
  [[gnu::always_inline]] constexpr std::size_t stride() const { return stride_; }
  [[gnu::always_inline]] constexpr Tile at(int strip, std::int64_t tile) const {
    const std::byte* codes =
        tiles_ + static_cast<std::size_t>(tile) * stride_ + static_cast<std::size_t>(strip) * 64;
    const std::size_t plane = code_plane_bytes(tile_info(D::kFormat), tile < full_tiles_ ? kTileK : tail_k_);
    return {codes,
            codes + static_cast<std::size_t>(octets(tile)) * line_stride_,
            codes + plane / 64 * line_stride_,
            headers_ + static_cast<std::size_t>(strip) * 64,
            line_stride_,
            run_octets_};
  }

 private:
  const std::byte *headers_, *tiles_;
  std::size_t bytes_, stride_, line_stride_;
  std::int64_t full_tiles_, tail_k_;
  int run_octets_;
};

// Lines of codes of one tile, from `first` on.
class Lines {
 public:
  [[gnu::always_inline]] constexpr Lines(const Tile& tile, int first)
      : first_(tile.line(tile.codes, first)), stride_(tile.stride) {}
  [[gnu::always_inline]] constexpr const std::byte* operator[](int index) const {
    return first_ + static_cast<std::size_t>(index) * stride_;
  }

 private:
  const std::byte* first_;
  std::size_t stride_;
};

// ---- steps

// Weights as f32, one step for each k.
template <class A>
struct FloatSteps {
  using Arch = A;
  using Steps = FloatSteps;  // all that the loop over a panel of decoded weights need know
  using W = typename A::F;
  using X = float;
  static constexpr ActivationLayout kLayout = ActivationLayout::floats;
  static constexpr int kSteps = 8;
  static constexpr ScaleRange kScales = ScaleRange::any;
  static constexpr bool kStripsOfRows = true;
  static constexpr bool kRescales = false;
  static constexpr bool kDecodes = true;  // more work than reading
  static constexpr typename A::F mac(typename A::F acc, W w, X x) { return A::fma(w, A::set(x), acc); }
};

template <class A>
struct Mxfp4Floats : FloatSteps<A> {
  static constexpr Format kFormat = Format::mxfp4;
  struct Octet {
    typename A::P raw;
    typename A::F scale;
    constexpr typename A::F step(int s) const { return A::mul(A::e2m1(raw, chain_offset(s)), scale); }
  };
  static constexpr Octet open(const Tile& tile, int octet) {
    return {A::load_pairs(tile.line(tile.codes, octet)), A::e8m0(tile.scale(octet / 4 * 16))};
  }
};

// What A may have for MXFP4: the decoders below.
template <class A>
inline constexpr bool kHasOffsets = requires {
  typename A::Offsets;
};
template <class A>
inline constexpr bool kHasRanges = requires(const float* x) {
  A::all_within(x, 8, 0.0f, 1.0f);
};

// As above where A decodes faster under a common scale that is not extreme.
template <class A>
struct Mxfp4Offsets : FloatSteps<A> {
  static constexpr Format kFormat = Format::mxfp4;
  static constexpr ScaleRange kScales = ScaleRange::usual;
  struct Octet {
    typename A::Offsets offsets;
    constexpr typename A::F step(int s) const { return offsets.level(chain_offset(s)); }
  };
  static constexpr Octet open(const Tile& tile, int octet) {
    return {typename A::Offsets(tile.line(tile.codes, octet), tile.scale(octet / 4 * 16))};
  }
};

template <class A>
struct Bf16Floats : FloatSteps<A> {
  static constexpr Format kFormat = Format::bf16;
  static constexpr bool kDecodes = false;
  struct Octet {
    Lines lines;
    constexpr typename A::F step(int s) const {
      const auto pairs = A::load_pairs(lines[s / 2]);
      return s % 2 == 0 ? A::odd(pairs) : A::even(pairs);
    }
  };
  static constexpr Octet open(const Tile& tile, int octet) { return {Lines(tile, octet * 4)}; }
};

template <class A>
struct F16Floats : FloatSteps<A> {
  static constexpr Format kFormat = Format::f16;
  static constexpr bool kDecodes = false;
  struct Octet {
    Lines lines;
    constexpr typename A::F step(int s) const { return A::load_f16(lines[s / 2] + s % 2 * 32); }
  };
  static constexpr Octet open(const Tile& tile, int octet) { return {Lines(tile, octet * 4)}; }
};

template <class A>
struct F32Floats : FloatSteps<A> {
  static constexpr Format kFormat = Format::f32;
  static constexpr bool kDecodes = false;
  struct Octet {
    Lines lines;
    constexpr typename A::F step(int s) const { return A::load(reinterpret_cast<const float*>(lines[s])); }
  };
  static constexpr Octet open(const Tile& tile, int octet) { return {Lines(tile, octet * 8)}; }
};

// Weights as pairs of bf16, one step for two k. Only where A has the pair dot.
template <class A>
struct PairSteps {
  using Arch = A;
  using Steps = PairSteps;
  using W = typename A::P;
  using X = std::uint32_t;
  static constexpr ActivationLayout kLayout = ActivationLayout::pairs;
  static constexpr int kSteps = 4;
  static constexpr ScaleRange kScales = ScaleRange::usual;
  static constexpr bool kStripsOfRows = true;
  static constexpr bool kRescales = false;
  static constexpr bool kDecodes = true;
  static constexpr typename A::F mac(typename A::F acc, W w, X x) { return A::dot(acc, w, x); }
};

template <class A>
struct Mxfp4Pairs : PairSteps<A> {
  static constexpr Format kFormat = Format::mxfp4;
  struct Octet {
    typename A::P raw, exponents;
    constexpr typename A::P step(int s) const { return A::e2m1_pairs(raw, s, exponents); }
  };
  static constexpr Octet open(const Tile& tile, int octet) {
    return {A::load_pairs(tile.line(tile.codes, octet)), A::e8m0_pairs(tile.scale(octet / 4 * 16))};
  }
};

template <class A>
struct Bf16Pairs : PairSteps<A> {
  static constexpr Format kFormat = Format::bf16;
  static constexpr bool kDecodes = false;
  struct Octet {
    Lines lines;
    constexpr typename A::P step(int s) const { return A::load_pairs(lines[s]); }
  };
  static constexpr Octet open(const Tile& tile, int octet) { return {Lines(tile, octet * 4)}; }
};

// ---- codes: levels of k offset chain_offset(s), or these times 1 / kUnit, a power of two

// The bytes of an octet, a dword a row: those of even and of odd k.
template <class A>
struct OctetBytes {
  typename A::P even, odd;
  static constexpr OctetBytes of_nibbles(const Tile& tile, int octet) {
    const auto raw = A::load_pairs(tile.line(tile.codes, octet));
    return {A::keep(raw, 0x0f0f'0f0fu), A::keep(A::shifted_right(raw, 4), 0x0f0f'0f0fu)};
  }
  constexpr typename A::F byte24(int s) const {
    const int k = chain_offset(s);
    return A::byte24(k % 2 ? odd : even, k / 2);
  }
};

// Integers of 4 + High bits, less Bias.
template <int Bias, int High = 0>
struct Integers {
  static constexpr float kUnit = 0x1p-24f;
  static constexpr int kCount = 16 << High;
  static constexpr int number(int code) { return code - Bias; }
  template <class A>
  struct Octet {
    OctetBytes<A> bytes;
    constexpr typename A::F level(int s) const { return bytes.byte24(s); }
  };
  // The codes themselves.
  template <class A>
  static constexpr OctetBytes<A> stored(const Tile& tile, int octet) {
    auto bytes = OctetBytes<A>::of_nibbles(tile, octet);
    if constexpr (High > 0) {
      constexpr int kOctets = 4 / High;  // that share a dword of high bits
      constexpr std::uint32_t kMask = ((1u << High) - 1) * 0x0101'0101u;
      const auto plane = A::load_pairs(tile.line(tile.high, octet / kOctets));
      const auto bits = A::shifted_right(plane, octet % kOctets * 2 * High);
      bytes.even = A::joined(bytes.even, A::shifted_left(A::keep(bits, kMask), 4));
      bytes.odd = A::joined(bytes.odd, A::shifted_left(A::keep(A::shifted_right(bits, High), kMask), 4));
    }
    return bytes;
  }
  template <class A>
  static constexpr Octet<A> open(const Tile& tile, int octet) {
    auto bytes = stored<A>(tile, octet);
    if constexpr (Bias != 0) {
      bytes.even = A::bytes_less(bytes.even, Bias);
      bytes.odd = A::bytes_less(bytes.odd, Bias);
    }
    return {bytes};
  }
};

// Sixteen levels that are integers of a byte, each 1 / Parts of a unit.
template <const std::int8_t (&Levels)[16], int Parts>
struct IntegerTable {
  static constexpr float kUnit = 0x1p-24f / Parts;
  static constexpr int kCount = 16;
  static constexpr int number(int code) { return Levels[code]; }
  template <class A>
  struct Octet {
    OctetBytes<A> bytes;
    constexpr typename A::F level(int s) const { return bytes.byte24(s); }
  };
  template <class A>
  static constexpr OctetBytes<A> stored(const Tile& tile, int octet) {
    return OctetBytes<A>::of_nibbles(tile, octet);
  }
  template <class A>
  static constexpr Octet<A> open(const Tile& tile, int octet) {
    const auto codes = stored<A>(tile, octet);
    return {{A::template looked_up<Levels>(codes.even), A::template looked_up<Levels>(codes.odd)}};
  }
};

// Sixteen levels that are any floats.
template <const float (&Levels)[16]>
struct FloatTable {
  static constexpr float kUnit = 1;
  static constexpr bool kAnyFloats = true;  // bf16 does not hold them
  template <class A>
  struct Octet {
    typename A::P raw;
    constexpr typename A::F level(int s) const { return A::template table<Levels>(raw, chain_offset(s)); }
  };
  template <class A>
  static constexpr Octet<A> open(const Tile& tile, int octet) {
    return {A::load_pairs(tile.line(tile.codes, octet))};
  }
};

// Bytes in two's complement, each 1 / Parts of a unit.
template <int Parts = 1>
struct Bytes {
  static constexpr float kUnit = 0x1p-24f / Parts;
  template <class A>
  struct Octet {
    OctetBytes<A> bytes;
    constexpr typename A::F level(int s) const { return bytes.byte24(s); }
  };
  template <class A>
  static constexpr Octet<A> open(const Tile& tile, int octet) {
    const Lines lines(tile, octet * 2);
    return {{A::load_pairs(lines[0]), A::load_pairs(lines[1])}};
  }
};

// Bytes that are floats.
template <bool E4M3>
struct FloatBytes {
  static constexpr float kUnit = 1;
  template <class A>
  struct Octet {
    Lines lines;
    constexpr typename A::F level(int s) const {
      const std::byte* at = lines[s / 4] + s % 4 * 16;
      if constexpr (E4M3)
        return A::load_e4m3(at);
      else
        return A::load_e5m2(at);
    }
  };
  template <class A>
  static constexpr Octet<A> open(const Tile& tile, int octet) {
    return {Lines(tile, octet * 2)};
  }
};

// The same codes as whole numbers: what a product of bytes counts in.
template <class Codes>
struct Whole {
  static constexpr float kUnit = Codes::kUnit * 0x1p24f;
};

// ---- scales: from the level, in units of kUnit, to the weight; step(): the weight of one whole number

// Times an f16 for each 32 inputs. The unit goes into the scale: no f16 times 2^-25 is subnormal.
template <class A, class Codes>
struct HalfScale {
  typename A::F scale;
  static constexpr HalfScale open(const Tile& tile, int octet) {
    return {A::mul(A::load_f16(tile.scale(octet / 4 * 32)), A::set(Codes::kUnit))};
  }
  constexpr typename A::F weight(typename A::F level) const { return A::mul(level, scale); }
  constexpr typename A::F step() const { return scale; }
};

// The same, and plus another f16. The product is exact, so that one rounding is as good as two.
template <class A, class Codes>
struct HalfScaleAndMinimum {
  typename A::F scale, minimum;
  static constexpr HalfScaleAndMinimum open(const Tile& tile, int octet) {
    const std::byte* line = tile.scale(octet / 4 * 64);
    return {A::mul(A::load_f16(line), A::set(Codes::kUnit)), A::load_f16(line + 32)};
  }
  constexpr typename A::F weight(typename A::F level) const { return A::fma(level, scale, minimum); }
  constexpr typename A::F step() const { return scale; }
};

// Levels that are brought to their unit first: such scales may be as small as f32 has them.
template <class A, class Codes>
struct AnyScale {
  typename A::F scale;
  constexpr typename A::F weight(typename A::F level) const {
    if constexpr (Codes::kUnit != 1) level = A::mul(level, A::set(Codes::kUnit));
    return A::mul(level, scale);
  }
  constexpr typename A::F step() const { return weight(A::set(1.0f)); }
};

// Times a power of two for each 32 inputs.
template <class A, class Codes>
struct PowerScale : AnyScale<A, Codes> {
  static constexpr PowerScale open(const Tile& tile, int octet) {
    return {{A::e8m0(tile.scale(octet / 4 * 16))}};
  }
};

// Times an f32 for each run of inputs.
template <class A, class Codes>
struct RunScale : AnyScale<A, Codes> {
  static constexpr RunScale open(const Tile& tile, int octet) {
    const std::byte* line = tile.header;
    if (tile.run_octets > 0) line = tile.scale(octet / tile.run_octets * 64);
    return {{A::load(reinterpret_cast<const float*>(line))}};
  }
};

// And divided by 127.
template <class A, class Codes>
struct RunScaleOf127 : RunScale<A, Codes> {
  static constexpr RunScaleOf127 open(const Tile& tile, int octet) {
    return {RunScale<A, Codes>::open(tile, octet)};
  }
  constexpr typename A::F weight(typename A::F level) const {
    return A::mul(RunScale<A, Codes>::weight(level), A::set(1.0f / 127.0f));
  }
  constexpr typename A::F step() const { return weight(A::set(1.0f)); }
};

// Times an E4M3 for each 16 inputs, which is exact, and times the row's factor.
template <class A, class Codes>
struct SmallScaleAndFactor {
  typename A::F scale, factor;
  static constexpr SmallScaleAndFactor open(const Tile& tile, int octet) {
    return {A::mul(A::load_e4m3(tile.scale(octet / 2 * 16)), A::set(Codes::kUnit)),
            A::load(reinterpret_cast<const float*>(tile.header))};
  }
  constexpr typename A::F weight(typename A::F level) const { return A::mul(A::mul(level, scale), factor); }
  constexpr typename A::F step() const { return A::mul(scale, factor); }
};

// Times an integer for each Group inputs, times the f16 of the tile; the product of these two is exact.
template <int Group>
struct SuperScale {
  template <class A, class Codes>
  struct Of {
    typename A::F scale;
    static constexpr Of open(const Tile& tile, int octet) {
      const auto super = A::mul(A::load_f16(tile.scale(kTileK / Group * 16)), A::set(Codes::kUnit));
      return {A::mul(super, A::load_i8(tile.scale(octet / (Group / 8) * 16)))};
    }
    constexpr typename A::F weight(typename A::F level) const { return A::mul(level, scale); }
    constexpr typename A::F step() const { return scale; }
  };
};

// The same for each 32, less another such product; both are exact.
template <class A, class Codes>
struct SuperScaleAndMinimum {
  typename A::F scale, minimum;
  static constexpr SuperScaleAndMinimum open(const Tile& tile, int octet) {
    const std::byte *line = tile.scale(octet / 4 * 32), *super = tile.scale(kTileK / 32 * 32);
    return {A::mul(A::mul(A::load_f16(super), A::set(Codes::kUnit)), A::load_i8(line)),
            A::mul(A::mul(A::load_f16(super + 32), A::set(-1.0f)), A::load_i8(line + 16))};
  }
  constexpr typename A::F weight(typename A::F level) const { return A::fma(level, scale, minimum); }
  constexpr typename A::F step() const { return scale; }
};

// ---- the formats made of them

template <class A, Format Id, class Codes, template <class, class> class Scale>
struct Scaled : FloatSteps<A> {
  static constexpr Format kFormat = Id;
  // With several rows decoding is the greater part anyhow: one strip at a time does with a third of the code.
  static constexpr bool kStripsOfRows = false;
  struct Octet {
    typename Codes::template Octet<A> codes;
    Scale<A, Codes> scale;
    constexpr typename A::F step(int s) const { return scale.weight(codes.level(s)); }
  };
  static constexpr Octet open(const Tile& tile, int octet) {
    return {Codes::template open<A>(tile, octet), Scale<A, Codes>::open(tile, octet)};
  }
};

inline constexpr std::int8_t kE2m1Halves[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
using E2m1Codes = IntegerTable<kE2m1Halves, 2>;
using Iq4Codes = IntegerTable<kIq4Levels, 1>;

// What is the same of both below.
template <class A>
struct CountsInScales {
  static constexpr ScaleRange kScales = ScaleRange::narrow;
  static constexpr bool kRescales = true;
  static constexpr int kScaleOctets = 4;  // that have a scale together
  static const std::byte* scales(const Tile& tile, int octet) {
    return tile.scale(octet / kScaleOctets * 16);
  }
};

// MXFP4 by levels alone: a sum is counted in units of the scale of the group it has come to, and multiplied
// by the ratio of two scales between groups. That is a power of two, so that every rounding falls where that
// of the canonical chain does, as long as neither of the two overflows or flushes what the other keeps:
//   scales are narrow, 2^-37 .. 2^3, inputs zero or of magnitude 2^-60 .. 2^40, and k at most 2^16.
// Then an input is a multiple of 2^-83, a weight of 2^-38, a sum of 2^-121: no subnormals. A sum is at most
// 2^16 * 6 * 2^40 * 2^3 < 2^62, in units of the least scale and of kUnit < 2^(62 + 37 + 25).
template <class A>
struct Mxfp4Rescaled : FloatSteps<A>, CountsInScales<A> {
  // What multiplies what this may not.
  using Otherwise = std::conditional_t<kHasOffsets<A>, Mxfp4Offsets<A>, Mxfp4Floats<A>>;
  using CountsInScales<A>::kScales, CountsInScales<A>::kRescales;
  static constexpr Format kFormat = Format::mxfp4;
  struct Octet {
    E2m1Codes::Octet<A> codes;
    constexpr typename A::F step(int s) const { return codes.level(s); }
  };
  static constexpr Octet open(const Tile& tile, int octet) { return {E2m1Codes::open<A>(tile, octet)}; }

  static constexpr typename A::F unit(const std::byte* scales) {
    return A::mul(A::e8m0(scales), A::set(E2m1Codes::kUnit));
  }
  static constexpr bool holds(const MatmulCall& call) {
    return call.weight->k <= 1 << 16 && A::all_within(static_cast<const float*>(call.x),
                                                      call.rows * call.weight->k_padded(), 0x1p-60f, 0x1p40f);
  }
};

// The same by pairs of bf16, of which packing has left none below 2^-60 but zeros.
template <class A>
struct Mxfp4RescaledPairs : PairSteps<A>, CountsInScales<A> {
  using Otherwise = Mxfp4Pairs<A>;
  using CountsInScales<A>::kScales, CountsInScales<A>::kRescales;
  static constexpr Format kFormat = Format::mxfp4;
  struct Octet {
    typename A::P raw;
    constexpr typename A::P step(int s) const { return A::e2m1_pairs(raw, s); }
  };
  static constexpr Octet open(const Tile& tile, int octet) {
    return {A::load_pairs(tile.line(tile.codes, octet))};
  }

  static constexpr typename A::F unit(const std::byte* scales) { return A::e8m0(scales); }
  static constexpr bool holds(const MatmulCall& call) {
    return call.weight->k <= 1 << 16 &&
           A::pairs_below(call.x, call.rows * call.weight->k_padded() / 2, 0x5380);  // 2^40
  }
};

// All of them, behind the kernels that are not made so.
template <class A, template <class...> class List>
using ScaledFormats = List<
    Scaled<A, Format::q4_0, Integers<8>, HalfScale>,
    Scaled<A, Format::q4_1, Integers<0>, HalfScaleAndMinimum>,
    Scaled<A, Format::q5_0, Integers<16, 1>, HalfScale>,
    Scaled<A, Format::q5_1, Integers<0, 1>, HalfScaleAndMinimum>, Scaled<A, Format::q8_0, Bytes<>, HalfScale>,
    Scaled<A, Format::q4_k, Integers<0>, SuperScaleAndMinimum>,
    Scaled<A, Format::q5_k, Integers<0, 1>, SuperScaleAndMinimum>,
    Scaled<A, Format::q6_k, Integers<32, 2>, SuperScale<16>::Of>,
    Scaled<A, Format::iq4_nl, Iq4Codes, HalfScale>, Scaled<A, Format::iq4_xs, Iq4Codes, SuperScale<32>::Of>,
    Scaled<A, Format::int8, Bytes<>, RunScale>, Scaled<A, Format::llm_int8, Bytes<>, RunScaleOf127>,
    Scaled<A, Format::fp8_e4m3, FloatBytes<true>, RunScale>,
    Scaled<A, Format::fp8_e5m2, FloatBytes<false>, RunScale>,
    Scaled<A, Format::mxfp8_e4m3, FloatBytes<true>, PowerScale>,
    Scaled<A, Format::mxfp8_e5m2, FloatBytes<false>, PowerScale>,
    Scaled<A, Format::mxint8, Bytes<64>, PowerScale>,
    Scaled<A, Format::nvfp4, E2m1Codes, SmallScaleAndFactor>,
    Scaled<A, Format::nf4, FloatTable<Nf4Levels::levels>, RunScale>,
    Scaled<A, Format::bnb_fp4, FloatTable<BnbFp4Levels::levels>, RunScale>>;

}  // namespace nib::inline v0::cpu
