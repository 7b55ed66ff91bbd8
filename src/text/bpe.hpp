// Byte pair encoding of one word, whatever it begins with: the tokens of its bytes, or of its characters.
// Private to the room.
#pragma once

#include "pair_table.hpp"
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// The rule: while any two neighbours are a merge, the merge of lowest rank is done, the leftmost on ties.
class Bpe {
 public:
  struct Merge {
    std::uint32_t rank;
    Token result;
  };

  // A token of a long word in the making, at the place of the first of those it was made of, and of how many
  // it was made. The last of their places says so too, for its neighbour to the right.
  struct Symbol {
    Token token;
    std::uint32_t length;
  };
  class Queue;
  // The room that long words need, kept from word to word: at most 104 bytes for each token of the longest.
  struct Scratch {
    Scratch();
    ~Scratch();
    std::vector<Symbol> symbols;
    std::unique_ptr<Queue> queue;
  };

  explicit Bpe(PairTable<Merge> merges = PairTable<Merge>()) : merges_(std::move(merges)) {}

  // Appends what merges make of `word`, in n log n of its length.
  void encode(std::span<const Token> word, Scratch& scratch, std::vector<Token>& out) const;

 private:
  void encode_short(std::span<const Token> word, std::vector<Token>& out) const;
  void encode_long(std::span<const Token> word, Scratch& scratch, std::vector<Token>& out) const;

  PairTable<Merge> merges_;
};

}  // namespace nib::inline v0
