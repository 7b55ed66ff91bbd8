// Room text: TokenizerData: what a vocabulary says, whatever kind of file said it. Readers fill it in,
// Tokenizer::from checks it and takes what it needs.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

struct TokenizerData {
  // No id is larger, since tables by id are sized by the largest. (Published vocabularies have up to 262,144
  // tokens.)
  static constexpr Token kLargestId = (1u << 20) - 1;

  enum class Model : std::uint8_t {
    byte_level,    // byte pairs; tokens are spelled in the byte alphabet of GPT-2
    sentencepiece  // pairs of characters; "▁" is a space, <0x00> to <0xFF> are bytes that no token has
  };
  // Where SentencePiece puts a space that the text does not have. A piece is what lies between added tokens.
  enum class Prefix : std::uint8_t { none, first_piece, every_piece };

  // Found in the text before anything else happens to it, or, when `normalized`, in the normalized text.
  // Stands for what it says, in no alphabet.
  struct Added {
    Token id;
    std::string content;
    bool special = true, normalized = false;
  };
  // Lowest rank first, the leftmost of equal ones. What `result` spells is what the two spell, together.
  struct Merge {
    Token left, right, result;
    std::uint32_t rank;
  };

  Model model = Model::byte_level;
  std::vector<std::string> tokens;  // by id, as the model spells them; empty: no token
  std::vector<Added> added;
  std::vector<Merge> merges;
  bool nfc = false;                     // text is brought to Unicode's normalization form C first
  bool whole_words = false;             // a word that is a token is that token, merges or not (ignore_merges)
  std::vector<Token> opening, closing;  // ids around a whole text: BOS and EOS, where the model wants them

  // Of byte_level: the published pattern by which text is cut into words, by its exact text.
  std::string split;

  // Of sentencepiece:
  Prefix prefix = Prefix::every_piece;
  bool prefix_before_space = true;  // also where a piece begins with a space
  bool split_spaces = false;        // each space begins a word: no token has two
  bool strip_prefix = true;         // decoding a whole text drops a space at its beginning
};

// The keys tokenizer.ggml.* of a GGUF file, as they are spelled there.
struct GgufVocabulary {
  std::string model;                // gpt2, llama
  std::string pre;                  // the name of a pre-tokenizer; the architecture, where the file has none
  std::vector<std::string> tokens;  // by id
  std::vector<std::int32_t> token_type;  // by id; empty: all are normal
  std::vector<float> scores;             // of llama: by id
  std::vector<std::string> merges;       // of gpt2: "a b"
  std::optional<Token> bos_token_id, eos_token_id;
  std::optional<bool> add_bos_token, add_eos_token, add_space_prefix;
};

// From the text of a Hugging Face tokenizer.json: byte-level BPE split by a published pattern, and
// SentencePiece's BPE with byte fallback. Errors: as Tokenizer::from_json.
Result<TokenizerData> tokenizer_data_from_json(std::string_view json, std::string_view name,
                                               std::span<const Tokenizer::Extra> extra = {});

// The same from GGUF. `name` is the file's, for messages. Errors: format (a list is missing or too short, an
// id lies outside the tokens; the message names the key), unsupported (a model or a pre-tokenizer that nibble
// does not know, by name), memory.
Result<TokenizerData> tokenizer_data_from_gguf(const GgufVocabulary& vocabulary, std::string_view name);

// The other way round: the keys that say what `data` says. A GGUF file has as many tokens as its model has
// rows of embeddings: ids from the last token up to `rows`, and those that mean nothing, become unused ones.
// The end of a text is not among what TokenizerData knows: eos_token_id is set only where `data` adds one.
// What comes out was read back: it cuts the spelling of each token as `data` does. `name` is the tokenizer's,
// for messages. Errors: unsupported (something that no key says: a pattern without a name, a space in other
// places, several ids before a text), argument (more tokens than rows), memory. Any thread.
Result<GgufVocabulary> gguf_vocabulary_of(const TokenizerData& data, std::size_t rows, std::string_view name);

// The text of a tokenizer.json that says what `data` says, for tokenizer_data_from_json and for the
// tokenizers package. Added tokens are in model.vocab too, so that nobody numbers them anew; ids without a
// spelling are left out. What comes out was read back: every token is what it was, and its spelling is cut as
// before. (A list of merges has no equal ranks. Where `data` has some, as SentencePiece's scores may be,
// texts are conceivable that are cut otherwise.) `name` is the tokenizer's, for messages. Errors: unsupported
// (two tokens of one spelling, one that is no UTF-8), those of Tokenizer::from. Any thread.
Result<std::string> tokenizer_json_of(const TokenizerData& data, std::string_view name);

}  // namespace nib::inline v0
