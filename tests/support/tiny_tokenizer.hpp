// A tokenizer made on the spot: the 256 bytes (id = byte), a few merges, and harmony's special tokens.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

namespace nib::test {

// The character that stands for a byte in a spelling, as UTF-8.
inline std::string byte_spelling(unsigned byte) {
  unsigned next = 0x100, code = byte;
  for (unsigned b = 0; b <= byte; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    if (b == byte && !itself) code = next;
    if (!itself) ++next;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

inline constexpr const char* kO200kPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'"
    "ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'"
    "ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// tokenizer.json; `without` leaves special tokens out.
inline std::string tiny_tokenizer_json(std::initializer_list<std::string_view> without = {}) {
  std::vector<Json::Member> vocabulary;
  for (unsigned b = 0; b < 256; ++b) vocabulary.emplace_back(byte_spelling(b), Json::of(std::int64_t{b}));
  const char* merges[][2] = {{"t", "h"}, {"th", "e"}, {"i", "n"}, {"in", "g"}, {"Ġ", "the"}, {"e", "r"}};
  std::vector<Json> pairs;
  std::int64_t id = 256;
  for (const auto& [left, right] : merges) {
    vocabulary.emplace_back(std::string(left) + right, Json::of(id++));
    pairs.push_back(Json::array({Json::of(std::string(left)), Json::of(std::string(right))}));
  }
  std::vector<Json> added;
  for (const char* special : {"<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>",
                              "<|end|>", "<|message|>", "<|call|>"}) {
    if (std::find(without.begin(), without.end(), special) == without.end())
      added.push_back(Json::object(
          {{"id", Json::of(id)}, {"content", Json::of(std::string(special))}, {"special", Json::of(true)}}));
    ++id;
  }
  const auto text = [](const char* t) { return Json::of(std::string(t)); };
  Json split = Json::object({{"type", text("Split")},
                             {"pattern", Json::object({{"Regex", text(kO200kPattern)}})},
                             {"behavior", text("Isolated")},
                             {"invert", Json::of(false)}});
  Json bytes = Json::object(
      {{"type", text("ByteLevel")}, {"add_prefix_space", Json::of(false)}, {"use_regex", Json::of(false)}});
  return write_json(
      Json::object({{"version", text("1.0")},
                    {"added_tokens", Json::array(std::move(added))},
                    {"normalizer", Json()},
                    {"pre_tokenizer",
                     Json::object({{"type", text("Sequence")},
                                   {"pretokenizers", Json::array({std::move(split), std::move(bytes)})}})},
                    {"model", Json::object({{"type", text("BPE")},
                                            {"vocab", Json::object(std::move(vocabulary))},
                                            {"merges", Json::array(std::move(pairs))}})}}));
}

inline Tokenizer tiny_tokenizer(std::initializer_list<std::string_view> without = {}) {
  auto tokenizer = Tokenizer::from_json(tiny_tokenizer_json(without), "tiny");
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
  return tokenizer.take();
}

}  // namespace nib::test
