// Byte pair encoding of one word. Private to the room.
#pragma once

#include "pair_table.hpp"
#include <nibble/text/tokenizer.hpp>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// The rule: a word is the tokens of its bytes; while any two neighbours are a merge, the merge of lowest rank
// is done, the leftmost on ties.
class Bpe {
 public:
  struct Merge {
    std::uint32_t rank;  // its place in the file
    Token result;
  };

  // A token of a long word in the making. Links are places in `symbols`: a token's place is the byte it
  // begins with.
  struct Symbol {
    Token token;
    std::uint32_t previous, next;
    std::uint32_t rank;  // of the merge with the next one
  };
  // The room that long words need, kept from word to word: at most 48 bytes for each byte of the longest.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> queue;  // a heap of rank << 32 | place: lowest rank first, then leftmost
  };

  // No word may be longer.
  static constexpr std::size_t kLongestWord = 0xffff'fffe;

  Bpe() = default;
  // `byte_tokens`: the token of each byte value.
  Bpe(const std::array<Token, 256>& byte_tokens, PairTable<Merge> merges)
      : byte_tokens_(byte_tokens), merges_(std::move(merges)) {}

  // Appends the tokens of `word`, in n log n of its length.
  void encode(std::string_view word, Scratch& scratch, std::vector<Token>& out) const;

 private:
  void encode_short(std::string_view word, std::vector<Token>& out) const;
  void encode_long(std::string_view word, Scratch& scratch, std::vector<Token>& out) const;

  std::array<Token, 256> byte_tokens_{};
  PairTable<Merge> merges_;
};

}  // namespace nib::inline v0
