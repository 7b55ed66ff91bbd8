// GGUF files as checkpoints: which files a path means, what their tensors become, and what split files must
// agree on.
#include "io/tiny.hpp"
#include "io/tiny_gguf.hpp"
#include "support/data.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <doctest/doctest.h>

using namespace nib;
using test::FaultyFileSystem;
using test::gguf_string;
using test::gguf_text;
using test::gguf_u32;
using test::TinyGguf;

namespace {

TinyGguf model() {
  TinyGguf gguf;
  gguf.pairs = {gguf_text("general.architecture", "llama"),
                gguf_text("tokenizer.chat_template", "{{ messages }}"),
                test::gguf_array("tokenizer.ggml.tokens", 8, 2, gguf_string("a") + gguf_string("b"))};
  gguf.tensors = {{"token_embd.weight", {32, 2}, 30, test::random_bytes(128, 1)},
                  {"blk.0.ffn_down.weight", {64, 2}, 8, test::random_bytes(136, 2)},
                  {"blk.0.ids", {2}, 26, test::random_bytes(8, 3)},
                  {"blk.0.odd.weight", {256}, 16, test::random_bytes(66, 4)}};
  return gguf;
}

// Files "s/m-0000K-of-0000N.gguf", each with one tensor of its own.
FaultyFileSystem split_model(std::uint32_t count) {
  FaultyFileSystem files;
  for (std::uint32_t i = 0; i < count; ++i) {
    TinyGguf gguf;
    if (i == 0) gguf.pairs = {gguf_text("general.architecture", "llama")};
    gguf.pairs.push_back(test::gguf_pair("split.no", 2, test::le(i, 2)));
    gguf.pairs.push_back(test::gguf_pair("split.count", 2, test::le(count, 2)));
    gguf.pairs.push_back(test::gguf_pair("split.tensors.count", 5, test::le(count, 4)));
    gguf.tensors = {{concat("t", i), {3}, 0, test::random_bytes(12, i)}};
    files.add(concat("s/m-0000", i + 1, "-of-0000", count, ".gguf"), gguf.file());
  }
  return files;
}

void check_refused(const FaultyFileSystem& files, const std::string& path, Code code,
                   const std::string& said) {
  const Status status = open_checkpoint(path, files).status();
  CHECK_MESSAGE(status.code() == code, status.message());
  CHECK_MESSAGE(status.message().find(said) != std::string::npos, status.message());
}

std::string plane_text(const Checkpoint& checkpoint, const Plane& plane) {
  std::string text(plane.bytes, '\0');
  REQUIRE(read_plane(checkpoint, plane, 0, std::as_writable_bytes(std::span(text))).ok());
  return text;
}

}  // namespace

TEST_CASE("a GGUF file by its path, and by the directory that holds nothing else") {
  FaultyFileSystem files;
  const TinyGguf gguf = model();
  files.add("d/model.gguf", gguf.file());
  files.add("d/readme.md", "x");
  files.add("d/config.json", "not read: the file has its own");
  for (const char* path : {"d/model.gguf", "d"}) {
    const auto checkpoint = open_checkpoint(path, files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK(checkpoint->path == path);
    CHECK(checkpoint->directory == "d");
    CHECK(checkpoint->config.is_null());
    REQUIRE(checkpoint->gguf.has_value());
    CHECK(checkpoint->gguf->find("general.architecture")->as_string() == "llama");
    CHECK(checkpoint->gguf->find("tokenizer.ggml.tokens")->strings().size() == 2);
    CHECK(checkpoint->chat_template == "{{ messages }}");
    REQUIRE(checkpoint->tensors.size() == 4);
    for (std::size_t i = 1; i < 4; ++i) CHECK(checkpoint->tensors[i - 1].name < checkpoint->tensors[i].name);
    for (const test::TinyGgufTensor& stored : gguf.tensors)
      CHECK(plane_text(*checkpoint, checkpoint->find(stored.name)->codes) == stored.data);
    const CheckpointTensor* embedding = checkpoint->find("token_embd.weight");
    CHECK(embedding->format == Format::bf16);
    CHECK(embedding->shape == std::vector<std::uint64_t>{2, 32});
    const CheckpointTensor* down = checkpoint->find("blk.0.ffn_down.weight");
    CHECK(down->format == Format::q8_0);
    CHECK(down->type_name == "Q8_0");
    CHECK(checkpoint->find("blk.0.ids")->format == Format::none);
    CHECK(checkpoint->find("blk.0.ids")->dtype == DType::i32);
    const CheckpointTensor* odd = checkpoint->find("blk.0.odd.weight");
    CHECK(odd->format == Format::none);
    std::vector<float> values(256);
    CHECK(read_values(*checkpoint, *odd, 0, std::span(values)).message() ==
          concat(path, ": tensor blk.0.odd.weight is stored as IQ2_XXS, which is no weight format here"));
  }
  // Safetensors count before GGUF, and of several files one must be named.
  files.add("d/other.gguf", gguf.file());
  check_refused(files, "d", Code::argument,
                "d: holds 2 models, among them model.gguf and other.gguf; give the path of one");
  CHECK(open_checkpoint("d/other.gguf", files).ok());
  files.add("d/config.json", "{}");
  files.add("d/model.safetensors",
            test::safetensors_of(std::vector<test::TinyTensor>{{"x", "F16", "[1]", "12"}}));
  CHECK_FALSE(open_checkpoint("d", files)->gguf.has_value());
}

TEST_CASE("the values of blocks") {
  // Q8_0 by its formula: an f16 and 32 signed bytes.
  FaultyFileSystem files;
  TinyGguf gguf = model();
  std::string& data = gguf.tensors[1].data;
  for (std::size_t block = 0; block < 4; ++block) {  // scales 0.5, 1, 2, 4
    data[34 * block] = 0;
    data[34 * block + 1] = static_cast<char>(0x38 + 4 * block);
  }
  files.add("m.gguf", gguf.file());
  const auto checkpoint = open_checkpoint("m.gguf", files);
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  std::vector<double> row(64);
  REQUIRE(read_values(*checkpoint, *checkpoint->find("blk.0.ffn_down.weight"), 1, std::span(row)).ok());
  for (std::size_t c = 0; c < 64; ++c)
    CHECK(row[c] ==
          std::ldexp(static_cast<signed char>(data[34 * (2 + c / 32) + 2 + c % 32]), c < 32 ? 1 : 2));
}

TEST_CASE("NVFP4 in GGUF is scaled by the tensor beside it") {
  FaultyFileSystem files;
  const float factors[] = {2.0f, 4.0f};
  const auto with = [&](std::vector<std::uint64_t> dims, std::uint32_t type, const std::string& scale) {
    TinyGguf gguf;
    gguf.pairs = {gguf_text("general.architecture", "llama")};
    gguf.tensors = {{"blk.0.ffn_up_exps.scale", std::move(dims), type, scale},
                    {"blk.0.ffn_up_exps.weight", {64, 3, 2}, 40, std::string(6 * 36, '\x11')}};
    files.add("m.gguf", gguf.file());
  };
  const std::string both(reinterpret_cast<const char*>(factors), sizeof factors);
  with({2}, 0, both);
  const auto checkpoint = open_checkpoint("m.gguf", files);
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  REQUIRE(checkpoint->tensors.size() == 1);
  CHECK(checkpoint->tensors[0].scaling.factors == std::vector<double>{2, 4});
  std::vector<double> values(2 * 3 * 64);
  REQUIRE(read_values(*checkpoint, checkpoint->tensors[0], 0, std::span(values)).ok());
  // Code 1 is 0.5; the scale byte 0x11 is 1.125 * 2^(2 - 7).
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(values[i] == 0.5 * 1.125 / 32 * (i < 3 * 64 ? 2 : 4));
  with({1}, 0, both.substr(0, 4));
  CHECK(open_checkpoint("m.gguf", files)->tensors[0].scaling.factors == std::vector<double>{2});
  with({4}, 1, both);
  check_refused(files, "m.gguf", Code::format,
                "tensor 'blk.0.ffn_up_exps.scale' is F16 [4], F32 with 1 value or 2 was expected");
  with({3}, 0, both + "1234");
  check_refused(files, "m.gguf", Code::format, "is F32 [3], F32 with 1 value or 2");
}

TEST_CASE("a split model opens by any of its files, and by its directory") {
  const FaultyFileSystem files = split_model(3);
  for (const char* path : {"s", "s/m-00001-of-00003.gguf", "s/m-00003-of-00003.gguf"}) {
    const auto checkpoint = open_checkpoint(path, files);
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK(checkpoint->files.size() == 3);
    REQUIRE(checkpoint->tensors.size() == 3);
    for (std::uint32_t i = 0; i < 3; ++i)
      CHECK(plane_text(*checkpoint, checkpoint->find(concat("t", i))->codes) == test::random_bytes(12, i));
    CHECK(checkpoint->gguf->find("general.architecture")->as_string() == "llama");
  }
  const auto vocabulary = open_checkpoint("s/m-00002-of-00003.gguf", files, {.weights = false});
  REQUIRE(vocabulary.ok());
  CHECK(vocabulary->files.size() == 1);
}

TEST_CASE("what split files must agree on") {
  FaultyFileSystem files = split_model(2);
  const std::string first = "s/m-00001-of-00002.gguf", second = "s/m-00002-of-00002.gguf";
  const std::string whole = files.content(second);
  files.remove(second);
  check_refused(files, "s", Code::not_found, second + ": no such file, but it is number 2 of a model in 2");
  const auto replace = [&](const std::vector<std::string>& pairs, const std::string& tensor) {
    TinyGguf gguf;
    gguf.pairs = pairs;
    gguf.tensors = {{tensor, {1}, 0, "1234"}};
    files.add(second, gguf.file());
  };
  replace({gguf_u32("split.count", 3)}, "x");
  check_refused(files, "s", Code::format, second + ": key 'split.count' is 3, the name of the file says 2");
  replace({}, "x");
  check_refused(files, "s", Code::format, second + ": key 'split.count' is missing");
  replace({gguf_text("split.count", "2")}, "x");
  check_refused(files, "s", Code::format, second + ": key 'split.count' is no number");
  replace({gguf_u32("split.count", 2), gguf_u32("split.no", 0)}, "x");
  check_refused(files, "s", Code::format, second + ": key 'split.no' is 0, the name of the file says 1");
  replace({gguf_u32("split.count", 2), gguf_u32("split.no", 1)}, "t0");
  check_refused(files, "s", Code::format, second + ": tensor 't0' is also in " + first);
  TinyGguf two;
  two.pairs = {gguf_u32("split.count", 2)};
  two.tensors = {{"x", {1}, 0, "1234"}, {"y", {1}, 0, "1234"}};
  files.add(second, two.file());
  check_refused(files, "s", Code::format, first + ": key 'split.tensors.count' is 2, the files hold 3");
  // A part under a name that does not say so is not a model.
  files.add("alone.gguf", whole);
  check_refused(files, "alone.gguf", Code::format,
                "alone.gguf: key 'split.count' is 2, the name of the file says 1");
}

TEST_CASE("a GGUF file with a vocabulary alone, and one without an architecture") {
  FaultyFileSystem files;
  TinyGguf gguf = model();
  gguf.tensors.clear();
  gguf.pairs.erase(gguf.pairs.begin());
  files.add("v/vocab.gguf", gguf.file());
  check_refused(files, "v", Code::not_found, "v/vocab.gguf: key 'general.architecture' is missing");
  for (const char* path : {"v", "v/vocab.gguf"}) {
    const auto checkpoint = open_checkpoint(path, files, {.config = false, .weights = false});
    REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
    CHECK(checkpoint->gguf->find("tokenizer.ggml.tokens").has_value());
    CHECK(checkpoint->tensors.empty());
  }
  gguf.pairs[0] = gguf_u32("tokenizer.chat_template", 7);
  files.add("v/vocab.gguf", gguf.file());
  CHECK(open_checkpoint("v", files, {.config = false, .weights = false})
            .status()
            .message()
            .find("key 'tokenizer.chat_template' is no string") != std::string::npos);
}

TEST_CASE("published GGUF files hold the weights of the directory they were made from") {
  NIB_REQUIRE_DATA(root);
  int compared = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root + "/models")) {
    if (entry.path().extension() != ".gguf") continue;
    const auto gguf = open_checkpoint(entry.path().string());
    REQUIRE_MESSAGE(gguf.ok(), gguf.status().message());
    CHECK(gguf->gguf->find("general.architecture").has_value());
    CHECK(gguf->gguf->find("tokenizer.ggml.tokens")->strings().size() > 100);
    const auto hf = open_checkpoint(entry.path().parent_path().parent_path().string());
    REQUIRE_MESSAGE(hf.ok(), hf.status().message());
    // The embedding is stored as it was, or in blocks that are near it.
    const CheckpointTensor* a = gguf->find("token_embd.weight");
    const CheckpointTensor* b = hf->find("model.embed_tokens.weight");
    if (!b) b = hf->find("gpt_neox.embed_in.weight");
    REQUIRE(a != nullptr);
    REQUIRE(b != nullptr);
    REQUIRE(a->format != Format::none);
    CHECK(a->shape.back() == b->shape.back());
    const std::uint64_t columns = b->shape.back(), rows = std::min(a->shape[0], b->shape[0]);
    std::vector<float> left(rows * columns), right(rows * columns);
    REQUIRE(read_values(*gguf, *a, 0, std::span(left)).ok());
    REQUIRE(read_values(*hf, *b, 0, std::span(right)).ok());
    double error = 0, power = 0;
    for (std::size_t i = 0; i < left.size(); ++i) {
      error += std::pow(static_cast<double>(left[i]) - right[i], 2);
      power += std::pow(static_cast<double>(right[i]), 2);
    }
    CHECK_MESSAGE(error <= (a->format == b->format ? 0.0 : 1e-3 * power), entry.path());
    ++compared;
  }
  CHECK(compared > 0);
}
