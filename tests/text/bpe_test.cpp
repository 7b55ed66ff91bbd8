// Merging against the definition of BPE, on words of every length around the switch from scanning to the
// queue.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"
#include <nibble/text/tokenizer_data.hpp>

#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace nib;
using test::SeededTokenizer;

TEST_CASE("words become what the definition of BPE says") {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    SeededTokenizer tiny(seed, "abc", 20 + 30 * (seed % 4));
    tiny.ignore_merges = seed % 3 == 0;
    tiny.merges_as_pairs = seed % 2 == 0;
    const Tokenizer tokenizer = tiny.open();
    CHECK(tokenizer.size() == tiny.vocabulary.size());
    std::mt19937 random(seed * 1000);
    for (int round = 0; round < 150; ++round) {
      std::string word(1 + random() % (round % 10 ? 60 : 400), 'a');
      const auto letters = 1 + random() % 3;
      for (char& c : word) c = static_cast<char>('a' + random() % letters);
      const std::vector<Token> ids = test::encode(tokenizer, word);
      REQUIRE(ids == tiny.encode_word(word));
      CHECK(tokenizer.decode(ids, Specials::ordinary) == word);
    }
  }
}

TEST_CASE("long words become what the definition says when ranks lie far apart and in no order") {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    SeededTokenizer tiny(seed, "abc", 150);
    std::mt19937 random(seed * 1001);
    // Then a merge may make a token that an earlier one takes.
    for (std::size_t i = tiny.merges.size(); seed % 2 && i-- > 1;) {
      const std::size_t other = random() % (i + 1);
      std::swap(tiny.merges[i], tiny.merges[other]);
      std::swap(tiny.results[i], tiny.results[other]);
    }
    TokenizerData data;
    for (const std::string& token : tiny.vocabulary) data.tokens.push_back(SeededTokenizer::spell(token));
    data.split = tiny.pattern;
    std::uint32_t rank = 0;
    for (std::size_t i = 0; i < tiny.merges.size(); ++i) {
      rank += 1 + static_cast<std::uint32_t>(random() % (seed % 3 ? 15'000 : 20'000'000));
      data.merges.push_back({tiny.merges[i].first, tiny.merges[i].second, tiny.results[i], rank});
    }
    const auto tokenizer = Tokenizer::from(data, "tiny");
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.status().message());
    for (int round = 0; round < 60; ++round) {
      std::string word(41 + random() % 300, 'a');
      const auto letters = 1 + random() % 3;
      for (char& c : word) c = static_cast<char>('a' + random() % letters);
      REQUIRE(test::encode(*tokenizer, word) == tiny.encode_word(word));
    }
  }
}

// Where each token is made in one way, no merge makes a pair of a lower rank: rank after rank, from left to
// right, is the definition.
TEST_CASE("a word of 100,000 letters becomes what merging rank after rank makes of it") {
  for (unsigned seed = 31; seed <= 34; ++seed) {
    const SeededTokenizer tiny(seed, "abc", 150);
    TokenizerData data;
    for (const std::string& token : tiny.vocabulary) data.tokens.push_back(SeededTokenizer::spell(token));
    data.split = tiny.pattern;
    std::set<Token> made;
    for (std::size_t i = 0; i < tiny.merges.size(); ++i)
      if (made.insert(tiny.results[i]).second)
        data.merges.push_back(
            {tiny.merges[i].first, tiny.merges[i].second, tiny.results[i], static_cast<std::uint32_t>(i)});
    const Tokenizer tokenizer = Tokenizer::from(data, "tiny").take();
    std::mt19937 random(seed);
    std::string word(100'000, 'a');
    for (char& c : word) c = static_cast<char>('a' + random() % 3);
    std::vector<Token> expected;
    for (const char c : word) expected.push_back(test::encode(tokenizer, std::string(1, c)).front());
    for (const TokenizerData::Merge& merge : data.merges) {
      std::size_t to = 0;
      for (std::size_t i = 0; i < expected.size(); ++to)
        if (i + 1 < expected.size() && expected[i] == merge.left && expected[i + 1] == merge.right) {
          expected[to] = merge.result;
          i += 2;
        } else {
          expected[to] = expected[i++];
        }
      expected.resize(to);
    }
    REQUIRE(test::encode(tokenizer, word) == expected);
  }
}

TEST_CASE("words that come again become what they were") {
  const SeededTokenizer tiny(21, "abc", 120);
  const Tokenizer tokenizer = tiny.open();
  std::mt19937 random(2101);
  // More of them than are remembered, of all lengths around the longest that is.
  std::vector<std::string> words(6000);
  std::vector<std::vector<Token>> ids;
  for (std::string& word : words) {
    word.assign(1 + random() % (random() % 2 ? 4 : 36), 'a');
    for (char& c : word) c = static_cast<char>('a' + random() % 3);
    word[0] = ' ';
    ids.push_back(tiny.encode_word(word));
  }
  for (const std::size_t count : {1u, 10u, 1000u, 100'000u}) {
    std::string text;
    std::vector<Token> expected = {7, 8, 9};  // what stood in the output before
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t which = random() % (i % 3 ? words.size() : 20);
      if (words[which].size() == 1) continue;
      text += words[which];
      expected.insert(expected.end(), ids[which].begin(), ids[which].end());
    }
    std::vector<Token> out = {7, 8, 9};
    REQUIRE(tokenizer.encode(text, Specials::ordinary, out).ok());
    CHECK(out == expected);
  }
}

TEST_CASE("a word that is a token stays whole only when the file says so") {
  SeededTokenizer tiny(7, "xyz", 60);
  for (const bool ignore_merges : {false, true}) {
    tiny.ignore_merges = ignore_merges;
    const Tokenizer tokenizer = tiny.open();
    std::size_t different = 0;
    for (Token id = 0; id < tiny.vocabulary.size(); ++id) {
      const std::string& word = tiny.vocabulary[id];
      if (word.find_first_not_of("xyz") != word.npos) continue;
      const std::vector<Token> ids = test::encode(tokenizer, word);
      REQUIRE(ids == tiny.encode_word(word));
      different += ids != std::vector<Token>{id};
    }
    CHECK((different == 0) == ignore_merges);  // this seed has tokens that merging does not reach
  }
}

TEST_CASE("a megabyte without a space is encoded and given back") {
  const SeededTokenizer tiny(11, "ab", 200);
  const Tokenizer tokenizer = tiny.open();
  std::mt19937 random(5);
  std::string word(1 << 20, 'a');
  const std::vector<Token> same = test::encode(tokenizer, word);
  CHECK(tokenizer.decode(same, Specials::ordinary) == word);
  for (char& c : word) c = random() % 2 ? 'a' : 'b';
  CHECK(tokenizer.decode(test::encode(tokenizer, word), Specials::ordinary) == word);
}
