// Ids to the text that is certain: whole characters, and nothing that may turn out to be the beginning of a
// stop text.
#pragma once

#include <nibble/text/tokenizer.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

class TextStream {
 public:
  // A null tokenizer gives no text.
  TextStream(const Tokenizer* tokenizer, bool show_specials, std::vector<std::string> stop_texts);

  // Takes a token; text() is then what became certain. True when a stop text was completed: it and what
  // follows it are not part of text().
  bool push(Token id);
  // Nothing more will come: what was held back becomes text().
  void finish();
  const std::string& text() const { return text_; }
  // Forgets what is held back; text() stays.
  void forget_held();
  void reset();

 private:
  std::size_t held_back() const;

  const Tokenizer* tokenizer_;
  Specials specials_;
  std::vector<std::string> stop_texts_;
  std::optional<StreamDecoder> decoder_;
  std::string pending_;  // decoded, not yet certain
  std::string text_;
};

}  // namespace nib::inline v0
