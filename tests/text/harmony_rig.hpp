// What the tests of harmony share: vocabularies, and texts whose special tokens are spelled out.
#pragma once

#include "support/data.hpp"
#include "support/tiny_tokenizer.hpp"
#include <nibble/text/harmony.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

// The vocabulary made on the spot, and harmony over it.
struct TinyHarmony {
  Tokenizer tokenizer = tiny_tokenizer();
  Harmony harmony = Harmony::make(tokenizer).take();
};
inline const Harmony& tiny_harmony() {
  static const TinyHarmony tiny;
  return tiny.harmony;
}

// gpt-oss's own, read once from the data folder.
inline const Harmony& published_harmony(const std::string& data) {
  static const Tokenizer tokenizer =
      Tokenizer::from_json(read_text(data + "/tokenizers/gpt-oss.tokenizer.json"), "gpt-oss").take();
  static const Harmony harmony = Harmony::make(tokenizer).take();
  return harmony;
}

// "<|start|>user<|message|>..." to tokens and back.
inline std::vector<Token> tokens_of(const Harmony& harmony, std::string_view text) {
  std::vector<Token> ids;
  REQUIRE(harmony.tokenizer().encode(text, Specials::recognised, ids).ok());
  return ids;
}
inline std::string text_of(const Harmony& harmony, std::span<const Token> ids) {
  return harmony.tokenizer().decode(ids, Specials::recognised);
}

inline std::string rendered(const Harmony& harmony, std::span<const Message> messages,
                            const RenderOptions& options = {}) {
  const auto ids = harmony.render(messages, options);
  REQUIRE_MESSAGE(ids.ok(), ids.status().message());
  return text_of(harmony, *ids);
}

struct Parsed {
  Status status;
  std::vector<Message> messages;
  std::string deltas;
};
inline Parsed parsed(const Harmony& harmony, std::span<const Token> ids, std::optional<Role> role,
                     Strictness strictness = Strictness::strict) {
  HarmonyParser parser(harmony, role, strictness);
  Parsed result;
  for (const Token id : ids) {
    if (result.status = parser.push(id); !result.status.ok()) break;
    result.deltas += parser.delta();
  }
  if (result.status.ok()) {
    result.status = parser.finish();
    result.deltas += parser.delta();
  }
  result.messages = parser.messages();
  return result;
}

}  // namespace nib::test
