// nibble perplexity: the recorded numbers, one text however it comes, and a model against another.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <cmath>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr const char* kStories =
    "Once upon a time, there was a little girl named Lily. She loved to play with her toys.\n"
    "<|endoftext|>\n"
    "Once there was a dog. The dog was very happy, and it played in the park <|endoftext|> all day long.\n"
    "<|endoftext|>\n";

Json report(std::vector<std::string> arguments, std::string input = kStories) {
  arguments.insert(arguments.begin(), {"perplexity", "--json"});
  return json_report(std::move(arguments), std::move(input));
}

double number(const Json& json, std::initializer_list<const char*> keys) {
  const Json* value = &json;
  for (const char* key : keys) {
    value = value->find(key);
    REQUIRE_MESSAGE(value, key);
  }
  return value->as_double();
}

TEST_CASE("slow: every recorded text of the shipped model, as its README cuts it") {
  NIB_REQUIRE_DATA(data);
  const Json record = parse_json(read_text(data + "/models/tales/golden.json"), "golden.json").take();
  int found = 0;
  for (const Json::Member& member : record.members()) {
    const auto& name = member.first;
    const Json& text = member.second;
    if (!name.starts_with("nll_")) continue;
    CAPTURE(name);
    ++found;
    const Json json = report({"-f", data + "/corpus/" + text.find("file")->as_string(), "--numerics", "f32",
                              "-c", std::to_string(text.find("window")->as_integer()), "--windows",
                              std::to_string(text.find("windows")->as_integer())},
                             "");
    // Two engines, each 1.4e-5 from float64 in a logit, which moves -log p by at most twice that.
    CHECK(std::abs(number(json, {"nll", "value"}) - number(text, {"mean_nll"})) < 2 * 2 * 1.4e-5);
    CHECK(number(json, {"perplexity", "value"}) ==
          doctest::Approx(number(text, {"perplexity"})).epsilon(6e-5));
    CHECK(number(json, {"windows"}) == number(text, {"windows"}));
  }
  CHECK(found > 0);
}

TEST_CASE("perplexity: a text from a file or stdin, and what ends its parts") {
  const Folder folder;
  const Json json = report({"-f", "-"});
  const double nll = number(json, {"nll", "value"});
  CHECK(number(report({"-f", folder.write("stories.txt", kStories)}, ""), {"nll", "value"}) == nll);
  CHECK(number(json, {"predictions"}) == number(json, {"tokens"}) - 1);
  CHECK(number(json, {"perplexity", "value"}) == doctest::Approx(std::exp(nll)));
  CHECK(number(json, {"perplexity", "value"}) > 1);
  CHECK(number(json, {"nll", "error"}) > 0);
  CHECK(json.find("against")->is_null());
  // A line of its own is one token; elsewhere the same letters are text, unless asked otherwise.
  const double tokens = number(json, {"tokens"});
  CHECK(number(report({"-f", "-", "--special"}), {"tokens"}) < tokens - 3);
  CHECK(number(report({"-f", "-", "--bos"}), {"predictions"}) == tokens);
  CHECK(number(report({"-f", "-", "-c", "16", "--stride", "4"}), {"predictions"}) == tokens - 1);
  CHECK(number(report({"-f", "-", "-c", "16", "--windows", "2"}), {"predictions"}) == 30);
  const Finished text = nibble({"perplexity", "-f", "-"}, kStories);
  for (const char* word : {"perplexity", "mean -log p", " +/- ", "windows of 512", "stdin"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
}

TEST_CASE("perplexity: against itself, and against itself rounded less") {
  const Json same = report({"-f", "-", "--against", NIBBLE_TALES});
  CHECK(number(same, {"against", "kl_divergence", "value"}) == 0);
  CHECK(number(same, {"against", "top1_agreement", "value"}) == 1);
  CHECK(number(same, {"against", "ratio", "value"}) == 1);
  const Json rounded = report({"-f", "-", "--against", NIBBLE_TALES, "--against-numerics", "f32"});
  CHECK(number(rounded, {"against", "kl_divergence", "value"}) > 0);
  CHECK(number(rounded, {"against", "kl_divergence", "value"}) < 0.05);
  CHECK(number(rounded, {"against", "kl_divergence", "median"}) <=
        number(rounded, {"against", "kl_divergence", "maximum"}));
  CHECK(number(rounded, {"against", "nll", "value"}) ==
        number(report({"-f", "-", "--numerics", "f32"}), {"nll", "value"}));
  CHECK(nibble({"perplexity", "-f", "-", "--against", NIBBLE_TALES}, kStories).out.find("KL divergence") !=
        std::string::npos);
}

TEST_CASE("perplexity: what it refuses") {
  CHECK(nibble({"perplexity"}).code == 2);
  CHECK(nibble({"perplexity", "-f", "-"}, "").code == 2);
  CHECK(nibble({"perplexity", "-f", "-", "-c", "1"}, kStories).code == 2);
  CHECK(nibble({"perplexity", "-f", "-", "--stride", "600"}, kStories).code == 2);
  CHECK(nibble({"perplexity", "-f", "/nowhere.txt"}).code == 3);
  CHECK(nibble({"perplexity", "-f", "-", "--against", "/nowhere"}, kStories).code == 3);
  CHECK(nibble({"perplexity", "-f", "-", "--memory", "1M"}, kStories).code == 5);
}

}  // namespace
}  // namespace nib::test
