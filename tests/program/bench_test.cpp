// nibble bench: what it reports, for people and for programs.
#include "model/quantize_rig.hpp"
#include "process.hpp"
#include <nibble/base/json.hpp>
#include <nibble/io/gguf_writer.hpp>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("bench: a line for each measurement, and the same as JSON") {
  const std::vector<std::string> few = {"bench", "-p",        "8",   "-n",       "4", "--contexts",
                                        "0,16",  "--batches", "1,2", "--rounds", "2"};
  const Finished text = nibble(few);
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  for (const char* word : {"model", "machine", "load", "prefill", "decode", "% of "}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
  auto arguments = few;
  arguments.push_back("--json");
  const Finished run = nibble(arguments);
  CHECK(run.code == 0);
  const Json json = parse_json(run.out, "stdout").take();
  for (const char* key : {"model", "machine", "load", "results"}) CHECK(json.find(key) != nullptr);
  CHECK(json.find("machine")->find("read_bytes_per_second")->as_double() > 0);
  const auto& results = json.find("results")->items();
  REQUIRE(results.size() == 6);
  for (const Json& result : results) {
    CHECK(result.find("tokens_per_second")->as_double() > 0);
    CHECK(result.find("seconds")->items().size() == 2);
    const bool batch = result.find("sessions")->as_integer() > 1;
    CHECK(result.find("share_of_machine")->is_null() == batch);
    const bool decode = result.find("kind")->as_string() == "decode";
    CHECK(result.find("account")->is_null() == (batch || !decode));
    CHECK((result.find("kind")->as_string() == "prefill" || result.find("kind")->as_string() == "decode"));
  }
}

// Ops and what lies between them make up the token; of each, what it reads is what explain says.
TEST_CASE("bench --account: where the time of a token goes") {
  const std::vector<std::string> few = {"bench", "-p", "0", "-n", "8", "--contexts", "0,64", "--rounds", "2"};
  auto arguments = few;
  arguments.push_back("--account");
  const Finished text = nibble(arguments);
  CHECK(text.code == 0);
  for (const char* word : {"Decoding after 64 tokens", "experts", "attention", "rest", "at best of taken"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
  arguments = few;
  arguments.push_back("--json");
  const Json json = parse_json(nibble(arguments).out, "stdout").take();
  const double rate = json.find("machine")->find("read_bytes_per_second")->as_double();
  std::vector<double> bytes;
  for (const Json& result : json.find("results")->items()) {
    const Json& account = *result.find("account");
    double ops = 0, read = 0, phases = 0;
    REQUIRE(account.find("ops")->items().size() == 7);
    for (const Json& op : account.find("ops")->items()) {
      CHECK(op.find("seconds")->as_double() > 0);
      CHECK(op.find("floor_seconds")->as_double() * rate == doctest::Approx(op.find("bytes")->as_double()));
      ops += op.find("seconds")->as_double();
      read += op.find("bytes")->as_double();
      phases += op.find("phases")->as_double();
    }
    CHECK(ops <= account.find("seconds")->as_double());
    CHECK(phases == doctest::Approx(6 * 6 + 1));  // of tales: six in each of six layers, and the head's
    bytes.push_back(read);
  }
  REQUIRE(bytes.size() == 2);
  CHECK(bytes[1] > bytes[0]);  // keys and values
}

// "no_vocab", as llama.cpp's tools write it, and we; others say nothing. Ids are all that a bench needs.
TEST_CASE("bench: a GGUF file without a vocabulary") {
  const TemporaryDirectory folder;
  write_llama(folder.path(), {}, random_llama({}, 1));
  REQUIRE(quantize(folder.path(), folder.path("no_vocab.gguf"), "f32").ok());
  const Checkpoint ours = open(folder.path("no_vocab.gguf"));
  REQUIRE(ours.gguf->find("tokenizer.ggml.model")->as_string() == "no_vocab");
  GgufPairs pairs;
  for (std::size_t i = 0; i < ours.gguf->size(); ++i)
    if (ours.gguf->key(i) != "tokenizer.ggml.model") pairs.add(ours.gguf->key(i), ours.gguf->value(i));
  std::vector<GgufTensorSpec> specs;
  for (const CheckpointTensor& tensor : ours.tensors)
    specs.push_back({tensor.name, GgufType::f32, tensor.shape});
  auto writer = GgufWriter::create(folder.path("without.gguf"), pairs, specs);
  REQUIRE_MESSAGE(writer.ok(), writer.status().message());
  for (const CheckpointTensor& tensor : ours.tensors) {
    const std::vector<float> values = values_of(ours, tensor.name);
    REQUIRE(writer->append(std::as_bytes(std::span(values))).ok());
  }
  REQUIRE(writer->finish().ok());
  for (const char* name : {"without.gguf", "no_vocab.gguf"}) {
    const Finished run = nibble({"bench", "-m", folder.path(name), "-p", "8", "-n", "2", "--rounds", "1"});
    CHECK_MESSAGE(run.code == 0, run.err);
  }
  CHECK(nibble({"tokenize", "-m", folder.path("no_vocab.gguf")}).code != 0);
}

TEST_CASE("bench: what cannot be measured is said") {
  CHECK(nibble({"bench", "--batches", "0"}).code == 2);
  CHECK(nibble({"bench", "--rounds", "0"}).code == 2);
  CHECK(nibble({"bench", "-p", "0", "-n", "0"}).code == 2);
  const Finished far = nibble({"bench", "--contexts", "4000000000"});
  CHECK(far.code != 0);
  CHECK(far.err.find("context") != std::string::npos);
  CHECK(nibble({"bench", "-m", "/nowhere"}).code == 3);
}

}  // namespace
}  // namespace nib::test
