// What is behind Tokenizer. Private to the room.
#pragma once

#include "bpe.hpp"
#include "splitter.hpp"
#include <nibble/text/tokenizer.hpp>

#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct Tokenizer::Tables {
  Bpe bpe;
  SplitFn next_word = nullptr;
  std::vector<bool> special;      // by id
  std::vector<Token> always;      // added tokens that are not special: matched in every text; sorted by bytes
  std::vector<Token> recognised;  // all added tokens; sorted by bytes
  std::vector<bool> first_always, first_recognised;  // [256] bytes that such a token begins with
};

// Reads a tokenizer.json; see Tokenizer::from_json.
Result<std::unique_ptr<Tokenizer::Tables>> read_tokenizer_tables(std::string_view json, std::string_view name,
                                                                 std::span<const Tokenizer::Extra> extra);

}  // namespace nib::inline v0
