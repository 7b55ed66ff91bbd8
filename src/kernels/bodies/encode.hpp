// Encoders, 32 values at a time: load, choose a scale where the format has one for a group, find the codes,
// join them to bytes; and from the same registers what a reader will have of each value. Bit for bit the
// definitions in formats/, in an environment that rounds to nearest and keeps subnormals.
#pragma once

#include "encode_elements.hpp"
#include <nibble/kernels/encode.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace nib::inline v0::cpu {

inline constexpr int kBatch = 8;

// Sixteen sums of squares, in one vector or in two that take turns, so that neither waits for itself.
template <class A>
class Squares {
 public:
  using W = Wide<A>;
  void add(typename W::F x) {
    const auto sum = W::fma(x, x, now_[0]);
    if constexpr (kTurns == 2) now_[0] = now_[1];
    now_[kTurns - 1] = sum;
  }
  // To doubles, which is the dear part.
  void flush() {
    all_.add(now_);
    for (auto& now : now_) now = W::all(0.0f);
  }
  double total() const { return all_.total(); }

 private:
  static constexpr int kTurns = 16 / W::kLanes;
  typename W::F now_[kTurns] = {};
  typename W::Sums all_;
};

// What gets lost: sums of squares of the values, and of the steps to what a reader will have; or nothing.
template <class A, bool WithNoise>
struct Lost {
  using W = Wide<A>;
  static constexpr bool wanted = WithNoise;
  Squares<A> signal, noise;
  int chunks = 0;
  void add(typename W::F value, typename W::F back) { add_step(value, back - value); }
  void add_step(typename W::F value, typename W::F step) {
    if constexpr (WithNoise) {
      signal.add(value);
      noise.add(step);
    }
  }
  void end_chunk() {
    if constexpr (WithNoise)
      if (++chunks % 8 == 0) flush();
  }
  Noise total() {
    if constexpr (WithNoise) flush();
    return {signal.total(), noise.total()};
  }

 private:
  void flush() {
    signal.flush();
    noise.flush();
  }
};

template <class LostOf>
inline constexpr bool is_wanted = std::remove_reference_t<LostOf>::wanted;

// A coder is made for a run or a call. ready(values) is what it needs to know of a chunk before its codes:
// asked for a batch of chunks first, so that none waits for its scale.
struct Fixed {
  struct Ready {};
  static Ready ready(const float*) { return {}; }
};

// --- coders of shared scales

// Codes of a byte: integers, and E4M3.
template <class A, class By, class Element>
struct ByteCoder : Fixed {
  using W = Wide<A>;
  static constexpr int kCodes = kChunk, kScales = 0;
  ByteCoder(float scale, float read) : units(scale), factor(W::all(read)) {}
  [[gnu::always_inline]] void chunk(const float* values, const Fixed::Ready&, std::byte* codes, std::byte*,
                                    auto& lost) const {
    typename W::I out[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      const auto coded = Element::coded(units(x));
      out[i] = coded.code & 0xff;
      lost.add(x, By::back(coded.level, factor));
    }
    W::store_bytes(W::bytes(out), codes);
  }
  Units<A, By> units;
  typename W::F factor;
};

// Two codes in a byte, the first in the high half.
template <class A, class Book, class Element>
struct NibbleCoder : Fixed {
  using W = Wide<A>;
  static constexpr int kCodes = kChunk / 2, kScales = 0;
  NibbleCoder(float scale, float read) : units(scale), factor(read) {}
  [[gnu::always_inline]] void chunk(const float* values, const Fixed::Ready&, std::byte* codes, std::byte*,
                                    auto& lost) const {
    typename W::F in_units[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) in_units[i] = units(W::load(values + W::kLanes * i));
    const BookOctets<A, Book> coded(in_units);
    if (coded.undecided()) [[unlikely]]
      return one_by_one(values, codes, lost);
    W::store_pairs(coded.codes(), 16, 1, codes);
    if constexpr (is_wanted<decltype(lost)>) {
      typename W::F levels[kVectors<A>];
      coded.levels(levels);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors<A>; ++i)
        lost.add(W::load(values + W::kLanes * i), levels[i] * W::all(factor));
    }
  }

 private:
  // Where a value may be a threshold.
  [[gnu::always_inline]] void one_by_one(const float* values, std::byte* codes, auto& lost) const {
    const Element element(factor);
    typename W::I out[kVectors<A>];
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      const auto coded = element(units(x));
      out[i] = coded.code;
      lost.add(x, coded.back);
    }
    W::store_pairs(W::bytes(out), 16, 1, codes);
  }
  Units<A, ByAbsmax<A>> units;
  float factor;
};

// --- coders of groups with a scale of their own

template <class A>
[[gnu::always_inline]] inline std::uint32_t largest_bits(const float* values) {
  using W = Wide<A>;
  auto most = W::bits(W::load(values)) & kMagnitude;
  for (int i = 1; i < kVectors<A>; ++i)
    most = W::most(most, W::bits(W::load(values + W::kLanes * i)) & kMagnitude);
  return W::largest(most);
}

// E2M1 under a power of two. RoundUp: the exponent steps up where the significand is above that of 6. Inside:
// the scale before the codes, which lie as in GGUF.
template <class A, bool RoundUp, bool Inside>
struct Mxfp4Coder {
  using W = Wide<A>;
  static constexpr int kCodes = Inside ? 17 : 16, kScales = Inside ? 0 : 1;
  struct Ready {
    std::uint32_t code;
    float number;
  };
  explicit Mxfp4Coder(const EncodeCall&) {}
  [[gnu::always_inline]] static Ready ready(const float* values) {
    const std::uint32_t a = largest_bits<A>(values);
    const auto exponent = static_cast<std::int32_t>((a + (RoundUp ? 0x3f'ffffu : 0u)) >> 23) - 2;
    if (a >= kInfinity) [[unlikely]]
      return {255, std::bit_cast<float>(0x7fc0'0000u)};
    if (exponent <= 0) [[unlikely]]
      return {0, 0x1p-127f};
    return {static_cast<std::uint32_t>(exponent), std::bit_cast<float>(exponent << 23)};
  }
  [[gnu::always_inline]] void chunk(const float* values, const Ready& ready, std::byte* codes,
                                    std::byte* scales, auto& lost) const {
    *(Inside ? codes : scales) = static_cast<std::byte>(ready.code);
    typename W::F x[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) x[i] = W::load(values + W::kLanes * i);
    const auto scale = W::all(ready.number);
    if (ready.code < 3 || ready.code == 255) [[unlikely]] {  // a middle may be subnormal
      const E2m1Lanes<A> element(scale);
      typename W::I out[kVectors<A>];
      for (int i = 0; i < kVectors<A>; ++i) {
        const auto value = W::load(values + W::kLanes * i);
        const auto coded = element(value);
        out[i] = coded.code;
        lost.add(value, coded.back);
      }
      return store(W::bytes(out), codes);
    }
    const E2m1Octets<A> coded(middles, x, x, static_cast<std::int32_t>(ready.code));
    store(coded.codes(), codes);
    if constexpr (is_wanted<decltype(lost)>) {
      typename W::F levels[kVectors<A>];
      coded.levels(levels);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors<A>; ++i)
        lost.add_step(x[i], W::fma(levels[i], scale, -x[i]));  // an exact product
    }
  }

 private:
  typename E2m1Octets<A>::Middles middles;
  static void store(typename W::Bytes x, std::byte* codes) {
    if constexpr (Inside)
      W::store_halves(x, codes + 1);
    else
      W::store_pairs(x, 1, 16, codes);
  }
};

// E2M1 under an E4M3, no less than 2^-6; two groups at a time.
//
// A value is divided by its scale with the scale's reciprocal: near is within 1.5 units in the last place
// (ulp) of the quotient, what is missing, value - near * scale, is exact, and near plus that times the
// reciprocal is within 2^-23 ulp of the quotient before it is rounded. A quotient by four bits of significand
// is no middle between floats and no nearer to one than 1/30 ulp, so the rounding is that of a division. (Far
// below the least middle it may be another, and a zero lose its sign, which is taken from the value.)
template <class A, bool RoundUp>
struct Nvfp4Coder {
  using W = Wide<A>;
  static constexpr int kCodes = 16, kScales = 2;
  // Of both groups: a vector of four, of which two count.
  using F = typename W::PairF;
  using I = typename W::PairI;
  struct Ready {
    I code;
    F scale, by;
  };
  explicit Nvfp4Coder(const EncodeCall& call)
      : divided(call.tensor_scale != 1), factor(W::all(call.tensor_scale)) {}
  // Division keeps the order of magnitudes, so the largest is divided alone.
  [[gnu::always_inline]] Ready ready(const float* values) const {
    typename W::I most[2] = {};
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i)
      most[group(i)] = W::most(most[group(i)], W::bits(W::load(values + W::kLanes * i)) & kMagnitude);
    const I a = W::largest_of_two(most[0], most[1]);
    const I code = scale_of(divided ? I(F(a) / factor[0]) & kMagnitude : a);
    const F scale = number(code);
    return {code, scale, 1.0f / scale};
  }
  [[gnu::always_inline]] void chunk(const float* values, const Ready& ready, std::byte* codes,
                                    std::byte* scales, auto& lost) const {
    const typename W::F of[2] = {W::all(ready.scale[0]), W::all(ready.scale[1])};
    typename W::F x[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) x[i] = W::load(values + W::kLanes * i);
    if (ready.code[0] == kNan || ready.code[1] == kNan) [[unlikely]] {
      const E2m1Lanes<A> elements[2] = {E2m1Lanes<A>(of[0]), E2m1Lanes<A>(of[1])};
      typename W::I out[kVectors<A>];
      for (int i = 0; i < kVectors<A>; ++i) {
        const auto value = W::load(values + W::kLanes * i);
        const auto coded = elements[group(i)](divided ? value / factor : value);
        out[i] = coded.code;
        lost.add(value, coded.back * factor);
      }
      store(W::bytes(out), ready, codes, scales);
      return;
    }
    const typename W::F by[2] = {W::all(ready.by[0]), W::all(ready.by[1])};
    typename W::F value[kVectors<A>], units[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      value[i] = divided ? x[i] / factor : x[i];
      const auto near = value[i] * by[group(i)];
      units[i] = W::fma(W::fma(-near, of[group(i)], value[i]), by[group(i)], near);
    }
    const E2m1Octets<A> coded(middles, units, value, 127);
    store(coded.codes(), ready, codes, scales);
    if constexpr (is_wanted<decltype(lost)>) {
      typename W::F levels[kVectors<A>];
      coded.levels(levels);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors<A>; ++i) lost.add(x[i], levels[i] * of[group(i)] * factor);
    }
  }

 private:
  static void store(typename W::Bytes x, const Ready& ready, std::byte* codes, std::byte* scales) {
    scales[0] = static_cast<std::byte>(ready.code[0]);
    scales[1] = static_cast<std::byte>(ready.code[1]);
    W::store_pairs(x, 1, 16, codes);
  }
  static constexpr std::int32_t kRebase = (127 - 7) << 23, kNan = 0x7f, kLargest = 0x7e, kSmallest = 8;
  static constexpr int group(int vector) { return vector * W::kLanes / 16; }
  static F number(I code) { return F(((code << 20) + kRebase) | ((code == kNan) & kMagnitude)); }
  // Of largest magnitudes, as bits.
  static I scale_of(I a) {
    const I ratio = I(F(a) / 6.0f) - kRebase;
    I code = (ratio + 0x7'ffff + (ratio >> 20 & 1)) >> 20;
    code = code < kSmallest ? kSmallest - I{} : code;
    code = code > kLargest ? kLargest - I{} : code;
    if constexpr (RoundUp) code -= (number(code) * 6.0f < F(a)) & (code < kLargest);
    return code | ((a >= static_cast<std::int32_t>(kInfinity)) & kNan);
  }
  bool divided;
  typename W::F factor;
  typename E2m1Octets<A>::Middles middles;
};

// --- coders of GGUF's blocks

template <class A>
struct GgmlScale {
  using W = Wide<A>;
  // The first value of the largest magnitude a, or the first NaN; +0 of zeros.
  [[gnu::always_inline]] static float extreme(const float* values, std::uint32_t a) {
    if (a == 0) return 0;
    const std::uint32_t least = a < kInfinity ? a : kInfinity + (a > kInfinity ? 1u : 0u);
    typename W::I magnitudes[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i)
      magnitudes[i] = W::bits(W::load(values + W::kLanes * i)) & kMagnitude;
    return values[std::countr_zero(W::no_less(magnitudes, static_cast<std::int32_t>(least)))];
  }

  // A scale as it is stored, and what a reader will have. NaN is the quiet one of its sign.
  struct Half {
    std::uint16_t bits = 0;
    float number = 0;
    void store(std::byte* to) const { std::memcpy(to, &bits, sizeof bits); }
  };
  static Half half(float d) {
    const auto word = std::bit_cast<std::uint32_t>(d);
    const auto bits =
        static_cast<std::uint16_t>(d != d ? (word >> 16 & 0x8000u) | 0x7e00u : std::uint32_t{W::to_f16(d)});
    return {bits, W::from_f16(bits)};
  }
  static float reciprocal(float d) { return d != 0 && d - d == 0 ? 1.0f / d : 0.0f; }
};

template <class A, int Bits, bool WithMinimum>
struct GgmlCoder {
  using W = Wide<A>;
  using Scale = GgmlScale<A>;
  static constexpr int kLevels = 1 << Bits, kHighAt = WithMinimum ? 4 : 2,
                       kCodesAt = kHighAt + (Bits == 5 ? 4 : 0);
  static constexpr int kCodes = kCodesAt + 16, kScales = 0;
  struct Ready {
    typename Scale::Half d, low;
    float inverse, minimum;
  };
  explicit GgmlCoder(const EncodeCall&) {}
  [[gnu::always_inline]] static Ready ready(const float* values) {
    if constexpr (WithMinimum) {
      const Extent found = extent(values);
      const float d = (found.high - found.low) / (kLevels - 1);
      return {Scale::half(d), Scale::half(found.low), Scale::reciprocal(d), found.low};
    }
    const float d = Scale::extreme(values, largest_bits<A>(values)) / (-kLevels / 2);
    return {Scale::half(d), {}, Scale::reciprocal(d), 0};
  }
  [[gnu::always_inline]] void chunk(const float* values, const Ready& ready, std::byte* codes, std::byte*,
                                    auto& lost) const {
    const auto inverse = W::all(ready.inverse), minimum = W::all(ready.minimum);
    const auto factor = W::all(ready.d.number), bias = W::all(ready.low.number);
    typename W::I out[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      const auto sum =
          (WithMinimum ? x - minimum : x) * inverse + W::all(WithMinimum ? 0.5f : kLevels / 2 + 0.5f);
      out[i] = W::truncate(W::least(W::most(sum, W::all(0.0f)), W::all(static_cast<float>(kLevels - 1))));
      if constexpr (WithMinimum)
        lost.add(x, W::numbers(out[i]) * factor + bias);
      else
        lost.add(x, W::numbers(out[i] - kLevels / 2) * factor);
    }
    ready.d.store(codes);
    if constexpr (WithMinimum) ready.low.store(codes + 2);
    auto bytes = W::bytes(out);
    if constexpr (Bits == 5) {
      const std::uint32_t fifth = W::bit_of(bytes, 4);
      std::memcpy(codes + kHighAt, &fifth, sizeof fifth);
      bytes = W::nibbles(bytes);
    }
    W::store_halves(bytes, codes + kCodesAt);
  }

 private:
  struct Extent {
    float low, high;
  };
  // Of equals (zeros of two signs) the first; the first NaN.
  [[gnu::always_inline]] static Extent extent(const float* values) {
    typename W::F x[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) x[i] = W::load(values + W::kLanes * i);
    auto most = x[0], least = x[0];
#pragma GCC unroll 4
    for (int i = 1; i < kVectors<A>; ++i) {
      most = W::most(most, x[i]);
      least = W::least(least, x[i]);
    }
    Extent found{W::smallest(least), W::largest(most)};
    const bool nan = W::any_nan(x);
    if (nan || found.low == 0) [[unlikely]] {
      typename W::I which[kVectors<A>];
      for (int i = 0; i < kVectors<A>; ++i) which[i] = nan ? x[i] != x[i] : x[i] == 0;
      found.low = values[std::countr_zero(W::which(which))];
      if (nan || found.high == 0) found.high = found.low;
    }
    return found;
  }
};

// Halves go away from zero: to what is below a half, adding the number before 0.5 does not reach 1.
template <class A>
struct Q8Coder {
  using W = Wide<A>;
  using Scale = GgmlScale<A>;
  static constexpr int kCodes = 34, kScales = 0;
  struct Ready {
    typename Scale::Half d;
    float inverse;
  };
  explicit Q8Coder(const EncodeCall&) {}
  [[gnu::always_inline]] static Ready ready(const float* values) {
    const std::uint32_t a = largest_bits<A>(values);
    auto extreme = std::bit_cast<float>(a);
    if (a > kInfinity) [[unlikely]]
      extreme = Scale::extreme(values, a);
    const float d = extreme / 127;
    return {Scale::half(d), Scale::reciprocal(d)};
  }
  [[gnu::always_inline]] void chunk(const float* values, const Ready& ready, std::byte* codes, std::byte*,
                                    auto& lost) const {
    const auto factor = W::all(ready.d.number), inverse = W::all(ready.inverse);
    typename W::I out[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      const auto units = x * inverse;
      const auto sign = W::bits(units) & kSignBit;
      const auto half = W::floats(sign | std::bit_cast<std::int32_t>(0x1.fffffep-2f));
      const auto inside = W::floats(W::bits(units) & kMagnitude) <= 128;
      const auto code = W::truncate(units + half) & inside;
      out[i] = code & 0xff;
      lost.add(x, W::numbers(code) * factor);
    }
    ready.d.store(codes);
    W::store_bytes(W::bytes(out), codes + 2);
  }
};

// --- coders of plain values

template <class A>
struct F32Coder : Fixed {
  using W = Wide<A>;
  static constexpr int kCodes = 4 * kChunk, kScales = 0;
  explicit F32Coder(const EncodeCall&) {}
  [[gnu::always_inline]] void chunk(const float* values, const Fixed::Ready&, std::byte* codes, std::byte*,
                                    auto& lost) const {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      W::store(x, codes + 4 * W::kLanes * i);
      lost.add(x, x);
    }
  }
};

template <class A, class Element>
struct WordCoder : Fixed {
  using W = Wide<A>;
  static constexpr int kCodes = 2 * kChunk, kScales = 0;
  explicit WordCoder(const EncodeCall&) {}
  [[gnu::always_inline]] void chunk(const float* values, const Fixed::Ready&, std::byte* codes, std::byte*,
                                    auto& lost) const {
    typename Element::Code out[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto x = W::load(values + W::kLanes * i);
      out[i] = Element::code(x);
      lost.add(x, Element::back(out[i]));
    }
    W::store_words(out, codes);
  }
};

// --- the loops

// Values up to a whole chunk are encoded beside zeros, of which nothing is kept: they add nothing to the sums
// either.
template <class A, class Coder>
void encode_values(const Coder& coder, const float* values, std::int64_t count, std::byte* codes,
                   std::byte* scales, auto& lost) {
  while (count >= kChunk) {
    const auto batch = static_cast<int>(count / kChunk < kBatch ? count / kChunk : kBatch);
    typename Coder::Ready ready[kBatch];
    for (int i = 0; i < batch; ++i) ready[i] = coder.ready(values + i * kChunk);
    for (int i = 0; i < batch; ++i) {
      coder.chunk(values, ready[i], codes, scales, lost);
      lost.end_chunk();
      values += kChunk;
      codes += Coder::kCodes;
      if constexpr (Coder::kScales != 0) scales += Coder::kScales;
    }
    count -= batch * kChunk;
  }
  if (count <= 0) return;
  float padded[kChunk] = {};
  std::byte some_codes[Coder::kCodes], some_scales[Coder::kScales + 1];
  std::memcpy(padded, values, static_cast<std::size_t>(count) * sizeof(float));
  coder.chunk(padded, coder.ready(padded), some_codes, some_scales, lost);
  lost.end_chunk();
  std::memcpy(codes, some_codes, static_cast<std::size_t>(count * Coder::kCodes / kChunk));
  if constexpr (Coder::kScales != 0)
    std::memcpy(scales, some_scales, static_cast<std::size_t>(count * Coder::kScales / kChunk));
}

template <class A, class Coder, bool WithNoise>
Noise encode_lanes(const EncodeCall& call) {
  Lost<A, WithNoise> lost;
  if constexpr (requires { Coder(call); }) {
    encode_values<A>(Coder(call), call.values, call.count, call.codes, call.scales, lost);
  } else {
    for (std::int64_t at = 0, i = 0; at < call.count; at += call.run, ++i) {
      const std::int64_t rest = call.count - at;
      encode_values<A>(Coder(call.run_scales[i], call.read_scales[i]), call.values + at,
                       rest < call.run ? rest : call.run, call.codes + at * Coder::kCodes / kChunk, nullptr,
                       lost);
    }
  }
  return lost.total();
}

template <class A>
void measure_lanes(const float* values, std::int64_t count, std::int64_t run, float* largest) {
  using W = Wide<A>;
  for (; count > 0; values += run, count -= run, ++largest) {
    const std::int64_t some = count < run ? count : run;
    auto most = W::all(std::bit_cast<std::int32_t>(*largest));
    std::int64_t i = 0;
    for (; i + kChunk <= some; i += kChunk)
      for (int j = 0; j < kVectors<A>; ++j)
        most = W::most(most, W::bits(W::load(values + i + W::kLanes * j)) & kMagnitude);
    std::uint32_t out = W::largest(most);
    for (; i < some; ++i) {
      const std::uint32_t word = std::bit_cast<std::uint32_t>(values[i]) & kMagnitude;
      out = word > out ? word : out;
    }
    *largest = std::bit_cast<float>(out);
  }
}

template <class A, class Element>
void widen_lanes(const std::byte* words, std::int64_t count, float* values) {
  using W = Wide<A>;
  constexpr int kLanes = W::kLanes;
  for (; count >= kLanes; count -= kLanes, words += 2 * kLanes, values += kLanes)
    W::store(Element::back(Element::load(words)), reinterpret_cast<std::byte*>(values));
  if (count <= 0) return;
  std::byte some_words[2 * kLanes] = {}, some_values[4 * kLanes];
  std::memcpy(some_words, words, static_cast<std::size_t>(2 * count));
  W::store(Element::back(Element::load(some_words)), some_values);
  std::memcpy(values, some_values, static_cast<std::size_t>(4 * count));
}

template <class A, Format Id, class Coder, ScaleRule Rule = ScaleRule::usual>
constexpr EncoderTable::Row row() {
  return {Id, Rule, encode_lanes<A, Coder, true>, encode_lanes<A, Coder, false>};
}

template <class A>
inline constexpr EncoderTable::Row kEncoderRows[] = {
    row<A, Format::f32, F32Coder<A>>(),
    row<A, Format::f16, WordCoder<A, F16Lanes<A>>>(),
    row<A, Format::bf16, WordCoder<A, Bf16Lanes<A>>>(),
    row<A, Format::mxfp4, Mxfp4Coder<A, false, false>>(),
    row<A, Format::mxfp4, Mxfp4Coder<A, false, false>, ScaleRule::floor>(),
    row<A, Format::mxfp4, Mxfp4Coder<A, true, false>, ScaleRule::round_up>(),
    row<A, Format::gguf_mxfp4, Mxfp4Coder<A, false, true>>(),
    row<A, Format::gguf_mxfp4, Mxfp4Coder<A, false, true>, ScaleRule::floor>(),
    row<A, Format::gguf_mxfp4, Mxfp4Coder<A, true, true>, ScaleRule::round_up>(),
    row<A, Format::nvfp4, Nvfp4Coder<A, false>>(),
    row<A, Format::nvfp4, Nvfp4Coder<A, true>, ScaleRule::round_up>(),
    row<A, Format::fp8_e4m3, ByteCoder<A, ByFactor<A>, E4m3Lanes<A>>>(),
    row<A, Format::int8, ByteCoder<A, ByFactor<A>, Int8Lanes<A>>>(),
    row<A, Format::llm_int8, ByteCoder<A, ByAbsmaxOf127<A>, Int8Lanes<A>>>(),
    row<A, Format::nf4, NibbleCoder<A, Nf4Book, Nf4Lanes<A>>>(),
    row<A, Format::bnb_fp4, NibbleCoder<A, BnbFp4Book, BnbFp4Lanes<A>>>(),
    row<A, Format::q4_0, GgmlCoder<A, 4, false>>(),
    row<A, Format::q4_1, GgmlCoder<A, 4, true>>(),
    row<A, Format::q5_0, GgmlCoder<A, 5, false>>(),
    row<A, Format::q5_1, GgmlCoder<A, 5, true>>(),
    row<A, Format::q8_0, Q8Coder<A>>(),
};

}  // namespace nib::inline v0::cpu
