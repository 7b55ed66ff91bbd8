// Added tokens: spellings that are found in the raw text before anything else happens to it. Private to the
// room.
#pragma once

#include "pair_table.hpp"
#include <nibble/text/range.hpp>
#include <nibble/text/tokenizer.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// Finds spellings in a text, leftmost first, the longest of those that begin there, in time linear in the
// text whatever the spellings are: an Aho-Corasick automaton over the reversed spellings reads the text
// backwards. What it has just read at a place is then the longest spelling that begins there.
class AddedTokens {
 public:
  struct Spelling {
    std::string_view content;  // not empty
    Token id;
    bool special;
  };
  struct Match {
    std::size_t begin, size;
    Token id;
  };

  explicit AddedTokens(std::span<const Spelling> spellings = {});

  // Replaces `out` by the tokens in `text` in its order: all of them, or only those that are not special.
  void find(std::string_view text, Specials specials, std::vector<Match>& out) const;
  // Special ones only where they lie whole in one of `own`: parts, in order, of a text of which this one
  // begins at `offset`.
  void find(std::string_view text, std::size_t offset, std::span<const TextRange> own,
            std::vector<Match>& out) const;

 private:
  struct Ending {
    std::uint32_t size = 0;  // 0: none
    Token id = 0;
  };
  struct Node {
    std::uint32_t fallback = 0;  // the node of the longest proper suffix of this node's path
    Ending all, ordinary;  // the longest spelling that the path, read back, begins with; of those not special
  };
  std::uint32_t step(std::uint32_t node, unsigned char byte) const;
  // `ending_at(node, at)`: the Ending that counts at a place.
  template <class EndingAt>
  void find_each(std::string_view text, EndingAt ending_at, std::vector<Match>& out) const;

  std::vector<Node> nodes_ = {{}};     // the first is the root
  PairTable<std::uint32_t> children_;  // (node, byte) -> node
  std::array<bool, 256> starts_{};     // bytes that lead away from the root: most of a text never leaves it
};

}  // namespace nib::inline v0
