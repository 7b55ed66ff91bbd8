// What is behind Tokenizer. Private to the room.
#pragma once

#include "added_tokens.hpp"
#include "bpe.hpp"
#include "splitter.hpp"
#include "string_table.hpp"
#include <nibble/text/tokenizer.hpp>

#include <span>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct Tokenizer::Tables {
  StringTable tokens;  // bytes by id; those that a word may be as a whole can be found
  Bpe bpe;
  const SplitPattern* pattern = nullptr;
  bool whole_words = false;  // a word that is a token is that token, merges or not (ignore_merges)
  AddedTokens before;        // found in the raw text
  AddedTokens
      after_normalizer;       // found in what is left, which would be normalized first if nibble normalized
  std::vector<bool> special;  // by id
  StringTable special_contents;    // and, at the same place,
  std::vector<Token> special_ids;  // the ids
};

// Reads a tokenizer.json; see Tokenizer::from_json.
Result<std::unique_ptr<Tokenizer::Tables>> read_tokenizer_tables(std::string_view json, std::string_view name,
                                                                 std::span<const Tokenizer::Extra> extra);

}  // namespace nib::inline v0
