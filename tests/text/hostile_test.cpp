// Cut and damaged tokenizer.json files: cut ones are always errors that name the file, damaged ones are
// errors or a tokenizer that keeps its promises.
#include "support/data.hpp"
#include "text/seeded_tokenizer.hpp"

#include <random>
#include <string>

#include <doctest/doctest.h>

using namespace nib;
using test::SeededTokenizer;

namespace {

void check_refusal(const Status& status) {
  CHECK((status.code() == Code::format || status.code() == Code::unsupported));
  CHECK_MESSAGE(status.message().starts_with("some.json: "), status.message());
  CHECK_MESSAGE(status.message().size() < 2000, status.message());
}

// What every tokenizer does, whatever its file said.
void check_promises(const Tokenizer& tokenizer) {
  const std::string text = "Once <|start|>upon a  time\n\xff\xe2\x82\xac it's 1234 \xf0\x9f\x98\x80";
  for (const Specials specials : {Specials::ordinary, Specials::recognised}) {
    std::vector<Token> ids;
    REQUIRE(tokenizer.encode(text, specials, ids).ok());
    std::string bytes;
    for (const Token id : ids) {
      REQUIRE(id < tokenizer.size());
      bytes += tokenizer.bytes(id);
    }
    if (tokenizer.lossless()) CHECK(bytes == text);
  }
}

void cut_and_flip(const std::string& json, std::size_t cuts, std::size_t flips, unsigned seed) {
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < cuts; ++i) {
    const std::size_t size = cuts == json.size() ? i : random() % json.size();
    const auto tokenizer = Tokenizer::from_json(std::string_view(json).substr(0, size), "some.json");
    REQUIRE(!tokenizer.ok());
    CHECK(tokenizer.status().code() == Code::format);
    check_refusal(tokenizer.status());
  }
  for (std::size_t i = 0; i < flips; ++i) {
    std::string damaged = json;
    for (std::size_t n = 1 + random() % 3; n > 0; --n)
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    const auto tokenizer = Tokenizer::from_json(damaged, "some.json");
    if (tokenizer.ok())
      check_promises(*tokenizer);
    else
      check_refusal(tokenizer.status());
  }
}

}  // namespace

TEST_CASE("a small file, cut and damaged") {
  SeededTokenizer tiny(41, "once upn", 40);
  tiny.added = {"<|start|>", "<|end|>"};
  cut_and_flip(tiny.json(), tiny.json().size(), 2000, 20260105);  // every length
  tiny.merges_as_pairs = false;
  cut_and_flip(tiny.json(), 500, 2000, 20260106);
}

TEST_CASE("the damage that matters: structure and numbers") {
  SeededTokenizer tiny(42, "once upn", 20);
  tiny.added = {"<|start|>", "<|end|>"};
  const std::string json = tiny.json();
  std::mt19937 random(20260107);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < json.size(); ++i)
    if (std::string_view("{}[],:\"0123456789tfn").find(json[i]) != std::string_view::npos)
      places.push_back(i);
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = json;
    const std::size_t at = places[random() % places.size()];
    switch (random() % 3) {
      case 0:
        damaged[at] = json[places[random() % places.size()]];
        break;
      case 1:
        damaged.erase(at, 1 + random() % 20);
        break;
      default:
        damaged.insert(at, json, places[random() % places.size()], 1 + random() % 20);
    }
    const auto tokenizer = Tokenizer::from_json(damaged, "some.json");
    if (tokenizer.ok())
      check_promises(*tokenizer);
    else
      check_refusal(tokenizer.status());
  }
}

TEST_CASE("a real file, cut and damaged") {
  NIB_REQUIRE_DATA(root);
  const std::string json = test::read_text(root + "/models/tales/tokenizer.json");
  check_promises(*Tokenizer::from_json(json, "tales"));
  cut_and_flip(json, 300, 300, 20260108);
}

TEST_CASE("many added tokens that begin alike, in a text that nearly spells them") {
  SeededTokenizer tiny(43, "ab", 10);
  std::string content = "<";
  for (int i = 0; i < 500; ++i) tiny.added.push_back(content += "x");
  tiny.added.push_back(content + "y");
  const Tokenizer tokenizer = tiny.open();
  std::string text(1 << 20, 'x');
  for (std::size_t i = 0; i < text.size(); i += 700) text[i] = '<';
  std::vector<Token> ids;
  REQUIRE(tokenizer.encode(text, Specials::recognised, ids).ok());
  CHECK(tokenizer.decode(ids, Specials::recognised) == text);
}
