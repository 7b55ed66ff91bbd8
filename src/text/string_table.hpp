// Strings numbered in the order of their arrival, in one block of bytes, found again by hash. Private to the
// room.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// A 64-bit mix, good enough in its low bits for tables of a power of two.
inline std::uint64_t mix_bits(std::uint64_t x) {
  x *= 0x9fb21c651e98df25u;
  x ^= x >> 35;
  x *= 0x9fb21c651e98df25u;
  return x ^ (x >> 28);
}

inline std::uint64_t hash_bytes(std::string_view text) {
  std::uint64_t hash = text.size() * 0x9e3779b97f4a7c15u, word = 0;
  for (; text.size() > 8; text.remove_prefix(8)) {
    std::memcpy(&word, text.data(), 8);
    hash = mix_bits(hash ^ word);
  }
  word = 0;
  if (!text.empty()) std::memcpy(&word, text.data(), text.size());
  return mix_bits(hash ^ word);
}

class StringTable {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  std::uint32_t size() const { return static_cast<std::uint32_t>(ends_.size() - 1); }
  std::size_t longest() const { return longest_; }  // of the strings that can be found

  std::string_view at(std::uint32_t index) const {
    return {bytes_.data() + ends_[index], ends_[index + 1] - ends_[index]};
  }

  // Its number, or kNone.
  std::uint32_t find(std::string_view text) const {
    return slots_.empty() ? kNone : slots_[place(text, hash_bytes(text))].index;
  }

  // Its number, a new one when it is not here yet. The texts together must stay below 4 GiB.
  std::uint32_t intern(std::string_view text) {
    if (slots_.size() < 2 * (found_ + 1)) grow();
    const std::uint64_t hash = hash_bytes(text);
    Slot& slot = slots_[place(text, hash)];
    if (slot.index == kNone) {
      slot = {tag(hash), append(text)};
      ++found_;
      if (text.size() > longest_) longest_ = text.size();
    }
    return slot.index;
  }

  // Takes the next number without being found by find().
  std::uint32_t append(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    return size() - 1;
  }

  // Room for so many, so that nothing grows while they arrive.
  void reserve(std::size_t strings, std::size_t bytes) {
    ends_.reserve(strings + 1);
    bytes_.reserve(bytes);
    while (slots_.size() < 2 * strings) grow();
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;  // the upper half of the hash: most strangers are told apart without reading them
    std::uint32_t index = kNone;
  };
  static std::uint32_t tag(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }

  // Where it is, or the empty slot where it would be.
  std::size_t place(std::string_view text, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = hash & mask;
    while (slots_[i].index != kNone && (slots_[i].tag != tag(hash) || at(slots_[i].index) != text))
      i = (i + 1) & mask;
    return i;
  }

  void grow() {
    std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.index == kNone) continue;
      const std::string_view text = at(slot.index);
      slots_[place(text, hash_bytes(text))] = slot;
    }
  }

  std::vector<char> bytes_;
  std::vector<std::uint32_t> ends_ = {0};
  std::vector<Slot> slots_;  // linear probing, at most half full
  std::size_t found_ = 0, longest_ = 0;
};

}  // namespace nib::inline v0
