// What a tokenizer.json may say, how added tokens are found, and what is refused in which words.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;
using test::encode;
using test::SeededTokenizer;

namespace {

std::string replace(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  REQUIRE_MESSAGE(at != text.npos, "the fixture has no " << from);
  return text.replace(at, from.size(), to);
}

Status status_of(std::string_view json, std::span<const Tokenizer::Extra> extra = {}) {
  return Tokenizer::from_json(json, "tiny.json", extra).status();
}

// Leftmost-longest by the definition.
std::vector<std::pair<std::size_t, std::string>> find_all(std::string_view text,
                                                          const std::vector<std::string>& added) {
  std::vector<std::pair<std::size_t, std::string>> found;
  for (std::size_t at = 0; at < text.size();) {
    std::string longest;
    for (const std::string& token : added)
      if (text.substr(at).starts_with(token) && token.size() > longest.size()) longest = token;
    if (!longest.empty()) found.emplace_back(at, longest);
    at += std::max<std::size_t>(longest.size(), 1);
  }
  return found;
}

}  // namespace

TEST_CASE("both spellings of merges, and any order of keys") {
  SeededTokenizer tiny(21, "abc", 50);
  const Tokenizer pairs = tiny.open();
  tiny.merges_as_pairs = false;
  const Tokenizer strings = tiny.open();
  std::string json = tiny.json();
  const std::size_t vocab = json.find(R"("vocab":)"), merges = json.find(R"("merges":)");
  const std::string merges_first = json.substr(0, vocab) + json.substr(merges, json.size() - 2 - merges) +
                                   "," + json.substr(vocab, merges - 1 - vocab) + "}}";
  auto swapped = Tokenizer::from_json(merges_first, "swapped.json");
  REQUIRE_MESSAGE(swapped.ok(), swapped.status().message());
  const std::string version = replace(json, R"("merges":[)", R"("merges":["#version: 0.2",)");
  auto versioned = Tokenizer::from_json(version, "versioned.json");
  REQUIRE_MESSAGE(versioned.ok(), versioned.status().message());
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::string text(1 + random() % 60, 'a');
    for (char& c : text) c = "abc \n"[random() % 5];
    const std::vector<Token> ids = encode(pairs, text);
    CHECK(encode(strings, text) == ids);
    CHECK(encode(*swapped, text) == ids);
    CHECK(encode(*versioned, text) == ids);
    CHECK(pairs.decode(ids, Specials::ordinary) == text);
  }
}

TEST_CASE("every byte has a token and comes back") {
  const Tokenizer tokenizer = SeededTokenizer(22, "abc", 50).open();
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 50, '\0');
    for (char& c : text) c = static_cast<char>(random());
    std::string back;
    for (const Token id : encode(tokenizer, text)) back += tokenizer.bytes(id);
    REQUIRE(back == text);
  }
}

TEST_CASE("ids are appended") {
  const Tokenizer tokenizer = SeededTokenizer(23, "abc", 10).open();
  std::vector<Token> ids = {5, 6};
  REQUIRE(tokenizer.encode("abc", Specials::ordinary, ids).ok());
  CHECK(ids[0] == 5);
  CHECK(ids[1] == 6);
  CHECK(ids.size() > 2);
}

TEST_CASE("added tokens are found leftmost and longest, or not at all") {
  std::mt19937 random(20260104);
  for (int round = 0; round < 300; ++round) {
    SeededTokenizer tiny(24, "ab", 10);
    const std::size_t count = 1 + random() % 8;
    for (std::size_t i = 0; i < count; ++i) {
      std::string content(2 + random() % 5, 'a');  // one byte would be a token of the vocabulary
      for (char& c : content) c = "ab<"[random() % 3];
      if (std::find(tiny.added.begin(), tiny.added.end(), content) == tiny.added.end() &&
          std::find(tiny.vocabulary.begin(), tiny.vocabulary.end(), content) == tiny.vocabulary.end())
        tiny.added.push_back(content);
    }
    const Tokenizer tokenizer = tiny.open();
    for (int texts = 0; texts < 20; ++texts) {
      std::string text(random() % 40, 'a');
      for (char& c : text) c = "aab<"[random() % 4];
      std::vector<Token> expected;
      std::size_t at = 0;
      const auto plain = [&](std::size_t end) {
        for (const Token id : encode(tokenizer, text.substr(at, end - at))) expected.push_back(id);
      };
      for (const auto& [begin, content] : find_all(text, tiny.added)) {
        plain(begin);
        const auto which = std::find(tiny.added.begin(), tiny.added.end(), content) - tiny.added.begin();
        expected.push_back(static_cast<Token>(tiny.vocabulary.size() + which));
        at = begin + content.size();
      }
      plain(text.size());
      REQUIRE(encode(tokenizer, text, Specials::recognised) == expected);
      for (const Token id : encode(tokenizer, text)) CHECK(!tokenizer.is_special(id));
      CHECK(tokenizer.decode(expected, Specials::recognised) == text);
    }
  }
}

TEST_CASE("special tokens are known by name and id") {
  SeededTokenizer tiny(25, "ab", 10);
  tiny.added = {"<|start|>", "<|end|>"};
  const Tokenizer::Extra extra[] = {{"<|reserved_300|>", 300}, {"<|another start|>", 266}};
  REQUIRE(tiny.vocabulary.size() == 266);
  auto opened = Tokenizer::from_json(tiny.json(), "tiny.json", extra);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  const Tokenizer& tokenizer = *opened;
  CHECK(tokenizer.size() == 301);
  CHECK(tokenizer.find_special("<|start|>") == Token{266});
  CHECK(tokenizer.find_special("<|end|>") == Token{267});
  CHECK(tokenizer.find_special("<|reserved_300|>") == Token{300});
  CHECK(!tokenizer.find_special("<|another start|>"));  // the file has named 266
  CHECK(!tokenizer.find_special("<|star"));
  CHECK(!tokenizer.find_special("a"));
  CHECK(!tokenizer.find_special(""));
  CHECK(tokenizer.bytes(267) == "<|end|>");
  CHECK(tokenizer.bytes(299).empty());
  CHECK(tokenizer.bytes(301).empty());
  CHECK(tokenizer.is_special(300));
  CHECK(!tokenizer.is_special(299));
  CHECK(!tokenizer.is_special(0));
  CHECK(!tokenizer.is_special(~Token{0}));
  CHECK(encode(tokenizer, "<|reserved_300|><|start|>", Specials::recognised) == std::vector<Token>{300, 266});
  const Token with_special[] = {266, 300};
  CHECK(tokenizer.decode(with_special, Specials::ordinary).empty());
  CHECK(tokenizer.decode(with_special, Specials::recognised) == "<|start|><|reserved_300|>");
}

TEST_CASE("added tokens that are not special are found in every text") {
  SeededTokenizer tiny(26, "ab", 10);
  tiny.added = {"<tool>"};
  const std::string json = replace(tiny.json(), R"("special":true)", R"("special":false)");
  for (const std::string& text : {json, replace(json, R"("normalized":false)", R"("normalized":true)")}) {
    auto opened = Tokenizer::from_json(text, "tiny.json");
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    const auto id = static_cast<Token>(tiny.vocabulary.size());
    for (const Specials specials : {Specials::ordinary, Specials::recognised})
      CHECK(encode(*opened, "<tool>", specials) == std::vector<Token>{id});
    CHECK(!opened->is_special(id));
    CHECK(!opened->find_special("<tool>"));
    CHECK(opened->decode(std::vector<Token>{id}, Specials::ordinary) == "<tool>");
  }
}

TEST_CASE("a special token that the vocabulary has too is no word of an ordinary text") {
  SeededTokenizer tiny(27, "ab", 10);
  tiny.ignore_merges = true;
  tiny.vocabulary.push_back("end");
  const std::size_t id = tiny.vocabulary.size() - 1;
  const std::string json = replace(
      tiny.json(), R"("added_tokens":[])",
      concat(R"("added_tokens":[{"id":)", id, R"(,"content":"end","normalized":false,"special":true}])"));
  auto opened = Tokenizer::from_json(json, "tiny.json");
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  CHECK(encode(*opened, "end").size() == 3);
  CHECK(encode(*opened, "end", Specials::recognised) == std::vector<Token>{static_cast<Token>(id)});
}

TEST_CASE("ByteLevel alone splits by the pattern of GPT-2") {
  SeededTokenizer tiny(28, "ab 1", 60);
  tiny.pattern = test::kGpt2;
  const Tokenizer with_split = tiny.open();
  std::string json = tiny.json();
  const std::size_t begin = json.find(R"({"type":"Sequence")"), end = json.find(R"(,"post_processor")");
  auto alone = Tokenizer::from_json(
      json.replace(begin, end - begin,
                   R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true})"),
      "t");
  REQUIRE_MESSAGE(alone.ok(), alone.status().message());
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string text(random() % 40, 'a');
    for (char& c : text) c = "aab 11'"[random() % 7];
    CHECK(encode(*alone, text) == encode(with_split, text));
  }
}

TEST_CASE("what nibble does not do is refused by name") {
  SeededTokenizer tiny(29, "ab", 10);
  tiny.added = {"<|end|>"};
  const std::string json = tiny.json();
  const std::pair<std::string, std::string> changes[] = {
      {R"("version":"1.0")", R"("version":"2.0")"},
      {R"("normalizer":null)", R"("normalizer":{"type":"NFKC"})"},
      {R"("type":"BPE")", R"("type":"Unigram")"},
      {R"("dropout":null)", R"("dropout":0.1)"},
      {R"("dropout":null)", R"("end_of_word_suffix":"</w>")"},
      {R"("dropout":null)", R"("continuing_subword_prefix":"##")"},
      {R"("decoder":{"type":"ByteLevel"})", R"("decoder":{"type":"Metaspace"})"},
      {R"("type":"Split")", R"("type":"Digits")"},
      {R"("type":"Sequence")", R"("type":"Whitespace")"},
      {R"("behavior":"Isolated")", R"("behavior":"Removed")"},
      {R"("invert":false)", R"("invert":true)"},
      {R"("use_regex":false)", R"("use_regex":true)"},
      {R"("add_prefix_space":false)", R"("add_prefix_space":true)"},
      {R"("lstrip":false)", R"("lstrip":true)"},
      {R"("rstrip":false)", R"("rstrip":true)"},
      {R"("single_word":false)", R"("single_word":true)"},
      {R"(\\p{N}{1,3})", R"(\\p{N}{1,4})"},
      {R"("post_processor":null)", R"("post_processor":{"type":"BertProcessing"})"},
  };
  const std::string_view named[] = {
      "2.0",         "NFKC",        "Unigram",       "dropout",    "end_of_word_suffix",
      "##",          "Metaspace",   "Digits",        "Whitespace", "Removed",
      "invert",      "use_regex",   "prefix_space",  "lstrip",     "rstrip",
      "single_word", "\\p{N}{1,4}", "BertProcessing"};
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    const Status status = status_of(replace(json, changes[i].first, changes[i].second));
    CAPTURE(status.message());
    CHECK(status.code() == Code::unsupported);
    CHECK(status.message().starts_with("tiny.json: "));
    CHECK(status.message().find(named[i]) != std::string::npos);
  }
  CHECK(status_of(json).ok());
}

TEST_CASE("what contradicts itself is an error that names the place") {
  SeededTokenizer tiny(30, "ab", 10);
  tiny.added = {"<|end|>", "<|start|>"};
  const std::string json = tiny.json();
  const std::string first = test::SeededTokenizer::spell(tiny.vocabulary[0]);
  const std::size_t end_id = tiny.vocabulary.size();
  const auto expect = [&](const std::string& text, std::string_view place) {
    const Status status = status_of(text);
    CAPTURE(status.message());
    CHECK(status.code() == Code::format);
    CHECK(status.message().starts_with("tiny.json: "));
    CHECK(status.message().find(place) != std::string::npos);
  };
  expect("", "byte 0");
  expect("[]", "model is missing");
  expect("{}", "model is missing");
  expect(R"([{"model":{}},{"vocab":{},"merges":[]}])", "model is missing");
  expect(R"({"model":{"vocab":[],"merges":[]}})", "model.vocab");
  expect(R"({"model":{"vocab":{},"merges":{}}})", "model.merges");
  expect(R"({"model":{"vocab":{},"vocab":{},"merges":[]}})", "vocab appears twice");
  expect(R"({"model":{"vocab":{"a":0,"a":1},"merges":[]}})", "token \"a\" appears twice");
  expect(R"({"model":{"vocab":{"a":"0"},"merges":[]}})", "token \"a\"");
  expect(R"({"model":{"vocab":{"a":-1},"merges":[]}})", "id -1");
  expect(R"({"model":{"vocab":{"a":4294967296},"merges":[]}})", "id 4294967296");
  expect(R"({"model":{"vocab":{"a":1.5},"merges":[]}})", "token \"a\"");
  expect(R"({"model":{"vocab":{"a":{}},"merges":[]}})", "token \"a\"");
  expect(R"({"model":{"vocab":{},"merges":["a b c"]}})", "model.merges[0]");
  expect(R"({"model":{"vocab":{},"merges":["ab"]}})", "model.merges[0]");
  expect(R"({"model":{"vocab":{},"merges":[["a","b"],["a"]]}})", "model.merges[1]");
  expect(R"({"model":{"vocab":{},"merges":[["a","b","c"]]}})", "model.merges[0]");
  expect(R"({"model":{"vocab":{},"merges":[[]]}})", "model.merges[0]");
  expect(R"({"model":{"vocab":{},"merges":[[["a"]]]}})", "model.merges[0]");
  expect(R"({"model":{"vocab":{},"merges":[7]}})", "model.merges[0]");
  expect(R"({"added_tokens":[7]})", "added_tokens[0]");
  expect(R"({"added_tokens":[{"id":0}]})", "added_tokens[0]");
  expect(R"({"added_tokens":[{"content":"x"}]})", "added_tokens[0]");
  expect(R"({"added_tokens":[{"id":"x"}]})", "added_tokens[0]");
  expect(R"({"added_tokens":[{"id":1,"content":""}]})", "added_tokens[0]");
  expect(R"({"added_tokens":[{"id":1,"content":["x"]}]})", "added_tokens[0]");
  expect(replace(json, concat(R"({"id":)", end_id + 1), concat(R"({"id":)", end_id)), "appears twice");
  expect(replace(json, R"("content":"<|start|>")", R"("content":"<|end|>")"), "appears twice");
  expect(replace(json, concat(R"({"id":)", end_id + 1), R"({"id":0)"), "id 0");
  expect(replace(json, R"("vocab":{)", R"("vocab":{"<|end|>":900,)"), "<|end|>");
  expect(replace(json, R"("vocab":{)", R"("vocab":{"zzz":0,)"), "both have id 0");
  expect(replace(json, R"("merges":[)", R"("merges":[["zz","z"],)"), "model.merges[0]");
  const std::string made = test::SeededTokenizer::spell(tiny.vocabulary[tiny.results[0]]);
  expect(replace(replace(json, R"("content":"<|end|>")", concat(R"("content":")", made, "\"")),
                 concat(R"({"id":)", end_id, ","), concat(R"({"id":)", tiny.results[0], ",")),
         "makes the special token");
  const auto space = std::find(tiny.vocabulary.begin(), tiny.vocabulary.end(), " ") - tiny.vocabulary.begin();
  expect(replace(replace(json, R"("content":"<|end|>")", R"("content":"\u0120")"),
                 concat(R"({"id":)", end_id, ","), concat(R"({"id":)", space, ",")),
         "other bytes");
  for (Token id = 0; id < tiny.vocabulary.size(); ++id)
    if (tiny.vocabulary[id] == "Q")
      expect(replace(json, concat(R"("Q":)", id), concat(R"("QQQ":)", id)), "byte 81");
}

TEST_CASE("extra tokens that cannot be are the caller's mistake") {
  const std::string json = SeededTokenizer(31, "ab", 10).json();
  const Tokenizer::Extra far[] = {{"x", 0xffff'ffff}}, empty[] = {{"", 1000}};
  CHECK(status_of(json, far).code() == Code::argument);
  CHECK(status_of(json, empty).code() == Code::argument);
}
