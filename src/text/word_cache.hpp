// What words of a text became, for when they come again. Private to the room.
#pragma once

#include "string_table.hpp"
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// Most words of a text came before in it, and their tokens still stand in its output: it is enough to know
// where. A word has one place in the table, and takes it from whoever is there: memory is bounded, and
// nothing is searched for.
class WordCache {
 public:
  static constexpr std::size_t kLongest = 31;  // longer words hardly come again

  // For an output to which nothing is done but appending.
  explicit WordCache(std::size_t text_size)
      : slots_(std::bit_ceil(std::clamp<std::size_t>(text_size / kBytesPerSlot, 1, kMostSlots))) {}

  // A word of at most kLongest bytes; `behind`: what may be read from its first byte on.
  struct Key {
    std::array<std::uint64_t, 4> words{};  // its bytes, zeros, and its length in the last byte
    bool operator==(const Key&) const = default;
  };
  static Key key_of(std::string_view word, std::size_t behind) {
    Key key;
    if (behind >= sizeof key.words) {
      // Bytes that are the word's: 0xff, then zeros.
      static constexpr auto kMasks = [] {
        std::array<unsigned char, 2 * sizeof key.words> masks{};
        std::fill(masks.begin(), masks.begin() + sizeof key.words, static_cast<unsigned char>(0xff));
        return masks;
      }();
      std::array<std::uint64_t, 4> mask;
      std::memcpy(key.words.data(), word.data(), sizeof key.words);
      std::memcpy(mask.data(), kMasks.data() + sizeof key.words - word.size(), sizeof mask);
      for (std::size_t i = 0; i < mask.size(); ++i) key.words[i] &= mask[i];
    } else {
      std::memcpy(key.words.data(), word.data(), word.size());
    }
    const auto length = static_cast<unsigned char>(word.size());
    std::memcpy(reinterpret_cast<unsigned char*>(key.words.data()) + kLongest, &length, 1);
    return key;
  }

  // Where in the output the tokens of a word are.
  struct Slot {
    Key key;
    std::size_t begin = 0, count = 0;
  };
  // The one of that word, or of the word that gives its place to it.
  Slot& slot(const Key& key) {
    const auto& w = key.words;
    const std::uint64_t hash = w[0] ^ std::rotl(w[1], 17) ^ std::rotl(w[2], 31) ^ std::rotl(w[3], 47);
    return slots_[mix_bits(hash) & (slots_.size() - 1)];
  }

 private:
  static constexpr std::size_t kBytesPerSlot = 8, kMostSlots = 4096;  // 192 KiB
  std::vector<Slot> slots_;
};

}  // namespace nib::inline v0
