// Values found by a pair of numbers; open addressing. Private to the room.
#pragma once

#include "string_table.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace nib::inline v0 {

template <class Value>
class PairTable {
 public:
  // For at most `count` pairs.
  explicit PairTable(std::size_t count = 0)
      : slots_(std::bit_ceil(count + count / 2 + 2)),
        filter_(std::max<std::size_t>(slots_.size() * kFilterBits / 64, 1)) {}

  // The value of (a, b), or null. Most questions are answered with no, and most of those by the filter, which
  // is small enough to stay near the processor.
  const Value* find(std::uint32_t a, std::uint32_t b) const {
    const std::uint64_t key = key_of(a, b), hash = mix_bits(key);
    if ((filter_[filter_word(hash)] & filter_bit(hash)) == 0) return nullptr;
    const Slot& slot = slots_[place(key, hash)];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

  // The value of (a, b), made if there was none. The pair of the two largest numbers is none.
  Value& at(std::uint32_t a, std::uint32_t b) {
    const std::uint64_t key = key_of(a, b), hash = mix_bits(key);
    filter_[filter_word(hash)] |= filter_bit(hash);
    Slot& slot = slots_[place(key, hash)];
    slot.key = key;
    return slot.value;
  }

 private:
  struct Slot {
    std::uint64_t key = kEmpty;
    Value value{};
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  static constexpr std::size_t kFilterBits = 4;  // of a slot: eight of a pair, or about that

  static std::uint64_t key_of(std::uint32_t a, std::uint32_t b) { return std::uint64_t{a} << 32 | b; }
  std::size_t place(std::uint64_t key, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = hash & mask;
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  // The upper half of the hash: the lower one says the slot.
  std::size_t filter_word(std::uint64_t hash) const { return (hash >> 38) & (filter_.size() - 1); }
  static std::uint64_t filter_bit(std::uint64_t hash) { return std::uint64_t{1} << (hash >> 32 & 63); }

  std::vector<Slot> slots_;
  std::vector<std::uint64_t> filter_;  // a bit for each pair that there is, and some for others
};

}  // namespace nib::inline v0
