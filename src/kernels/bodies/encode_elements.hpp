// The elements of encoders: a vector of values, in units of their scale, to codes and to the levels that
// these mean. Bit for bit the definitions in formats/, in an environment that rounds to nearest and keeps
// subnormals.
#pragma once

#include <nibble/formats/code_books.hpp>
#include <nibble/formats/e2m1.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0::cpu {

// What is encoded at a time: 32 values, in so many vectors.
inline constexpr int kChunk = 32;
template <class A>
inline constexpr int kVectors = kChunk / Wide<A>::kLanes;

inline constexpr std::uint32_t kInfinity = 0x7f80'0000u;
inline constexpr std::int32_t kSignBit = INT32_MIN, kMagnitude = INT32_MAX;

// --- code books: E2M1 and the tables of bitsandbytes

// A balanced tree of thresholds, of which a value passes one at each depth. The way so far, k, counts
// downwards (a comparison that holds is -1), so that tables are in the order of -k.
struct TreeTables {
  float step[4][8] = {}, low[8] = {}, high[8] = {};
};
template <int Depth>
constexpr TreeTables tree_tables(const float* thresholds, const float* levels) {
  TreeTables tables;
  for (int j = 0; j < 8; ++j) {
    for (int depth = 0; depth < Depth; ++depth) {
      const int way = -j & ((1 << depth) - 1);
      tables.step[depth][j] = thresholds[((2 * way + 1) << (Depth - 1 - depth)) - 1];
    }
    tables.low[j] = levels[-j & 7];
    tables.high[j] = Depth == 4 ? levels[(-j & 7) + 8] : 0.0f;
  }
  return tables;
}

template <class A, int Depth, bool EvenTies>
class Tree {
 public:
  using W = Wide<A>;
  using F = typename W::F;
  using I = typename W::I;

  Tree(const TreeTables& tables, F threshold_unit, F level_unit) {
    for (int depth = 0; depth < Depth; ++depth)
      step_[depth] = W::load_eight(tables.step[depth]) * threshold_unit;
    low_ = W::load_eight(tables.low) * level_unit;
    if constexpr (Depth == 4) high_ = W::load_eight(tables.high) * level_unit;
  }
  // Minus the number of thresholds that x is above. With even ties it passes odd ones, which are those of
  // the last depth alone, only from above.
  I way(F x) const {
    I k = passes<0>(x, step_[0]);
    k += k + passes<1>(x, W::pick4(step_[1], k));
    k += k + passes<2>(x, W::pick4(step_[2], k));
    if constexpr (Depth == 4) k += k + passes<3>(x, W::pick8(step_[3], k));
    return k;
  }
  F level(I k) const {
    if constexpr (Depth == 4) return W::choose(k < -7, W::pick8(high_, k), W::pick8(low_, k));
    return W::pick8(low_, k);
  }

 private:
  template <int At>
  static I passes(F x, F threshold) {
    if constexpr (EvenTies && At + 1 < Depth) return x >= threshold;
    return x > threshold;
  }
  F step_[Depth], low_, high_{};
};

// The levels of sixteen codes. Vectors of bytes find one byte of all of them at a time, so these lie apart,
// and twice; the lower ones are left out where they are zero.
template <int Bytes>
struct LevelTable {
  alignas(32) std::int8_t byte[Bytes][32] = {};
  alignas(64) float number[16] = {};
  constexpr explicit LevelTable(const float (&levels)[16]) {
    for (int code = 0; code < 32; ++code) {
      const auto word = std::bit_cast<std::uint32_t>(levels[code % 16]);
      for (int i = 0; i < Bytes; ++i)
        byte[i][code] = static_cast<std::int8_t>(word >> (8 * (4 - Bytes + i)) & 0xff);
      number[code % 16] = levels[code % 16];
    }
  }
};

// In units of `scale`. A scale that is NaN, and its values: level 0 of no sign.
template <class A>
class E2m1Lanes {
 public:
  using W = Wide<A>;
  struct Coded {
    typename W::I code;
    typename W::F back;
  };

  explicit E2m1Lanes(typename W::F scale) : tree_(kTables, scale, scale), sign_((scale == scale) & 8) {}
  Coded operator()(typename W::F x) const {
    const auto word = W::bits(x);
    const auto k = tree_.way(W::floats(word & kMagnitude));
    return {(word >> 28 & sign_) - k, W::floats(W::bits(tree_.level(k)) ^ (word & kSignBit))};
  }

 private:
  static constexpr float kMiddles[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
  static constexpr TreeTables kTables = tree_tables<3>(kMiddles, E2M1::levels);
  Tree<A, 3, true> tree_;
  typename W::I sign_;
};

// 32 numbers at once, in bytes. The middles between levels, at which codes begin, have two bits of
// significand; so of a number its octave, these two bits, and whether anything is behind them suffice: eight
// steps an octave, the odd ones for what is above the even one. For numbers with a scale that is a power of
// two, normal ones where they reach a middle; no NaN.
template <class A>
class E2m1Octets {
 public:
  using W = Wide<A>;
  using Octets = typename W::Octets;

  // What is the same for all numbers: the last steps before 0.25, 0.75, 1.25, 1.75, 2.5, 3.5 and 5 count; at
  // every other middle the even code is the upper one.
  struct Middles {
    Octets last[7] = {W::kept(-16), W::kept(-5), W::kept(2), W::kept(5),
                      W::kept(10),  W::kept(13), W::kept(18)};
  };

  // Magnitudes of x, signs of `signs`. exponent: the field of the power of two that stands for 1.
  [[gnu::always_inline]] E2m1Octets(const Middles& middles, const typename W::F (&x)[kVectors<A>],
                                    const typename W::F (&signs)[kVectors<A>], std::int32_t exponent) {
    typename W::I steps[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const auto magnitude = W::bits(x[i]) & kMagnitude;
      steps[i] = (magnitude >> 21) + ((magnitude + 0x1f'ffff) >> 21);
    }
    const Octets at = W::octets(steps, static_cast<std::int16_t>(8 * exponent));
    const Octets sign = W::signs(signs);
    Octets below = {};  // minus the middles that are below
#pragma GCC unroll 7
    for (int i = 0; i < 7; ++i) below += at > middles.last[i];
    codes_ = ((sign < 0) & std::int8_t{8}) - below;
  }
  typename W::Bytes codes() const { return W::in_order(codes_); }
  // Their levels, in units of the scale.
  void levels(typename W::F (&out)[kVectors<A>]) const { W::pick16(kLevels, codes_, out); }

 private:
  static constexpr LevelTable<2> kLevels{E2M1::levels};
  Octets codes_;
};

template <class A>
class Nf4Lanes {
 public:
  using W = Wide<A>;
  explicit Nf4Lanes(float read) : tree_(kTables, W::all(1.0f), W::all(read)) {}
  typename E2m1Lanes<A>::Coded operator()(typename W::F x) const {
    const auto k = tree_.way(x);
    return {-k, tree_.level(k)};
  }

 private:
  static constexpr TreeTables kTables = tree_tables<4>(Nf4Levels::middles, Nf4Levels::levels);
  Tree<A, 4, false> tree_;
};

template <class A>
class BnbFp4Lanes {
 public:
  using W = Wide<A>;
  explicit BnbFp4Lanes(float read) : tree_(kTables, W::all(1.0f), W::all(read)) {}
  typename E2m1Lanes<A>::Coded operator()(typename W::F x) const {
    const auto word = W::bits(x);
    const auto k = tree_.way(W::floats(word & kMagnitude));
    const auto code = W::bits(W::pick8(W::load_eight(kCodes.words), k));
    return {code | (word >> 28 & 8 & (k != 0)), W::floats(W::bits(tree_.level(k)) ^ (word & kSignBit))};
  }

 private:
  // The magnitudes in ascending order, and the codes that they have.
  static constexpr struct Ascending {
    float levels[8] = {};
    float words[8] = {};  // integers, in the order of -k
    constexpr Ascending() {
      for (int i = 0; i < 8; ++i) {
        int below = 0;
        for (int j = 0; j < 8; ++j) below += BnbFp4Levels::levels[j] < BnbFp4Levels::levels[i];
        levels[below] = BnbFp4Levels::levels[i];
        words[-below & 7] = std::bit_cast<float>(i);
      }
    }
  } kCodes{};
  static constexpr TreeTables kTables = tree_tables<3>(BnbFp4Levels::middles, kCodes.levels);
  Tree<A, 3, false> tree_;
};

// What a book is to BookOctets: its thresholds, for magnitudes where signs are apart, and cells of 2^kShift
// steps of 2^-15, none of which has two of them.
struct Nf4Book {
  using Levels = Nf4Levels;
  static constexpr bool kSigns = false;
  static constexpr int kShift = 11, kFirst = -32768;
};
struct BnbFp4Book {
  using Levels = BnbFp4Levels;
  static constexpr bool kSigns = true;
  static constexpr int kShift = 10, kFirst = 0;
};

// A number for each of 32 cells, which are numbered from -16: as words in the order of the lowest bits of
// these numbers, and as bytes, of either sign sixteen, twice.
struct CellTable {
  using Table = std::int8_t[32];
  alignas(64) std::int16_t word[32] = {};
  alignas(32) Table low[2] = {}, high[2] = {};

  constexpr void set(int cell, int value) {
    word[cell ^ 16] = static_cast<std::int16_t>(value);
    for (int at = cell % 16; at < 32; at += 16) {
      low[cell / 16][at] = static_cast<std::int8_t>(value & 0xff);
      high[cell / 16][at] = static_cast<std::int8_t>(value >> 8);
    }
  }
};

// For each cell a threshold in steps and the code below it. Where a cell has none, one that all its steps are
// above, or below.
template <class Book>
struct Cells {
  CellTable threshold, code;
  alignas(32) CellTable::Table final_code = {};  // sixteen, twice

  // The nearest step; ties to even, as the processor converts.
  static constexpr int step_of(float x) {
    const double steps = static_cast<double>(x) * 32768;
    int below = static_cast<int>(steps);
    if (static_cast<double>(below) > steps) --below;
    const double rest = steps - below;
    return below + (rest > 0.5 || (rest == 0.5 && below % 2 != 0) ? 1 : 0);
  }
  constexpr Cells() {
    for (int cell = 0; cell < 32; ++cell) {
      const int begin = Book::kFirst + (cell << Book::kShift), end = begin + (1 << Book::kShift);
      int below = 0, inside = 0, found = 0;
      for (const float middle : Book::Levels::middles) {
        const int step = step_of(middle);
        below += step < begin;
        inside += step >= begin && step < end;
        if (step >= begin && step < end) found = step;
      }
      if (inside > 1) throw "a cell has two thresholds";  // does not compile
      if (inside == 0) found = cell == 0 ? end : begin - 1;
      threshold.set(cell, found);
      code.set(cell, inside == 0 && cell != 0 ? below - 1 : below);
    }
    int count = 0;  // of thresholds that a number in front of, between and behind them is above
    for (const float middle : Book::Levels::middles) set_final(count++, Book::Levels::encode(middle));
    set_final(count, Book::Levels::encode(1.0f));
  }

 private:
  constexpr void set_final(int at, int value) {
    final_code[at] = final_code[at + 16] = static_cast<std::int8_t>(value);
  }
};

// 32 numbers at once, in bytes. Rounded to steps of 2^-15 they keep their order; so steps tell on which side
// of a threshold a number is, but for those of the threshold's own step.
template <class A, class Book>
class BookOctets {
 public:
  using W = Wide<A>;
  using F = typename W::F;
  using Words = typename W::Words;
  using Octets = typename W::Octets;

  [[gnu::always_inline]] explicit BookOctets(const F (&x)[kVectors<A>]) {
    typename W::I steps[kVectors<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors<A>; ++i) {
      const F size = Book::kSigns ? W::floats(W::bits(x[i]) & kMagnitude) : x[i];
      // NaN stays, and becomes the least integer.
      steps[i] = W::nearest(W::least(W::all(32767.0f), size * W::all(32768.0f)));
    }
    Words step[W::kHalves], cell[W::kHalves], threshold[W::kHalves], above[W::kHalves], near = {};
    W::words(steps, step);
#pragma GCC unroll 2
    for (int i = 0; i < W::kHalves; ++i)
      cell[i] = (step[i] >> Book::kShift) - static_cast<std::int16_t>(Book::kFirst == 0 ? 16 : 0);
    W::pick32(kCells.threshold, cell, threshold);
#pragma GCC unroll 2
    for (int i = 0; i < W::kHalves; ++i) {
      above[i] = step[i] > threshold[i];
      near |= step[i] == threshold[i];
    }
    undecided_ = W::any(near);
    codes_ = W::pick32(kCells.code, cell) - W::octets(above);
    if constexpr (Book::kSigns)
      codes_ = W::pick16(kCells.final_code, codes_) | ((W::signs(x) < 0) & (codes_ > 0) & std::int8_t{8});
  }
  // Whether a number is too near to a threshold to be told from it; then codes mean nothing.
  bool undecided() const { return undecided_; }
  typename W::Bytes codes() const { return W::in_order(codes_); }
  void levels(F (&out)[kVectors<A>]) const { W::pick16(kLevels, codes_, out); }

 private:
  static constexpr Cells<Book> kCells{};
  static constexpr LevelTable<4> kLevels{Book::Levels::levels};
  Octets codes_;
  bool undecided_;
};

// --- numbers of eight bits

template <class A>
struct Int8Lanes {
  using W = Wide<A>;
  struct Coded {
    typename W::I code;
    typename W::F level;
  };
  static Coded coded(typename W::F x) {
    const auto code = W::nearest(W::least(W::most(x, W::all(-128.0f)), W::all(127.0f))) & (x == x);
    return {code, W::numbers(code)};
  }
};

// Adding 2^20 * 2^exponent, for magnitudes of 2^exponent .. and no less than 2^-6, leaves n = the magnitude
// in steps of its octave in the lowest bits, rounded to even; an octave is eight codes.
template <class A>
struct E4m3Lanes {
  using W = Wide<A>;
  using Coded = typename Int8Lanes<A>::Coded;
  static Coded coded(typename W::F x) {
    constexpr std::int32_t kLeast = (127 - 6) << 23, kUp = 20 << 23;
    const auto word = W::bits(x);
    const auto magnitude = W::least(W::floats(word & kMagnitude), W::all(448.0f));
    const auto shift = W::floats(W::most(W::bits(magnitude) & 0x7f80'0000, W::all(kLeast)) + kUp);
    const auto sum = magnitude + shift;
    const auto octave = W::bits(sum) >> 20;  // its exponent, times eight
    const auto code = (W::bits(sum) + octave - ((kLeast + kUp) >> 20)) & 0x7f;
    return {code | ((x != x) & 0x7f) | (word >> 24 & 0x80),
            W::floats(W::bits(sum - shift) | (word & kSignBit) | ((x != x) & kMagnitude))};
  }
};

// --- numbers of sixteen bits

template <class A>
struct Bf16Lanes {
  using W = Wide<A>;
  using Code = typename W::I;
  static Code load(const std::byte* from) { return W::load_words(from); }
  static Code code(typename W::F x) {
    const auto word = W::bits(x);
    const auto rounded = typename W::U(word) + 0x7fff + (typename W::U(word) >> 16 & 1);  // NaN goes around
    return W::bits(W::choose(x != x, W::floats(word | 0x40'0000), typename W::F(rounded))) >> 16 & 0xffff;
  }
  static typename W::F back(Code code) { return W::floats(code << 16); }
};

template <class A>
struct F16Lanes {
  using W = Wide<A>;
  using Code = typename W::Half;
  static Code load(const std::byte* from) { return W::load_half(from); }
  static Code code(typename W::F x) {
    const auto nan = (W::bits(x) & kSignBit) | 0x7fc0'0000;
    return W::to_f16(W::choose(x != x, W::floats(nan), x));
  }
  static typename W::F back(Code code) { return W::from_f16(code); }
};

// --- how formats with shared scales put values into units, and levels back

template <class A>
struct ByFactor {  // of int8 and FP8: usable where it can be divided by
  static bool usable(float scale) {
    return (std::bit_cast<std::uint32_t>(scale) & kMagnitude) - 1u < kInfinity - 1u;
  }
  static float of(float scale) { return scale; }
  static typename Wide<A>::F units(typename Wide<A>::F x, typename Wide<A>::F of) { return x / of; }
  static typename Wide<A>::F back(typename Wide<A>::F level, typename Wide<A>::F scale) {
    return level * scale;
  }
};
template <class A>
struct ByAbsmax {  // of bitsandbytes' 4 bits
  static bool usable(float scale) { return (std::bit_cast<std::uint32_t>(scale) & kMagnitude) < kInfinity; }
  static float of(float scale) { return 1.0f / (scale > 1e-38f ? scale : 1e-38f); }
  static typename Wide<A>::F units(typename Wide<A>::F x, typename Wide<A>::F of) { return x * of; }
};
template <class A>
struct ByAbsmaxOf127 : ByFactor<A> {
  static float of(float scale) { return 127.0f / scale; }
  static typename Wide<A>::F units(typename Wide<A>::F x, typename Wide<A>::F of) { return x * of; }
  static typename Wide<A>::F back(typename Wide<A>::F level, typename Wide<A>::F scale) {
    return level * scale * (1.0f / 127.0f);
  }
};

// Values without a usable scale are zeros.
template <class A, class By>
class Units {
 public:
  using W = Wide<A>;
  explicit Units(float scale) : of_(W::all(By::of(scale))), keep_(W::all(By::usable(scale) ? -1 : 0)) {}
  typename W::F operator()(typename W::F x) const { return W::floats(W::bits(By::units(x, of_)) & keep_); }

 private:
  typename W::F of_;
  typename W::I keep_;
};

}  // namespace nib::inline v0::cpu
