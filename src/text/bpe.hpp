// Byte-level BPE over flat tables. Private to the room.
#pragma once

#include <nibble/text/tokenizer.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// The bytes of all tokens in one block, and ids by bytes. Immutable once filled.
class Vocabulary {
 public:
  static constexpr Token kNone = 0xffff'ffffu;
  // False when the id is taken or too large.
  bool add(Token id, std::string_view bytes);
  // Ids by bytes become findable; the first id wins where two spell alike.
  void index();

  std::string_view bytes(Token id) const {
    return id < places_.size() ? std::string_view(block_).substr(places_[id].offset, places_[id].size)
                               : std::string_view();
  }
  bool has(Token id) const { return id < places_.size() && places_[id].used; }
  Token find(std::string_view bytes) const;
  std::size_t size() const { return places_.size(); }

 private:
  struct Place {
    std::uint32_t offset = 0;
    std::uint32_t size : 31 = 0;
    std::uint32_t used : 1 = 0;
  };
  std::string block_;
  std::vector<Place> places_;
  std::vector<Token> slots_;  // open addressing, a power of two
};

// What two neighbours become, and how early.
struct Merge {
  std::uint32_t rank;
  Token result;
};

// (left, right) -> Merge in one open-addressing table.
class MergeTable {
 public:
  void reserve(std::size_t count);
  // The first of two equal pairs stays.
  void add(Token left, Token right, Merge merge);
  const Merge* find(Token left, Token right) const {
    for (std::size_t i = hash(left, right);; ++i) {
      const Slot& slot = slots_[i & mask_];
      if (slot.left == left && slot.right == right) return &slot.merge;
      if (slot.left == Vocabulary::kNone) return nullptr;
    }
  }

 private:
  struct Slot {
    Token left = Vocabulary::kNone, right = 0;
    Merge merge{};
  };
  std::size_t hash(Token left, Token right) const {
    const std::uint64_t key = (std::uint64_t{left} << 32 | right) * 0x9e37'79b9'7f4a'7c15u;
    return static_cast<std::size_t>(key >> shift_);
  }
  std::vector<Slot> slots_{Slot{}, Slot{}};
  std::size_t mask_ = 1;
  int shift_ = 63;
};

// Scratch of one encode: grows to the longest word (36 bytes for each of its bytes), reused between words.
class BpeScratch;

// Appends the ids of one word: repeatedly merges the neighbours of lowest rank, leftmost on ties.
class Bpe {
 public:
  Vocabulary vocabulary;
  MergeTable merges;
  std::array<Token, 256> byte_tokens{};  // kNone where the vocabulary lacks a byte
  bool whole_words_first = false;        // a word that is a token is not merged (ignore_merges)

  void encode(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const;

 private:
  void merge_short(std::string_view word, std::vector<Token>& out) const;
  void merge_long(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const;
};

class BpeScratch {
  friend class Bpe;
  struct Symbol {
    Token id;
    std::uint32_t previous, next;
  };
  struct Candidate {
    std::uint32_t rank, at;
    Token left, right;  // what stood there when it was found: stale otherwise
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

}  // namespace nib::inline v0
