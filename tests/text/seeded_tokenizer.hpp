// A small byte-level tokenizer made from a seed: 256 bytes, random merges of what there is, and added tokens.
// It knows its vocabulary as bytes, so a test can encode by the definition of BPE.
#pragma once

#include "text/patterns.hpp"
#include "text/utf8.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

struct SeededTokenizer {
  std::vector<std::string> vocabulary;          // bytes by id
  std::vector<std::pair<Token, Token>> merges;  // by rank; what merge i makes has an id of its own
  std::vector<Token> results;                   // by rank
  std::vector<std::string> added;               // special, ids behind the vocabulary
  std::string_view pattern = kO200k;
  bool merges_as_pairs = true, ignore_merges = false;

  // Ids are shuffled, so that no test passes because ids, ranks and bytes happen to agree. The parts of
  // merges come from `alphabet` and what was made of it.
  SeededTokenizer(unsigned seed, std::string_view alphabet, std::size_t merge_count) {
    std::mt19937 random(seed);
    std::vector<std::string> words;
    for (int byte = 0; byte < 256; ++byte) words.emplace_back(1, static_cast<char>(byte));
    std::vector<std::pair<std::string, std::string>> pairs;
    std::vector<std::string> parts;
    for (const char c : alphabet) parts.emplace_back(1, c);
    std::map<std::string, int> known;
    for (const std::string& word : words) known[word] = 1;
    for (std::size_t tries = 0; pairs.size() < merge_count && tries < 100 * merge_count; ++tries) {
      const std::string left = parts[random() % parts.size()];  // one after the other, with any compiler
      auto pair = std::pair(left, parts[random() % parts.size()]);
      const std::string made = pair.first + pair.second;
      if (made.size() > 12) continue;
      bool twice = false;
      for (const auto& other : pairs) twice = twice || other == pair;
      if (twice) continue;
      if (!known[made]++) {  // else a second way to make the same token, as real files have
        words.push_back(made);
        parts.push_back(made);
      }
      pairs.push_back(pair);
    }
    std::shuffle(words.begin(), words.end(), random);
    vocabulary = words;
    std::map<std::string, Token> ids;
    for (Token id = 0; id < words.size(); ++id) ids[words[id]] = id;
    for (const auto& [left, right] : pairs) {
      merges.emplace_back(ids[left], ids[right]);
      results.push_back(ids[left + right]);
    }
  }

  // Bytes in the alphabet of GPT-2.
  static std::string spell(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
      const auto byte = static_cast<unsigned char>(c);
      const auto printable = [](int b) { return (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad); };
      char32_t character = byte;
      if (!printable(byte)) {
        character = 0x100;
        for (int below = 0; below < byte; ++below) character += !printable(below);
      }
      append_utf8(character, out);
    }
    return out;
  }

  std::string json() const {
    const auto text = [](std::string value) { return write_json(Json::of(std::move(value))); };
    std::string out = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
    for (std::size_t i = 0; i < added.size(); ++i)
      out +=
          concat(i ? "," : "", R"({"id":)", vocabulary.size() + i, R"(,"content":)", text(added[i]),
                 R"(,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})");
    out += concat(
        R"(],"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":)"
        R"({"Regex":)",
        text(std::string(pattern)), R"(},"behavior":"Isolated","invert":false},)",
        R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},)",
        R"("post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","dropout":null,)",
        R"("unk_token":null,"ignore_merges":)", ignore_merges ? "true" : "false", R"(,"vocab":{)");
    for (std::size_t id = 0; id < vocabulary.size(); ++id)
      out += concat(id ? "," : "", text(spell(vocabulary[id])), ":", id);
    out += R"(},"merges":[)";
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const std::string left = spell(vocabulary[merges[i].first]),
                        right = spell(vocabulary[merges[i].second]);
      out += i ? "," : "";
      out += merges_as_pairs ? concat("[", text(left), ",", text(right), "]") : text(left + " " + right);
    }
    return out + "]}}";
  }

  Tokenizer open() const {
    auto tokenizer = Tokenizer::from_json(json(), "tiny.json");
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
    return tokenizer.take();
  }

  // By the definition, in quadratic time and worse: of all neighbours the merge of lowest rank, the leftmost.
  std::vector<Token> encode_word(std::string_view word) const {
    std::vector<Token> ids;
    for (Token id = 0; ignore_merges && id < vocabulary.size(); ++id)
      if (vocabulary[id] == word) return {id};
    for (const char c : word)
      for (Token id = 0; id < vocabulary.size(); ++id)
        if (vocabulary[id] == std::string_view(&c, 1)) ids.push_back(id);
    std::map<std::pair<Token, Token>, std::size_t> ranks;
    for (std::size_t rank = 0; rank < merges.size(); ++rank) ranks[merges[rank]] = rank;
    while (true) {
      std::size_t best = merges.size(), at = 0;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i)
        if (const auto found = ranks.find({ids[i], ids[i + 1]});
            found != ranks.end() && found->second < best) {
          best = found->second;
          at = i;
        }
      if (best == merges.size()) return ids;
      ids[at] = results[best];
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
  }
};

inline std::vector<Token> encode(const Tokenizer& tokenizer, std::string_view text,
                                 Specials specials = Specials::ordinary) {
  std::vector<Token> ids;
  const Status status = tokenizer.encode(text, specials, ids);
  REQUIRE_MESSAGE(status.ok(), status.message());
  return ids;
}

}  // namespace nib::test
