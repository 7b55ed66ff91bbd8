// nibble plan: from parameters, from a config.json, of a model.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

Json report(std::vector<std::string> arguments, std::string input = "") {
  arguments.insert(arguments.begin(), {"plan", "--json"});
  return json_report(std::move(arguments), std::move(input));
}

TEST_CASE("plan --params: the memory table of the literature") {
  const std::string text = nibble({"plan", "--params", "108e9@mxfp4+12e9@bf16"}).out;
  for (const std::string word : {"57.4 GB", "24.0 GB", "81.4 GB", "57375000000", "24000000000", "4.25"}) {
    CAPTURE(word);
    CHECK(text.find(word) != std::string::npos);
  }
  const Json json = report({"--params", "114661785600@mxfp4+2167371072@bf16"});  // gpt-oss-120b
  CHECK(json.find("bytes")->as_integer() == 65'248'815'744);
  CHECK(json.find("parameters")->as_integer() == 116'829'156'672);
  CHECK(json.find("items")->items().front().find("bytes")->as_integer() == 60'914'073'600);
  CHECK(report({"--params", "70e+9@q8_0"}).find("bits_per_weight")->as_double() == 8.5);
  for (const std::string wrong :
       {"5", "5@", "@bf16", "5@bf17", "5@bf16+", "5@bf16++5@bf16", "x@bf16", "1.5@bf16"}) {
    CAPTURE(wrong);
    const Finished run = nibble({"plan", "--params", wrong});
    CHECK(run.code == 2);
    CHECK(run.out.empty());
    CHECK_FALSE(run.err.empty());
  }
}

TEST_CASE("plan: of a model, and of its config alone") {
  const Json model = report({"-c", "1000", "--memory", "1G"});
  const Json config = report({"--config", "-", "-c", "1000", "--memory", "1G"},
                             read_text(std::string(NIBBLE_TALES) + "/config.json"));
  for (const char* key :
       {"bytes", "stored_bytes", "parameters", "decode_bytes", "context", "longest_context"})
    CHECK(model.find(key)->as_integer() == config.find(key)->as_integer());
  CHECK(model.find("fits")->as_bool());
  CHECK(model.find("predicted")->find("decode_tokens_per_second")->as_double() > 0);
  const std::string text = nibble({"plan", "--memory", "1M"}).out;
  for (const std::string word : {"Does not fit", "in the files", "experts (mxfp4)", "18369312", "tokens/s"}) {
    CAPTURE(word);
    CHECK(text.find(word) != std::string::npos);
  }
  CHECK(report({"--sessions", "4"}).find("bytes")->as_integer() > report({}).find("bytes")->as_integer());
  CHECK(nibble({"plan", "-m", "/nowhere"}).code == 3);
  CHECK(nibble({"plan", "--config", "-"}, "{").code == 4);
  CHECK(nibble({"plan", "--config", "-", "--params", "1@bf16"}).code == 2);
}

}  // namespace
}  // namespace nib::test
