// Prepared models: the same bytes in memory as packing gives, whatever the model; and files that say
// something else than they should.
#include "io/tiny.hpp"
#include "model/quantize_rig.hpp"
#include "support/faulty_files.hpp"
#include "support/goldens.hpp"
#include "support/watched_pages.hpp"
#include <nibble/io/prepared.hpp>
#include <nibble/model/prepare.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

namespace fs = std::filesystem;

Result<PrepareReport> prepare(const std::string& from, const std::string& to, PrepareOptions options = {},
                              int threads = 2) {
  const auto pool = Pool::start(threads).take();
  return prepare_checkpoint(open(from), to, options, *pool);
}

// Zeros, also where nothing is written.
Allocator zeroing() {
  return {[](void*, std::size_t bytes, std::size_t alignment) -> void* {
            void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
            if (block) std::memset(block, 0, bytes);
            return block;
          },
          [](void*, void* block, std::size_t) { std::free(block); }, nullptr};
}

// What loading puts into memory, and the kernels that it chose.
struct Loaded {
  std::vector<std::byte> bytes;
  std::vector<const MatmulKernel*> kernels;
};
Result<Loaded> load(const Checkpoint& checkpoint, Numerics numerics) {
  NIB_ASSIGN(const ModelConfig config, read_config(checkpoint));
  NIB_ASSIGN(const WeightLayout layout, WeightLayout::make(checkpoint, config));
  Memory memory(zeroing());
  const auto pool = Pool::start(2).take();
  NIB_ASSIGN(const Weights weights,
             layout.load(checkpoint, config, *present_backends().front(), numerics, memory, *pool));
  Loaded loaded;
  loaded.bytes.assign(weights.memory.data(), weights.memory.data() + weights.memory.size());
  for (const WeightPart& part : layout.parts(config, weights))
    loaded.kernels.push_back(part.weight ? part.weight->kernel : nullptr);
  return loaded;
}
Loaded loaded(const std::string& path, Numerics numerics) {
  auto result = load(open(path), numerics);
  REQUIRE_MESSAGE(result.ok(), result.status().message());
  return result.take();
}

TEST_CASE("first touch: every thread brings in its part of the weights, packed or read as they were packed") {
  if (!WatchedPages::possible()) return;
  const TemporaryDirectory folder;
  REQUIRE(prepare(NIBBLE_TALES, folder.path("out")).ok());
  for (const std::string& path : {std::string(NIBBLE_TALES), folder.path("out")}) {
    CAPTURE(path);
    constexpr int kThreads = 3;
    const Checkpoint checkpoint = open(path);
    const ModelConfig config = read_config(checkpoint).take();
    const WeightLayout layout = WeightLayout::make(checkpoint, config).take();
    WatchedPages pages(layout.bytes(Place::host), kThreads);
    Memory memory(pages.allocator());
    const auto weights =
        layout.load(checkpoint, config, *present_backends().front(), Numerics::bf16, memory, *pages.pool);
    REQUIRE(weights.ok());
    REQUIRE(weights->memory.data() == pages.data());
    // Vectors and the rows of the embedding are read by whoever comes first.
    for (int part = 0; part < kThreads; ++part) {
      const auto brought = std::count(pages.first.begin(), pages.first.end(), part);
      CHECK(brought > static_cast<std::ptrdiff_t>(pages.first.size()) / (2 * kThreads));
    }
  }
}

TEST_CASE("a prepared model is in memory what the model is, in every container") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    CAPTURE(c.name);
    const TemporaryDirectory folder;
    const auto report = prepare(c.path, folder.path("out"));
    REQUIRE_MESSAGE(report.ok(), report.status().message());
    for (const Numerics numerics : {Numerics::f32, Numerics::bf16}) {
      const Loaded packed = loaded(c.path, numerics), read = loaded(folder.path("out"), numerics);
      CHECK(read.bytes == packed.bytes);
      CHECK(read.kernels == packed.kernels);
    }
    const Checkpoint before = open(c.path), after = open(folder.path("out"));
    CHECK(after.tokenizer_path.has_value() == before.tokenizer_path.has_value());
    CHECK(after.gguf.has_value() == before.gguf.has_value());
    CHECK(after.chat_template == before.chat_template);
    for (const CheckpointTensor& tensor : after.tensors) {
      const CheckpointTensor* old = before.find(tensor.name);
      REQUIRE(old != nullptr);
      CHECK(old->shape == tensor.shape);
      CHECK(old->format == tensor.format);
      CHECK(stored_bytes(*old) == stored_bytes(tensor));
    }
  }
}

TEST_CASE("what a GGUF file says beside its weights is kept: configuration, tokenizer, template") {
  const TemporaryDirectory folder;
  REQUIRE(quantize(NIBBLE_TALES, folder.path("a.gguf"), "bf16").ok());
  REQUIRE(prepare(folder.path("a.gguf"), folder.path("out")).ok());
  const Checkpoint before = open(folder.path("a.gguf")), after = open(folder.path("out"));
  REQUIRE(before.chat_template.has_value());
  CHECK(after.chat_template == before.chat_template);
  REQUIRE(after.gguf.has_value());
  for (std::size_t i = 0; i < before.gguf->size(); ++i) {
    const std::string key(before.gguf->key(i));
    CAPTURE(key);
    const auto kept = after.gguf->find(key);
    REQUIRE(kept.has_value());
    const auto bytes = kept->bytes(), expected = before.gguf->value(i).bytes();
    CHECK(std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end()));
  }
}

TEST_CASE("a prepared model gives the same logits") {
  NIB_REQUIRE_DATA(data);
  const std::string path = data + "/models/gpt-oss-a";
  const TemporaryDirectory folder;
  REQUIRE(prepare(path, folder.path("out")).ok());
  const std::vector<std::uint32_t> tokens = {1, 5, 3, 2, 8, 13};
  ModelRig packed(path, {}), read(folder.path("out"), {});
  auto packed_cache = packed.cache(), read_cache = read.cache();
  CHECK(packed.feed(*packed_cache, tokens) == read.feed(*read_cache, tokens));
}

// Kernels that count in units of the scale are for scales of a narrow range, which packing has seen.
TEST_CASE("what packing found out about scales is kept") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  Tensors tensors = random_llama(shape, 3);
  for (float& value : tensors["model.layers.1.mlp.up_proj.weight"].values) value *= 0x1p-60f;
  fs::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, tensors);
  QuantizeOptions options;
  options.only = [](std::string_view name) { return name.find("_proj") != name.npos; };
  REQUIRE(quantize(folder.path("in"), folder.path("a.gguf"), "mxfp4", options).ok());
  REQUIRE(prepare(folder.path("a.gguf"), folder.path("out")).ok());
  for (const Numerics numerics : {Numerics::f32, Numerics::bf16}) {
    const Loaded packed = loaded(folder.path("a.gguf"), numerics),
                 read = loaded(folder.path("out"), numerics);
    CHECK(read.bytes == packed.bytes);
    CHECK(read.kernels == packed.kernels);
  }
  std::size_t narrow = 0, wide = 0;
  const Checkpoint checkpoint = open(folder.path("out"));
  REQUIRE(checkpoint.prepared.has_value());
  for (const auto& [name, matrix] : checkpoint.prepared->matrices) {
    narrow += matrix.finding == static_cast<int>(ScaleRange::narrow);
    wide += matrix.finding == static_cast<int>(ScaleRange::usual);
  }
  CHECK(narrow > 2);
  CHECK(wide > 0);
}

TEST_CASE("an embedding with a factor is refused: it would be looked up without") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  fs::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, random_llama(shape, 5));
  Checkpoint checkpoint = open(folder.path("in"));
  REQUIRE(load(checkpoint, Numerics::f32).ok());
  for (CheckpointTensor& tensor : checkpoint.tensors)
    if (tensor.name == "model.embed_tokens.weight") tensor.scaling.factors = {2};
  const Status status = load(checkpoint, Numerics::f32).status();
  CHECK(status.code() == Code::unsupported);
  CHECK(status.message().find("model.embed_tokens.weight") != std::string::npos);
}

TEST_CASE("records begin where disks have sectors, and experts may be larger than the buffer or many") {
  NIB_REQUIRE_DATA(data);
  const TemporaryDirectory folder;
  REQUIRE(prepare(data + "/models/qwen3-moe", folder.path("out")).ok());
  const auto file = disk_file_system().open(folder.path("out/model.safetensors")).take();
  const SafetensorsHeader header = read_safetensors_header(*file).take();
  std::size_t packed = 0;
  for (const TensorEntry& entry : header.tensors) {
    if (!entry.name.starts_with("packed/")) continue;
    ++packed;
    REQUIRE(entry.shape.size() == 2);
    CHECK(entry.offset % 4096 == 0);
    CHECK(entry.shape[1] % 4096 == 0);
  }
  CHECK(packed > 4);
}

// --- a small llama, prepared, as files in memory

struct Prepared4 {
  FaultyFileSystem files;
  static constexpr const char* kFile = "m/model.safetensors";
  explicit Prepared4(const char* format = "nf4") {
    const TemporaryDirectory folder;
    const LlamaShape shape;
    fs::create_directory(folder.path("in"));
    write_llama(folder.path("in"), shape, random_llama(shape, 7));
    REQUIRE(quantize(folder.path("in"), folder.path("quantized"), format).ok());
    REQUIRE(prepare(folder.path("quantized"), folder.path("out")).ok());
    files.add_directory(folder.path("out"), "m");
  }
  // Opens, lays out and loads.
  Status all() const {
    NIB_ASSIGN(const Checkpoint checkpoint, open_checkpoint("m", files));
    return load(checkpoint, Numerics::f32).status();
  }
  // The same with `from` replaced by `to`, as long, wherever it stands in header and description.
  Status with(const std::string& from, const std::string& to) {
    REQUIRE(from.size() == to.size());
    std::string& content = files.content(kFile);
    const std::string before = content;
    REQUIRE(content.find(from) != content.npos);
    for (std::size_t at = 0; (at = content.find(from, at)) != content.npos; at += to.size())
      content.replace(at, from.size(), to);
    const Status status = all();
    content = before;
    return status;
  }
};

void check_names(const Status& status, Code code, const std::string& what) {
  CAPTURE(status.message());
  CHECK(status.code() == code);
  CHECK(status.message().find(what) != std::string::npos);
  CHECK(status.message().find("m/model.safetensors") + 1 + (status.message().find("m: ") + 1) != 0);
}

TEST_CASE("what a prepared file says is checked, and named") {
  Prepared4 model;
  REQUIRE(model.all().ok());
  check_names(model.with(R"("nibble.layout":"1")", R"("nibble.layout":"2")"), Code::unsupported, "layout 2");
  check_names(model.with(R"("nibble.layout":"1")", R"("nibble.layout":"x")"), Code::format,
              "expected a number");
  check_names(model.with("nibble.description", "nibble.descriptiom"), Code::format, "nibble.description");
  check_names(model.with(R"("format":"nf4")", R"("format":"nf5")"), Code::format, "weight format");
  check_names(model.with(R"("dtype":"U8","shape":[160,64])", R"("dtype":"V8","shape":[160,64])"),
              Code::format, "dtype");
  check_names(model.with(R"("shape":[64,160])", R"("shape":[64,999])"), Code::format, "[64, 999]");
  check_names(model.with(R"("shape":[64,160])", R"("shape":{64,160})"), Code::format, "byte");
  check_names(model.with(R"("sharing":[0,0,64])", R"("sharing":[0,0,-4])"), Code::format, "sharing");
  check_names(model.with(R"("sharing":[0,0,64])", R"("sharing":[0,0,08])"), Code::format, "byte");
  check_names(model.with(R"("finding":0)", R"("finding":9)"), Code::format, "finding 9");
  check_names(model.with(R"("finding":0)", R"("finding":x)"), Code::format, "byte");
  check_names(model.with(R"("matrices":[)", R"("matricos":[)"), Code::format, "matrices");
  check_names(model.with("\"packed/model.layers.1.mlp.down_proj.weight\"",
                         "\"packed/model.layers.1.mlp.down_proj.weighs\""),
              Code::format, "packed/model.layers.1.mlp.down_proj.weight");
  check_names(model.with(R"({"name":"model.layers.1.mlp.down_proj.weight","finding")",
                         R"({"name":"model.layers.0.mlp.down_proj.weight","finding")"),
              Code::format, "model.layers.1.mlp.down_proj.weight is not prepared");
  check_names(model.with(R"({"name":"model.layers.1.mlp.down_proj.weight","format")",
                         R"({"name":"model.layers.0.mlp.down_proj.weight","format")"),
              Code::format, "twice");
  check_names(model.with(R"("name":"model.norm.weight","format":"f32")",
                         R"("name":"model.norm.weight","format":"f16")"),
              Code::format, "256 bytes are stored");
}

TEST_CASE("a record that is too short for its matrix is refused before memory is taken") {
  Prepared4 model;
  // The config of a wider model, for which every tensor is described as it should be.
  std::string& content = model.files.content(Prepared4::kFile);
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (std::size_t at = 0; (at = content.find(from, at)) != content.npos; at += to.size())
      content.replace(at, from.size(), to);
  };
  replace(R"("shape":[160,64])", R"("shape":[960,64])");
  replace(R"("shape":[64,160])", R"("shape":[64,960])");
  std::string& config = model.files.content("m/config.json");
  const std::size_t at = config.find("\"intermediate_size\": 160");
  REQUIRE(at != config.npos);
  config.replace(at, 24, "\"intermediate_size\": 960");
  check_names(model.all(), Code::format, "is prepared as 1 records of");
}

TEST_CASE("values of a packed tensor cannot be read, and say why") {
  const Prepared4 model;
  const Checkpoint checkpoint = open_checkpoint("m", model.files).take();
  const CheckpointTensor* tensor = checkpoint.find("model.layers.0.mlp.up_proj.weight");
  REQUIRE(tensor != nullptr);
  std::vector<float> values(64);
  const Status read = read_values(checkpoint, *tensor, 0, std::span(values));
  CHECK(read.code() == Code::unsupported);
  CHECK(read.message().find("was prepared") != std::string::npos);
  const auto pool = Pool::start(1).take();
  const TemporaryDirectory folder;
  CHECK(prepare_checkpoint(checkpoint, folder.path("again"), {}, *pool, model.files).status().code() ==
        Code::unsupported);
  QuantizeOptions options;
  options.format = find_target_format("bf16");
  CHECK(quantize_checkpoint(checkpoint, folder.path("again"), options, *pool, model.files).status().code() ==
        Code::unsupported);
}

TEST_CASE("whatever stands in a prepared file, it opens or it is an error") {
  Prepared4 model;
  const std::string whole = model.files.content(Prepared4::kFile);
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const std::size_t header = whole.find("model.embed_tokens"), description = whole.find(R"({"tensors")");
  REQUIRE(description != whole.npos);
  int refused = 0;
  for (int round = 0; round < 600; ++round) {
    std::string changed = whole;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      const std::size_t at =
          round % 2 ? description + random() % (whole.size() - description) : random() % (header + 4000);
      changed[at] = static_cast<char>(round % 4 < 2 ? random() : '0' + random() % 10);
    }
    if (round % 10 == 0) changed.resize(random() % changed.size());
    model.files.content(Prepared4::kFile) = changed;
    const Status status = model.all();
    refused += !status.ok();
    CHECK(status.code() != Code::internal);
    if (!status.ok()) CHECK_FALSE(status.message().empty());
  }
  CHECK(refused > 100);
}

TEST_CASE("a prepared file that ends early, or a disk that fails, is an error") {
  Prepared4 model;
  const Checkpoint checkpoint = open_checkpoint("m", model.files).take();
  model.files.cut_open_files_to = model.files.content(Prepared4::kFile).size() / 2;
  CHECK(load(checkpoint, Numerics::f32).status().code() == Code::io);
}

// --- where it is written

TEST_CASE("preparing leaves nothing behind when it ends early, and replaces only what it may") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  fs::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, random_llama(shape, std::random_device{}()));
  const auto names = [&] {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path())) ++count;
    return count;
  };
  int calls = 0;
  for (int stop_at = 0;; ++stop_at) {
    struct Counter {
      int left;
      int* calls;
    } counter{stop_at, &calls};
    PrepareOptions options;
    options.progress = {[](void* user, const Progress& progress) {
                          auto& count = *static_cast<Counter*>(user);
                          ++*count.calls;
                          CHECK(progress.done <= progress.total);
                          return count.left-- == 0 ? 1 : 0;
                        },
                        &counter};
    const auto report = prepare(folder.path("in"), folder.path("out"), options);
    if (report.ok()) break;
    CHECK(report.status().code() == Code::stopped);
    CHECK(names() == 1);
  }
  CHECK(calls > 20);
  CHECK(names() == 2);
  CHECK(prepare(folder.path("in"), folder.path("out")).status().code() == Code::argument);
  CHECK(prepare(folder.path("in"), folder.path("out"), {.overwrite = Overwrite::yes}).ok());
  CHECK(prepare(folder.path("in"), folder.path("in"), {.overwrite = Overwrite::yes}).status().code() ==
        Code::argument);
  CHECK(prepare(folder.path("in"), folder.path("a.gguf")).status().code() == Code::argument);
  Cancel cancel;
  cancel.trigger();
  CHECK(prepare(folder.path("in"), folder.path("b"), {.cancel = &cancel}).status().code() == Code::stopped);
  CHECK(names() == 2);
}

TEST_CASE("the bytes of a prepared file do not depend on threads") {
  const TemporaryDirectory folder;
  const LlamaShape shape;
  fs::create_directory(folder.path("in"));
  write_llama(folder.path("in"), shape, random_llama(shape, std::random_device{}()));
  std::string first;
  for (const int threads : {1, 2, 5}) {
    const std::string out = folder.path(concat(threads));
    REQUIRE(prepare(folder.path("in"), out, {}, threads).ok());
    const std::string bytes = read_text(out + "/model.safetensors");
    if (first.empty()) first = bytes;
    CHECK(bytes == first);
  }
}

}  // namespace
}  // namespace nib::test
