// nibble quantize: from the command line to a model that runs, and what it answers when it does not work.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <algorithm>
#include <filesystem>
#include <random>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST_CASE("quantize: a model of the other container runs, and says what the first one says") {
  const Folder folder;
  const std::string gguf = (folder.path() / "tales.gguf").string(),
                    plain = (folder.path() / "plain").string();
  const Finished first = nibble({"quantize", NIBBLE_TALES, gguf, "--format", "mxfp4"});
  CHECK(first.code == 0);
  CHECK(first.err.empty());
  CHECK(has(first.out, "tales.gguf, 117 tensors"));
  const Finished second = nibble({"quantize", NIBBLE_TALES, plain, "-f", "bf16", "-t", "3"});
  CHECK(second.code == 0);
  CHECK(has(second.out, "in 16.0 bits each, nothing lost"));
  const std::vector<std::string> story = {"run",        "-n",  "40", "--temp",          "0",
                                          "--numerics", "f32", "-p", "Once upon a time"};
  const Finished expected = nibble(story);
  for (const std::string& model : {gguf, plain}) {
    std::vector<std::string> words = story;
    words.insert(words.end(), {"-m", model});
    CHECK(nibble(words).out == expected.out);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
}

TEST_CASE("quantize: a GGUF file becomes a directory, which says the same by every verb") {
  const Folder folder;
  const std::string gguf = (folder.path() / "tales.gguf").string(), back = (folder.path() / "back").string();
  REQUIRE(nibble({"quantize", NIBBLE_TALES, gguf, "--format", "mxfp4"}).code == 0);
  const Finished made = nibble({"quantize", gguf, back, "--format", "mxfp4"});
  CHECK(made.code == 0);
  CHECK(made.err.empty());
  CHECK(has(made.out, "105 tensors, 0 of them quantized to mxfp4"));
  const auto both = [&](std::vector<std::string> words, const std::string& input) {
    CAPTURE(words[0]);
    words.insert(words.end(), {"-m", gguf});
    const Finished expected = nibble(words, input);
    words.back() = back;
    const Finished found = nibble(words, input);
    CHECK(expected.code == 0);
    CHECK(found.code == 0);
    return std::pair(expected.out, found.out);
  };
  const std::string text = "Once upon a time there was a dog. He said: \"I am 7!\" <|end|>\n";
  const auto story =
      both({"run", "-n", "40", "--temp", "0", "--numerics", "f32", "-p", "Once upon a time"}, "");
  CHECK(story.first == story.second);
  const auto ids = both({"tokenize", "--special"}, text);
  CHECK(ids.first == ids.second);
  const auto judged = both({"perplexity", "-f", "-", "--json", "--numerics", "f32"}, text);
  const auto loss = [](const std::string& json) {
    return parse_json(json, "stdout").take().find("nll")->find("value")->as_double();
  };
  CHECK(loss(judged.first) == loss(judged.second));
  CHECK(nibble({"explain", "-m", back}).code == 0);
  CHECK(has(nibble({"inspect", back, "--tensors"}).out, "model.layers.5.mlp.experts.gate_up_proj"));
}

TEST_CASE("quantize: what of a GGUF file no directory holds becomes bf16, and MXFP4 stays where it may") {
  const Folder folder;
  const auto path = [&](const char* name) { return (folder.path() / name).string(); };
  REQUIRE(nibble({"quantize", NIBBLE_TALES, path("a.gguf"), "--format", "mxfp4"}).code == 0);
  REQUIRE(
      nibble({"quantize", path("a.gguf"), path("b.gguf"), "--format", "q8_0", "--only", "attn_(q|k).weight"})
          .code == 0);
  const Finished some =
      nibble({"quantize", path("b.gguf"), path("out"), "--format", "bf16", "--only", "attn_v.weight"});
  CHECK(some.code == 0);
  CHECK(has(some.err, "blk.0.attn_q.weight and 11 more: safetensors hold no q8_0: becomes bf16"));
  const std::string seen = nibble({"inspect", path("out")}).out;
  CHECK(has(seen, "mxfp4"));
  CHECK_FALSE(has(seen, "q8_0"));
  const auto config = parse_json(read_text(path("out") + "/config.json"), "config.json");
  REQUIRE(config.ok());
  REQUIRE(config->find("quantization_config"));
  CHECK(config->find("quantization_config")->find("quant_method")->as_string() == "mxfp4");
}

TEST_CASE("quantize: the summary, notes, and --only") {
  const Folder folder;
  const auto out = [&](const char* name) { return (folder.path() / name).string(); };
  const Finished nf4 =
      nibble({"quantize", NIBBLE_TALES, out("a"), "--format", "nf4", "--only", "(gate_up|down)_proj$"});
  CHECK(nf4.code == 0);
  CHECK(has(nf4.out, "105 tensors, 12 of them quantized to nf4"));
  CHECK(has(nf4.out, "18.9 M in 4.50 bits each"));
  CHECK(has(nf4.out, "dB signal to noise"));
  const Finished fp8 = nibble({"quantize", NIBBLE_TALES, out("b"), "--format", "fp8"});
  CHECK(fp8.code == 0);
  CHECK(has(fp8.err, "experts.gate_up_proj and 5 more"));
  CHECK(has(fp8.err, "stays mxfp4"));
}

TEST_CASE("quantize --prepare: the same text, and inspect tells") {
  const Folder folder;
  const std::string out = (folder.path() / "prepared").string();
  const Finished made = nibble({"quantize", NIBBLE_TALES, out, "--prepare"});
  CHECK(made.code == 0);
  CHECK(has(made.out, "31 matrices packed, 62 tensors as they were"));
  const std::vector<std::string> story = {"run", "-n", "40", "--temp", "0", "-p", "Once upon a time"};
  std::vector<std::string> prepared = story;
  prepared.insert(prepared.end(), {"-m", out});
  CHECK(nibble(prepared).out == nibble(story).out);
  CHECK(has(nibble({"inspect", out}).out, "105 tensors, prepared in layout 1"));
  const Finished again = nibble({"quantize", out, out + "-2", "--format", "bf16"});
  CHECK(again.code == 6);
  CHECK(has(again.err, "was prepared"));
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--prepare"}).code == 2);  // it exists
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--prepare", "--overwrite"}).code == 0);
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--prepare", "--format", "bf16"}).code == 2);
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--prepare", "--only", "x"}).code == 2);
}

TEST_CASE("quantize: exit codes") {
  const Folder folder;
  const std::string out = (folder.path() / "out").string(), gguf = out + ".gguf";
  CHECK(nibble({"quantize"}).code == 2);
  CHECK(nibble({"quantize", NIBBLE_TALES, out}).code == 2);  // no format
  const Finished unknown = nibble({"quantize", NIBBLE_TALES, out, "--format", "q3"});
  CHECK(unknown.code == 2);
  CHECK(has(unknown.err, "--format q3: is none of mxfp4, nvfp4"));
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "nf4", "--scale-rule", "best"}).code == 2);
  CHECK(nibble({"quantize", NIBBLE_TALES, gguf, "--format", "q4_0", "--scale-rule", "round-up"}).code == 2);
  const Finished pattern = nibble({"quantize", NIBBLE_TALES, out, "--format", "nf4", "--only", "(a"});
  CHECK(pattern.code == 2);
  CHECK(has(pattern.err, "--only (a: is no regular expression"));
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "nf4", "--only", "(a)\\1"}).code == 2);
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "nf4", "--only", "no such name"}).code == 2);
  CHECK(nibble({"quantize", "/no/such/model", out, "--format", "nf4"}).code == 3);
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "q4_0"}).code == 6);
  CHECK(nibble({"quantize", NIBBLE_TALES, gguf, "--format", "nf4"}).code == 6);
  CHECK(nibble({"quantize", NIBBLE_TALES, "/proc/nowhere/out", "--format", "nf4"}).code == 1);
  CHECK(std::filesystem::is_empty(folder.path()));

  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "nf4"}).code == 0);
  const Finished again = nibble({"quantize", NIBBLE_TALES, out, "--format", "fp4"});
  CHECK(again.code == 2);
  CHECK(has(again.err, "--overwrite replaces it."));
  CHECK(nibble({"quantize", NIBBLE_TALES, out, "--format", "fp4", "--overwrite"}).code == 0);
  CHECK(nibble({"quantize", out, out, "--format", "nf4", "--overwrite"}).code == 2);
  const Finished inspected = nibble({"inspect", out});
  CHECK(has(inspected.out, "bnb_fp4"));
  CHECK_FALSE(has(inspected.out, "nf4 "));
}

// A model with one tensor that takes seconds.
void write_large_model(const std::filesystem::path& directory) {
  std::filesystem::create_directory(directory);
  Folder::write(directory, "config.json",
                R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 8192,
      "num_attention_heads": 32, "num_hidden_layers": 1, "vocab_size": 32, "max_position_embeddings": 512,
      "rms_norm_eps": 1e-5})");
  std::vector<float> row(4096);
  std::mt19937 random(7);
  for (float& value : row) value = std::normal_distribution<float>()(random);
  const std::vector<TensorSpec> specs = {{"model.layers.0.mlp.up_proj.weight", DType::f32, {8192, 4096}}};
  auto writer = SafetensorsWriter::create((directory / "model.safetensors").string(), specs);
  REQUIRE(writer.ok());
  for (int i = 0; i < 8192; ++i) REQUIRE(writer->append(std::as_bytes(std::span(row))).ok());
  REQUIRE(writer->finish().ok());
}

TEST_CASE("quantize: Ctrl-C takes away what was begun") {
  NIB_REQUIRE_TERMINAL();
  const Folder folder;
  write_large_model(folder.path() / "in");
  OnTerminal terminal({"quantize", (folder.path() / "in").string(), (folder.path() / "out").string(),
                       "--format", "nvfp4", "--scale-rule", "least-error", "-t", "1"});
  REQUIRE(terminal.wait_for("quantizing"));
  terminal.type(kCtrlC);
  CHECK(terminal.finish() == 130);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

}  // namespace
}  // namespace nib::test
