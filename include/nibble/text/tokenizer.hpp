// Room text: Tokenizer: text to ids and back. Immutable after construction; every const function may be
// called from any number of threads.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/range.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

using Token = std::uint32_t;
struct TokenizerData;  // tokenizer_data.hpp

// Whether spellings of special tokens in a text (<|start|>) become those tokens or stay ordinary bytes.
enum class Specials : std::uint8_t { ordinary, recognised };

class Tokenizer {
 public:
  // A special token given from outside the file (names of reserved ids that tokenizer.json leaves out). An id
  // that the file has keeps the file's name, and the extra one is not there.
  struct Extra {
    std::string content;
    Token id;
  };

  // From the text of a Hugging Face tokenizer.json: byte-level BPE, split by the pattern of o200k, Llama 3
  // (cl100k), Qwen 2, Tekken or GPT-2, and SentencePiece's BPE with byte fallback. `name` is used in
  // messages. Ids go up to 2^20 - 1, the file to 256 MiB. Errors: format (a key is missing or wrong, the file
  // contradicts itself; the message names the place), unsupported (a normalizer, pre-tokenizer, model or kind
  // of added token that nibble does not know, by name), argument (an extra token without a spelling, or with
  // an id too large), memory.
  static Result<Tokenizer> from_json(std::string_view json, std::string_view name,
                                     std::span<const Extra> extra = {});

  // From what a reader of any kind of file found. Errors: format (it contradicts itself), unsupported (a
  // split pattern that nibble does not know), memory.
  static Result<Tokenizer> from(const TokenizerData& data, std::string_view name);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the ids of `text` (any bytes; invalid UTF-8 is encoded byte by byte as it stands, each such byte
  // counting as a symbol where words are split). opening() and closing() are not added. Added tokens that are
  // not special are found in either case. Time is linear in the text, and n log n in the length of a word,
  // whatever the text; memory is at most 100 bytes for each byte of the longest word, 24 for each added token
  // found, where the text is normalized 16 for each byte of it, and 256 KiB. Errors: argument (a text of 1
  // GiB), memory; `out` is then as it was.
  Status encode(std::string_view text, Specials specials, std::vector<Token>& out) const;

  // The same for a text of two origins, such as a rendered chat template: special tokens are recognised where
  // they lie whole in one of the parts `own`, and nowhere else; a spelling that only somebody else's words
  // complete stays text. `own` is in order, without overlaps. Errors: argument also when it is not.
  Status encode(std::string_view text, std::span<const TextRange> own, std::vector<Token>& out) const;

  // The ids that the model wants before and behind a whole text: BOS, EOS, or none.
  std::span<const Token> opening() const;
  std::span<const Token> closing() const;
  // Whether the bytes of the tokens of any text are that text: no normalizer changes it, no space is put
  // before it, and every byte has a token. (Where one has none, which can only be a byte that UTF-8 does not
  // have, it is encoded as U+FFFD.)
  bool lossless() const;

  // The bytes of one token (not necessarily whole characters); special tokens give their spelling. Empty for
  // an id that the vocabulary does not have. Borrowed: lives as long as the tokenizer.
  std::string_view bytes(Token id) const;
  bool is_special(Token id) const;
  // The special token spelled so.
  std::optional<Token> find_special(std::string_view content) const;
  // One more than the largest id.
  std::size_t size() const;
  // What kind it is, for people: "byte-level BPE, split as o200k", "SentencePiece BPE".
  std::string kind() const;

  // All ids of a text, as UTF-8: bytes that are none become U+FFFD as in StreamDecoder. Special tokens are
  // spelled out when `specials` is recognised and left out when it is ordinary. The space that
  // SentencePiece's models put before a text is dropped.
  std::string decode(std::span<const Token> ids, Specials specials) const;

  struct Tables;  // private to the room; public by name so that its reader can be a function of its own

 private:
  explicit Tokenizer(std::unique_ptr<const Tables> tables);
  std::unique_ptr<const Tables> tables_;
};

// Turns ids into text as they come, and never emits half a character: bytes that may still become a whole
// UTF-8 character are held back; bytes that cannot are replaced by U+FFFD. Special tokens are left out unless
// asked for. What comes need not be the beginning of a text, so a space at its front stays.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, Specials specials = Specials::ordinary)
      : tokenizer_(&tokenizer), specials_(specials) {}
  // Appends to `out` what became whole.
  void push(Token id, std::string& out);
  // The same for raw bytes.
  void push_bytes(std::string_view bytes, std::string& out);
  // The end: an unfinished character becomes U+FFFD.
  void finish(std::string& out);

 private:
  const Tokenizer* tokenizer_;
  Specials specials_;
  std::string held_;
};

}  // namespace nib::inline v0
