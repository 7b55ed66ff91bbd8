// What is behind Tokenizer. Private to the room.
#pragma once

#include "added_tokens.hpp"
#include "bpe.hpp"
#include "splitter.hpp"
#include "string_table.hpp"
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct Tokenizer::Tables {
  StringTable tokens;  // bytes by id; those that words are made of can be found
  Bpe bpe;
  std::array<Token, 256> byte_tokens{};  // of byte_level; of sentencepiece those for bytes that no token has
  bool all_bytes = true;                 // else only those that UTF-8 has
  std::string_view split_name;           // of the pattern; empty for characters
  SplitFn next_word = nullptr;           // the length of the first word of a text that is not empty
  bool characters = false;               // words begin as characters (sentencepiece), else as bytes
  bool whole_words = false;  // a word that is a token is that token, merges or not (ignore_merges)
  bool nfc = false;
  TokenizerData::Prefix prefix = TokenizerData::Prefix::none;
  bool prefix_before_space = false, strip_prefix = false;
  AddedTokens before;                     // found in the raw text
  AddedTokens after_normalizer;           // found in what is left, once it is normalized
  AddedTokens specials_after_normalizer;  // those of them that are special
  std::vector<bool> special;              // by id
  StringTable special_contents;           // and, at the same place,
  std::vector<Token> special_ids;         // the ids
  std::vector<Token> opening, closing;

  bool lossless() const { return !nfc && !characters && all_bytes; }
  // Appends the token of a byte. A byte that is in no UTF-8 and has none becomes U+FFFD, byte by byte.
  void start_byte(char byte, std::vector<Token>& out) const {
    const Token id = byte_tokens[static_cast<unsigned char>(byte)];
    if (id != StringTable::kNone)
      out.push_back(id);
    else
      for (const std::size_t part : {0xefu, 0xbfu, 0xbdu}) out.push_back(byte_tokens[part]);
  }
  // Replaces `out` by the normalized `text`: form C, or SentencePiece's spaces.
  void normalize(std::string_view text, bool first_piece, std::string& out) const;
};

// Checks `data` and takes what encoding needs; see Tokenizer::from.
Result<std::unique_ptr<Tokenizer::Tables>> make_tokenizer_tables(const TokenizerData& data,
                                                                 std::string_view name);

// The bytes that `spelling` stands for in the byte alphabet of GPT-2; false when a character is not in it.
bool spelled_bytes(std::string_view spelling, std::string& out);

}  // namespace nib::inline v0
