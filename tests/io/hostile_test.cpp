// Damaged checkpoints: cut, flipped, failing. Each is an error that names its file, or opens and keeps its
// promises.
#include "io/tiny.hpp"
#include "io/tiny_gguf.hpp"
#include "io/tiny_quantized.hpp"
#include "support/data.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <random>

#include <doctest/doctest.h>

using namespace nib;
using test::FaultyFileSystem;

namespace {

// What an opened checkpoint promises: planes lie in their files, and their values can be read.
void check_promises(const Checkpoint& checkpoint) {
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    std::uint64_t values = 1;
    for (const std::uint64_t size : tensor.shape) values *= size;
    for (const Plane& plane : {tensor.codes, tensor.scales, tensor.scaling.nested_scales}) {
      REQUIRE(plane.file < checkpoint.files.size());
      const std::uint64_t size = checkpoint.files[plane.file]->size();
      CHECK(plane.offset <= size);
      CHECK(plane.bytes <= size - plane.offset);
    }
    CHECK(checkpoint.find(tensor.name) == &tensor);
    const FormatInfo& info = format_info(tensor.format);
    if (tensor.format == Format::none) continue;
    REQUIRE(tensor.codes.bytes == (values + info.group - 1) / info.group * info.code_bytes);
    if (info.scales == Scales::plane) CHECK(tensor.scales.bytes == values / info.group * info.scale_bytes);
    // The first rows and the last, of a large tensor.
    const std::uint64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (values == 0) continue;
    const std::uint64_t rows = values / columns, some = std::min(rows, 1 + 256 / columns);
    std::vector<float> out(some * columns);
    for (const std::uint64_t first : {std::uint64_t{0}, rows - some}) {
      const Status read = read_values(checkpoint, tensor, first, std::span<float>(out));
      CHECK_MESSAGE(read.ok(), read.message());
    }
  }
}

// The bytes of a file that decide: all of a JSON file; of a container its header, unless told that tensors
// describe tensors.
std::size_t deciding_bytes(const FaultyFileSystem& files, const std::string& path, const std::string& content,
                           bool all) {
  if (all || path.ends_with(".json")) return content.size();
  if (path.ends_with(".gguf")) return read_gguf_header(**files.open(path))->data_offset;
  std::size_t length = 0;
  for (std::size_t i = 0; i < 8; ++i)
    length |= std::size_t{static_cast<unsigned char>(content[i])} << (8 * i);
  return 8 + length;
}

// The bytes of a file without which something must be missed.
std::size_t needed_bytes(const FaultyFileSystem& files, const std::string& path, const std::string& content) {
  if (path.ends_with(".json")) return content.rfind('}') + 1;  // white space may go
  if (!path.ends_with(".gguf")) return content.size();
  std::uint64_t end = 0;  // padding may go
  const auto header = read_gguf_header(**files.open(path));
  for (const GgufTensor& tensor : header->tensors) end = std::max(end, tensor.offset + tensor.bytes);
  return end;
}

bool is_read(const std::string& path) {
  const std::string name = name_of(path);
  return !name.starts_with("golden") && name != "tokenizer.json" &&
         (name.ends_with(".json") || name.ends_with(".safetensors") || name.ends_with(".gguf"));
}

// Every kind of damage to every file of directory "m" that opening reads.
void damage(FaultyFileSystem& files, int rounds, std::uint32_t seed, bool everywhere = false) {
  std::mt19937 random(seed);
  REQUIRE(open_checkpoint("m", files).ok());
  int opened = 0, refused = 0;
  for (const std::string& path : files.paths()) {
    if (!is_read(path)) continue;
    const std::string whole = files.content(path);
    const std::size_t needed = needed_bytes(files, path, whole);
    const std::size_t deciding = deciding_bytes(files, path, whole, everywhere);
    for (int round = 0; round < rounds; ++round) {
      const std::size_t cut = random() % (round % 2 ? needed : std::min(needed, deciding));
      files.content(path) = whole.substr(0, cut);
      const Status status = open_checkpoint("m", files).status();
      const bool as_expected = status.code() == Code::format && status.message().find(path) == 0;
      CHECK_MESSAGE(as_expected, path << " cut to " << cut << ": " << status.message());
    }
    for (int round = 0; round < rounds; ++round) {
      std::string& content = files.content(path) = whole;
      for (auto flips = 1 + random() % 3; flips > 0; --flips)
        content[random() % deciding] ^= static_cast<char>(1 << random() % 8);
      const auto checkpoint = open_checkpoint("m", files);
      if (checkpoint.ok()) {
        ++opened;
        check_promises(*checkpoint);
      } else {
        ++refused;
        CHECK_MESSAGE(checkpoint.status().message().find("m") == 0, checkpoint.status().message());
        CHECK(checkpoint.status().code() != Code::internal);
      }
    }
    files.content(path) = whole;
  }
  CHECK(opened > 0);  // else the damage would test only the first check
  CHECK(refused > 0);
  check_promises(*open_checkpoint("m", files));
}

// Every read of an opening fails once in its turn.
void fail_reads(FaultyFileSystem& files) {
  const std::uint64_t before = files.reads();
  REQUIRE(open_checkpoint("m", files).ok());
  const std::uint64_t reads = files.reads() - before;
  CHECK(reads > 0);
  for (std::uint64_t i = 0; i < reads; ++i) {
    files.fail_at = files.reads() + i;
    const Status status = open_checkpoint("m", files).status();
    CHECK(status.code() == Code::io);
    CHECK_MESSAGE(status.message().find("injected") != std::string::npos, status.message());
  }
  files.fail_at = FaultyFileSystem::kNever;
  for (const std::uint64_t size : {0, 1, 7, 8, 20}) {
    files.cut_open_files_to = size;
    CHECK(open_checkpoint("m", files).status().code() == Code::io);
  }
  files.cut_open_files_to = FaultyFileSystem::kNever;
  CHECK(open_checkpoint("m", files).ok());
}

}  // namespace

TEST_CASE("a damaged small checkpoint") {
  FaultyFileSystem files;
  test::add_tiny_sharded(files);
  files.add("m/generation_config.json", R"({"eos_token_id":[1,2],"do_sample":true})");
  files.add("m/tokenizer_config.json", R"({"chat_template":"{{ messages }}","bos_token":{"content":"<s>"}})");
  damage(files, 1500, 1);
  fail_reads(files);
}

TEST_CASE("damaged quantized checkpoints: names, shapes, and what describes the codes") {
  for (const test::TinyQuantized& tiny : test::TinyQuantizer(3).all()) {
    CAPTURE(tiny.kind);
    FaultyFileSystem files;
    test::add_tiny_quantized(files, tiny);
    damage(files, 600, 3, true);
    fail_reads(files);
  }
}

TEST_CASE("a damaged GGUF file") {
  test::TinyGguf gguf;
  gguf.pairs = {
      test::gguf_text("general.architecture", "llama"), test::gguf_u32("llama.block_count", 1),
      test::gguf_array("tokenizer.ggml.tokens", 8, 2, test::gguf_string("ab") + test::gguf_string("c")),
      test::gguf_array("tokenizer.ggml.scores", 6, 2, std::string(8, '?')),
      test::gguf_pair("tokenizer.ggml.add_bos_token", 7, test::le(1, 1))};
  gguf.tensors = {{"token_embd.weight", {32, 2}, 1, test::random_bytes(128, 1)},
                  {"blk.0.attn_q.weight", {64, 2}, 40, test::random_bytes(72, 2)},
                  {"blk.0.attn_q.scale", {1}, 0, std::string(4, '?')},
                  {"blk.0.ffn_down.weight", {256, 1}, 14, test::random_bytes(210, 3)}};
  FaultyFileSystem files;
  files.add("m/model.gguf", gguf.file());
  damage(files, 5000, 4);
  fail_reads(files);
}

TEST_CASE("damaged published GGUF files") {
  NIB_REQUIRE_DATA(root);
  for (const char* name : {"llama-3/gguf/llama-3-q8_0.gguf", "gpt-oss-a/gguf/gpt-oss-a-bf16.gguf"}) {
    CAPTURE(name);
    FaultyFileSystem files;
    files.add("m/model.gguf", test::read_text(root + "/models/" + name));
    damage(files, 500, 5);
    fail_reads(files);
  }
}

TEST_CASE("every cut of a small safetensors file is noticed") {
  const std::string whole = test::safetensors_of(test::tiny_shard_1());
  FaultyFileSystem files;
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    files.add("f", whole.substr(0, cut));
    const Status status = read_safetensors_header(**files.open("f")).status();
    CHECK(status.code() == Code::format);
    CHECK(status.message().find("f: ") == 0);
  }
  files.add("f", whole + "x");
  CHECK(read_safetensors_header(**files.open("f")).status().code() == Code::format);
}

TEST_CASE("damaged published checkpoints") {
  NIB_REQUIRE_DATA(root);
  for (const char* name : {"gpt-oss-a", "gpt-oss-a/original", "gpt-oss-bf16", "tales", "llama-bnb-nf4-double",
                           "llama-nvfp4-ct"}) {
    CAPTURE(name);
    FaultyFileSystem files;
    files.add_directory(root + "/models/" + name, "m");
    damage(files, 250, 2);
    fail_reads(files);
  }
}
