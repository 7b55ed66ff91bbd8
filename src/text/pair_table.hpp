// Values found by a pair of numbers; open addressing. Private to the room.
#pragma once

#include "string_table.hpp"

#include <bit>
#include <cstdint>
#include <vector>

namespace nib::inline v0 {

template <class Value>
class PairTable {
 public:
  // For at most `count` pairs.
  explicit PairTable(std::size_t count = 0)
      : keys_(std::bit_ceil(count + count / 2 + 2), kEmpty), values_(keys_.size()) {}

  // The value of (a, b), or null. Keys lie apart from the values: most questions are answered with no, and
  // eight keys share a cache line.
  const Value* find(std::uint32_t a, std::uint32_t b) const {
    const std::size_t i = place(key_of(a, b));
    return keys_[i] == kEmpty ? nullptr : &values_[i];
  }

  // The value of (a, b), made if there was none. The pair of the two largest numbers is none.
  Value& at(std::uint32_t a, std::uint32_t b) {
    const std::size_t i = place(key_of(a, b));
    keys_[i] = key_of(a, b);
    return values_[i];
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  static std::uint64_t key_of(std::uint32_t a, std::uint32_t b) { return std::uint64_t{a} << 32 | b; }
  std::size_t place(std::uint64_t key) const {
    const std::size_t mask = keys_.size() - 1;
    std::size_t i = mix_bits(key) & mask;
    while (keys_[i] != kEmpty && keys_[i] != key) i = (i + 1) & mask;
    return i;
  }

  std::vector<std::uint64_t> keys_;
  std::vector<Value> values_;
};

}  // namespace nib::inline v0
