// Vocabularies written as tokenizer.json: read back by nibble, on the texts of the other tests and on what
// the files' own settings say.
#include "support/data.hpp"
#include "text/gguf.hpp"
#include <nibble/base/json.hpp>
#include <nibble/text/tokenizer.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::vector<std::pair<std::string, TokenizerData>> vocabularies() {
  std::vector<std::pair<std::string, TokenizerData>> all;
  const auto add = [&](const std::string& path) {
    auto data = path.ends_with(".gguf") ? tokenizer_data_from_gguf(TrustedGguf::vocabulary(path), path)
                                        : tokenizer_data_from_json(read_text(path), path);
    if (data.ok()) all.emplace_back(path, data.take());  // what nibble does not read is another test's matter
  };
  add(NIBBLE_TALES "/tokenizer.json");
  if (const std::string root = data_root(); !root.empty())
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      const std::string path = entry.path().string();
      const bool vocabulary = path.ends_with(".gguf") && path.find("/tokenizers/") != path.npos;
      if (path.ends_with("tokenizer.json") || vocabulary) add(path);
    }
  return all;
}

// Words of the vocabulary itself, characters of any script, and runs of one character.
std::string random_text(std::mt19937& random, const Tokenizer& tokenizer) {
  std::string text;
  for (int words = static_cast<int>(random() % 12); words > 0; --words) {
    static constexpr const char* kPieces[] = {" ",
                                              "  ",
                                              "\n",
                                              "\r\n",
                                              "\t",
                                              "caf\xc3\xa9",
                                              "e\xcc\x81",
                                              "12",
                                              "'s",
                                              "\xe4\xbd\xa0\xe5\xa5\xbd",
                                              "\xf0\x9f\x8d\x8e"};
    switch (random() % 4) {
      case 0:
        text += std::string(random() % 40, "=- a."[random() % 5]);
        break;
      case 1:
        text += kPieces[random() % std::size(kPieces)];
        break;
      default:
        text += tokenizer.bytes(static_cast<Token>(random() % tokenizer.size()));
    }
  }
  return text;
}

TEST_CASE("a vocabulary written as tokenizer.json is the same vocabulary") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const auto& each : vocabularies()) {
    const std::string& path = each.first;
    const TokenizerData& data = each.second;
    CAPTURE(path);
    const auto json = tokenizer_json_of(data, path);
    REQUIRE_MESSAGE(json.ok(), json.status().message());
    const auto again = tokenizer_data_from_json(*json, path);
    REQUIRE_MESSAGE(again.ok(), again.status().message());
    CHECK(again->model == data.model);
    CHECK(again->opening == data.opening);
    CHECK(again->closing == data.closing);
    CHECK(again->nfc == data.nfc);
    CHECK(again->whole_words == data.whole_words);
    CHECK(again->split == data.split);
    CHECK(again->added.size() == data.added.size());
    CHECK(again->merges.size() == data.merges.size());
    CHECK(again->strip_prefix == data.strip_prefix);
    const auto before = Tokenizer::from(data, path), after = Tokenizer::from(*again, path);
    REQUIRE(before.ok());
    REQUIRE(after.ok());
    for (int i = 0; i < 200; ++i) {
      const std::string text = random_text(random, *before);
      for (const Specials specials : {Specials::ordinary, Specials::recognised}) {
        std::vector<Token> expected, found;
        REQUIRE(before->encode(text, specials, expected).ok());
        REQUIRE(after->encode(text, specials, found).ok());
        CAPTURE(text);
        CHECK(found == expected);
        CHECK(after->decode(found, specials) == before->decode(expected, specials));
      }
    }
  }
}

// Every way to put spaces that TokenizerData knows, in a vocabulary of a few tokens.
TEST_CASE("spaces of SentencePiece survive, whichever way they are put") {
  using Prefix = TokenizerData::Prefix;
  TokenizerData data;
  data.model = TokenizerData::Model::sentencepiece;
  data.tokens = {"<unk>", "<s>"};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr const char* kDigits = "0123456789ABCDEF";
    data.tokens.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
  }
  for (const char* token : {"\xe2\x96\x81", "a", "b",
                            "\xe2\x96\x81"
                            "a"})
    data.tokens.push_back(token);
  data.added = {{0, "<unk>", true, false}, {1, "<s>", true, false}};
  data.merges = {{258, 259, 261, 0}};
  for (const Prefix prefix : {Prefix::none, Prefix::first_piece, Prefix::every_piece})
    for (const bool before_space : {false, true})
      for (const bool split : {false, true})
        for (const bool strip : {false, true}) {
          CAPTURE(static_cast<int>(prefix));
          CAPTURE(before_space);
          CAPTURE(split);
          CAPTURE(strip);
          data.prefix = prefix;
          data.prefix_before_space = before_space;
          data.split_spaces = split;
          data.strip_prefix = strip;
          const auto json = tokenizer_json_of(data, "tiny");
          const bool metaspace = split || prefix == Prefix::first_piece;
          if (metaspace && before_space && prefix != Prefix::none) {
            CHECK(json.status().code() == Code::unsupported);
            continue;
          }
          REQUIRE_MESSAGE(json.ok(), json.status().message());
          const auto written = Tokenizer::from_json(*json, "tiny");
          REQUIRE_MESSAGE(written.ok(), written.status().message());
          const auto direct = Tokenizer::from(data, "tiny");
          for (const char* text : {"a", " a", "  a b", "a<s> b<s>a", "", "a  "}) {
            CAPTURE(text);
            std::vector<Token> expected, found;
            REQUIRE(direct->encode(text, Specials::recognised, expected).ok());
            REQUIRE(written->encode(text, Specials::recognised, found).ok());
            CHECK(found == expected);
            CHECK(written->decode(found, Specials::recognised) ==
                  direct->decode(expected, Specials::recognised));
          }
        }
}

TEST_CASE("what a tokenizer.json cannot say is refused by name") {
  const auto data = tokenizer_data_from_json(read_text(NIBBLE_TALES "/tokenizer.json"), "tales");
  REQUIRE(data.ok());
  const auto refused = [](const TokenizerData& changed, std::string_view why) {
    const auto json = tokenizer_json_of(changed, "tales");
    CHECK(json.status().code() == Code::unsupported);
    CHECK_MESSAGE(json.status().message().find(why) != std::string::npos, json.status().message());
  };
  TokenizerData twice = *data;
  twice.tokens.push_back(twice.tokens[1000]);
  refused(twice, "is spelled as another is");
  TokenizerData broken = *data;
  broken.tokens.push_back("\xff");
  refused(broken, "is no UTF-8");
  TokenizerData outside = *data;
  outside.merges.push_back({1u << 30, 0, 0, 7});
  CHECK_FALSE(tokenizer_json_of(outside, "tales").ok());
}

}  // namespace
}  // namespace nib::test
