// What a Hugging Face tokenizer.json says, read in one pass and not yet believed. Private to the room.
#pragma once

#include "string_table.hpp"
#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

struct TokenizerFile {
  static constexpr Token kNoId = ~Token{0};

  struct Added {
    Token id = kNoId;
    std::string content;
    bool special = false, normalized = true, single_word = false, lstrip = false, rstrip = false;
  };

  StringTable spellings;   // of the vocabulary and of merges, as the file spells them
  std::vector<Token> ids;  // of each spelling; kNoId for one that only merges mention
  std::vector<std::pair<std::uint32_t, std::uint32_t>> merges;  // spellings, in the order of the file
  std::vector<Added> added;
  Json settings;  // all the rest; null stands where vocab, merges and added tokens were

  // The spelling's id, or kNoId.
  Token id_of(std::string_view spelling) const {
    const std::uint32_t index = spellings.find(spelling);
    return index == StringTable::kNone ? kNoId : ids[index];
  }
};

// Errors: format, naming file and place.
Result<TokenizerFile> read_tokenizer_file(std::string_view json, std::string_view name);

// `text` in quotation marks, cut at a character when it is longer than `longest` bytes: how a message shows
// what the file says.
std::string quoted(std::string_view text, std::size_t longest = 100);

}  // namespace nib::inline v0
