// Room text: Tokenizer: text to ids and back. Immutable after construction; every const function may be
// called from any number of threads.
#pragma once

#include <nibble/base/status.hpp>

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

// Whether spellings of special tokens in a text (<|start|>) become those tokens or stay ordinary bytes.
enum class Specials : std::uint8_t { ordinary, recognised };

class Tokenizer {
 public:
  // An added token given from outside the file (names of reserved ids that tokenizer.json leaves out).
  struct Extra {
    std::string content;
    Token id;
  };

  // From the text of a Hugging Face tokenizer.json. `name` is used in messages. Errors: format (a key is
  // missing or wrong; the message names it), unsupported (a normalizer, pre-tokenizer or model nibble does
  // not know, by name).
  static Result<Tokenizer> from_json(std::string_view json, std::string_view name,
                                     std::span<const Extra> extra = {});

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the ids of `text` (any bytes; invalid UTF-8 is encoded byte by byte as it stands). No BOS is
  // added. Time is linear in the text (n log n within one word), memory is bounded by the longest word.
  // Errors: memory.
  Status encode(std::string_view text, Specials specials, std::vector<Token>& out) const;

  // The bytes of one token (not necessarily whole characters); special tokens give their spelling. Empty for
  // an id that the vocabulary does not have. Borrowed: lives as long as the tokenizer.
  std::string_view bytes(Token id) const;
  bool is_special(Token id) const;
  // The special (added) token spelled so.
  std::optional<Token> find_special(std::string_view content) const;
  // One more than the largest id.
  std::size_t size() const;

  // All ids at once; invalid UTF-8 becomes U+FFFD when `specials` text is wanted as text. Special tokens are
  // spelled out when `specials` is recognised and left out when it is ordinary.
  std::string decode(std::span<const Token> ids, Specials specials) const;

  struct Tables;  // private to the room; public by name so that its reader can be a function of its own

 private:
  explicit Tokenizer(std::unique_ptr<const Tables> tables);
  std::unique_ptr<const Tables> tables_;
};

// Turns ids into text as they come, and never emits half a character: bytes that may still become a whole
// UTF-8 character are held back; bytes that cannot are replaced by U+FFFD. Special tokens are left out unless
// asked for.
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
