// Merging against the definition of BPE, on words of every length around the switch from scanning to the
// queue.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"

#include <random>
#include <string>

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
