// Room formats: rounding: which of the two levels around a value its code stands for.
//
//   RoundNearest      the nearer one, by the element's own rule for ties: even, but for code books
//   RoundStochastic   the upper one with the probability (x - lower) / (upper - lower), so that the mean of
//   many
//                     roundings is the value itself. The draw is a function of the seed and of the value's
//                     place in its tensor: neither threads nor pieces can change it
//
// A rounding is a type with encode<Element>(x, i) -> Element::Code for value i of a group, x in units of its
// scale, and at(position), itself for a group that begins there. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

struct RoundNearest {
  template <class Element>
  constexpr typename Element::Code encode(float x, int) const {
    return Element::encode(x);
  }
  constexpr RoundNearest at(std::int64_t) const { return {}; }
};

// The finite levels of an element in ascending order, each once: of equal levels (the zeros) the lowest code.
template <class Element>
struct SortedLevels {
  static_assert(Element::bits <= 8);
  static constexpr int codes = 1 << Element::bits;
  float level[codes] = {};
  typename Element::Code code[codes] = {};
  int count = 0;

  constexpr SortedLevels() {
    for (int c = 0; c < codes; ++c) {
      const auto as_code = static_cast<typename Element::Code>(c);
      const float value = Element::decode(as_code);
      if (!(value - value == 0)) continue;
      int place = 0;
      while (place < count && level[place] < value) ++place;
      if (place < count && level[place] == value) continue;
      for (int i = count++; i > place; --i) {
        level[i] = level[i - 1];
        code[i] = code[i - 1];
      }
      level[place] = value;
      code[place] = as_code;
    }
  }
};
template <class Element>
inline constexpr SortedLevels<Element> kSortedLevels{};

struct RoundStochastic {
  std::uint64_t seed = 0;
  std::int64_t position = 0;  // of the group's first value in the tensor

  constexpr RoundStochastic at(std::int64_t place) const { return {seed, place}; }

  // Beyond the outermost levels there is nothing to draw: those. NaN is rounded as RoundNearest does.
  template <class Element>
  constexpr typename Element::Code encode(float x, int i) const {
    const auto& levels = kSortedLevels<Element>;
    if (x != x) return Element::encode(x);
    int low = 0, high = levels.count - 1;
    if (x <= levels.level[low]) return levels.code[low];
    if (x >= levels.level[high]) return levels.code[high];
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (levels.level[middle] <= x ? low : high) = middle;
    }
    const double below = levels.level[low], above = levels.level[high];
    const double share = (static_cast<double>(x) - below) / (above - below);
    return levels.code[uniform(static_cast<std::uint64_t>(position + i)) < share ? high : low];
  }

  // In [0, 1), 53 bits: two rounds of mixing of seed and place (the finalizer of splitmix64).
  constexpr double uniform(std::uint64_t place) const {
    return static_cast<double>(mix(mix(seed) + place) >> 11) * 0x1p-53;
  }

 private:
  static constexpr std::uint64_t mix(std::uint64_t z) {
    z += 0x9e37'79b9'7f4a'7c15u;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9u;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11ebu;
    return z ^ (z >> 31);
  }
};

}  // namespace nib::inline v0
