// What quantize_checkpoint leaves behind when it may not, cannot, or is told to stop: nothing.
#include "model/quantize_rig.hpp"
#include "support/faulty_files.hpp"
#include "support/sanitized.hpp"
#include <nibble/io/gguf_writer.hpp>
#include <nibble/model/config.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include <doctest/doctest.h>
#include <sys/resource.h>

namespace nib::test {
namespace {

namespace fs = std::filesystem;

// A model in `in`, and nothing else.
class Place {
 public:
  explicit Place(const LlamaShape& shape = {}) {
    fs::create_directory(in());
    write_llama(in(), shape, random_llama(shape, std::random_device{}()));
  }
  std::string in() const { return folder_.path("in"); }
  std::string path(const std::string& name) const { return folder_.path(name); }
  // Names beside the model.
  std::vector<std::string> others() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      if (entry.path().filename() != "in") names.push_back(entry.path().filename().string());
    return names;
  }

 private:
  TemporaryDirectory folder_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("what exists stays, unless it is to be replaced") {
  const Place place;
  const std::string file = place.path("a.gguf"), directory = place.path("a");
  std::ofstream(file) << "mine";
  fs::create_directory(directory);
  std::ofstream(directory + "/diary.txt") << "mine";
  CHECK(quantize(place.in(), file, "q8_0").status().code() == Code::argument);
  CHECK(quantize(place.in(), directory, "nf4").status().code() == Code::argument);
  QuantizeOptions options;
  options.overwrite = Overwrite::yes;
  // A directory of anything but a model is never replaced.
  CHECK(quantize(place.in(), directory, "nf4", options).status().code() == Code::argument);
  CHECK(text_of(file) == "mine");
  CHECK(text_of(directory + "/diary.txt") == "mine");
  CHECK(place.others().size() == 2);

  CHECK(quantize(place.in(), file, "q8_0", options).ok());
  CHECK(open(file).tensors.size() == 21);
  std::ofstream(directory + "/config.json") << "{}";
  CHECK(quantize(place.in(), directory, "nf4", options).ok());
  CHECK(open(directory).tensors.size() == 21);
  CHECK_FALSE(fs::exists(directory + "/diary.txt"));
  fs::create_directory(directory + "/more");
  CHECK(quantize(place.in(), directory, "nf4", options).status().code() == Code::argument);
  CHECK(place.others().size() == 2);
}

TEST_CASE("a model is not written over itself, by whatever name") {
  const Place place;
  QuantizeOptions options;
  options.overwrite = Overwrite::yes;
  fs::create_symlink(place.in(), place.path("link"));
  for (const std::string& out : {place.in(), place.in() + "/", place.in() + "/../in", place.path("link")}) {
    CAPTURE(out);
    CHECK(quantize(place.in(), out, "nf4", options).status().code() == Code::argument);
  }
  REQUIRE(quantize(place.in(), place.path("a.gguf"), "f32").ok());
  const std::string before = text_of(place.path("a.gguf"));
  CHECK(quantize(place.path("a.gguf"), place.path("a.gguf"), "q8_0", options).status().code() ==
        Code::argument);
  CHECK(text_of(place.path("a.gguf")) == before);
  CHECK(open(place.in()).tensors.size() == 21);
}

TEST_CASE("what nibble does not know becomes nothing") {
  const Place place;
  std::ofstream(place.in() + "/config.json") << R"({"model_type": "perceptron"})";
  const auto unknown = quantize(place.in(), place.path("b"), "nf4");
  CHECK(unknown.status().code() == Code::unsupported);
  CHECK(unknown.status().message().find("perceptron") != std::string::npos);
  CHECK(place.others().empty());
}

// A GGUF file written again: `pair` answers whether it has written something in the place of that key, and
// `keep` whether the tensor of that name stays.
void rewrite_gguf(const std::string& from, const std::string& to,
                  const std::function<bool(std::string_view key, GgufPairs& out)>& pair,
                  const std::function<bool(GgufTensorSpec&)>& keep = {}) {
  const auto file = disk_file_system().open(from).take();
  const GgufHeader header = read_gguf_header(*file).take();
  GgufPairs pairs;
  for (std::size_t i = 0; i < header.metadata.size(); ++i)
    if (!pair(header.metadata.key(i), pairs)) pairs.add(header.metadata.key(i), header.metadata.value(i));
  std::vector<GgufTensorSpec> specs;
  std::vector<GgufTensor> tensors;
  for (const GgufTensor& tensor : header.tensors) {
    GgufTensorSpec spec{tensor.name, tensor.type, tensor.shape};
    if (keep && !keep(spec)) continue;
    specs.push_back(std::move(spec));
    tensors.push_back(tensor);
  }
  auto writer = GgufWriter::create(to, pairs, specs, Overwrite::yes);
  REQUIRE_MESSAGE(writer.ok(), writer.status().message());
  for (const GgufTensor& tensor : tensors) {
    std::vector<std::byte> bytes(tensor.bytes);
    REQUIRE(file->read_at(tensor.offset, bytes).ok());
    REQUIRE(writer->append(bytes).ok());
  }
  REQUIRE(writer->finish().ok());
}

// What the answer may be to a file that says something wrong: a model that opens, or an error that names the
// file and leaves nothing.
bool answers_well(const Place& place, const std::string& gguf) {
  const std::string out = place.path("out");
  const auto checkpoint = open_checkpoint(gguf);
  if (!checkpoint.ok()) return false;
  const auto pool = Pool::start(2).take();
  QuantizeOptions options;
  options.format = find_target_format("bf16");
  const auto report = quantize_checkpoint(*checkpoint, out, options, *pool);
  if (report.ok()) {
    CHECK(read_config(open(out)).ok());
    fs::remove_all(out);
  } else {
    CHECK(report.status().code() < Code::ok);
    CHECK_MESSAGE(report.status().message().find(gguf) != std::string::npos, report.status().message());
  }
  CHECK_FALSE(fs::exists(out));
  for (const std::string& name : place.others()) CHECK(name.find("partial") == name.npos);
  return report.ok();
}

std::vector<std::string> keys_of(const std::string& gguf) {
  const Checkpoint checkpoint = open(gguf);
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < checkpoint.gguf->size(); ++i) keys.emplace_back(checkpoint.gguf->key(i));
  return keys;
}

// A small model with the story model's tokenizer and template.
void with_tokenizer(const Place& place) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (fs::exists(fs::path(NIBBLE_TALES) / name))
      fs::copy_file(fs::path(NIBBLE_TALES) / name, fs::path(place.in()) / name);
  LlamaShape shape;
  shape.vocabulary = 4096;
  shape.hidden = 8;
  shape.layers = 1;
  fs::remove(place.in() + "/model.safetensors");
  write_llama(place.in(), shape, random_llama(shape, std::random_device{}()));
}

TEST_CASE("a GGUF file that lacks any of its keys, or says something absurd there") {
  const Place place;
  const std::string whole = place.path("whole.gguf"), other = place.path("other.gguf");
  with_tokenizer(place);
  REQUIRE(quantize(place.in(), whole, "f32").ok());
  int refused = 0;
  for (const std::string& key : keys_of(whole)) {
    CAPTURE(key);
    rewrite_gguf(whole, other, [&](std::string_view k, GgufPairs&) { return k == key; });
    refused += !answers_well(place, other);
    for (int what = 0; what < 4; ++what) {
      CAPTURE(what);
      rewrite_gguf(whole, other, [&](std::string_view k, GgufPairs& out) {
        if (k != key) return false;
        if (what == 0) out.add(k, std::uint32_t{0});
        if (what == 1) out.add(k, ~std::uint64_t{0});
        if (what == 2) out.add(k, -std::numeric_limits<float>::infinity());
        if (what == 3) out.add(k, "\xff\xfe");
        return true;
      });
      refused += !answers_well(place, other);
    }
  }
  CHECK(refused > 40);
}

TEST_CASE("a GGUF file that lacks a tensor, or has one of another shape, becomes no directory") {
  const Place place;
  const std::string whole = place.path("whole.gguf"), other = place.path("other.gguf");
  REQUIRE(quantize(place.in(), whole, "f32").ok());
  const auto same = [](std::string_view, GgufPairs&) { return false; };
  const Checkpoint checkpoint = open(whole);
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    CAPTURE(tensor.name);
    rewrite_gguf(whole, other, same, [&](GgufTensorSpec& spec) { return spec.name != tensor.name; });
    // Without a head the embedding is one.
    CHECK(answers_well(place, other) == (tensor.name == "output.weight"));
    for (int what = 0; what < 2; ++what) {
      rewrite_gguf(whole, other, same, [&](GgufTensorSpec& spec) {
        if (spec.name != tensor.name) return true;
        if (what == 0) spec.shape.insert(spec.shape.begin(), 1);
        if (what == 1) spec.shape = {spec.shape.back() / 2, 2};
        if (what == 1 && tensor.shape.size() > 1) spec.shape.insert(spec.shape.begin(), tensor.shape[0]);
        return true;
      });
      CHECK_FALSE(answers_well(place, other));
    }
  }
}

TEST_CASE("a vocabulary that no tokenizer.json is known for is refused by its key, with what to do") {
  const Place place;
  const std::string whole = place.path("whole.gguf"), other = place.path("other.gguf");
  with_tokenizer(place);
  REQUIRE(quantize(place.in(), whole, "f32").ok());
  rewrite_gguf(whole, other, [](std::string_view key, GgufPairs& out) {
    if (key == "tokenizer.ggml.pre") out.add(key, "klingon");
    return key == "tokenizer.ggml.pre";
  });
  const auto report = quantize(other, place.path("out"), "bf16");
  CHECK(report.status().code() == Code::unsupported);
  CHECK(report.status().message().find("tokenizer.ggml.pre is \"klingon\"") != std::string::npos);
  CHECK(report.status().message().find("a name that ends in .gguf") != std::string::npos);
  CHECK_FALSE(fs::exists(place.path("out")));
}

TEST_CASE("a stop leaves nothing, whenever it comes") {
  const Place place;
  const TemporaryDirectory beside;
  REQUIRE(quantize(place.in(), beside.path("in.gguf"), "f32").ok());
  for (const auto& [from, out] : {std::pair(place.in(), "out"), std::pair(place.in(), "out.gguf"),
                                  std::pair(beside.path("in.gguf"), "out")}) {
    const char* format = std::string_view(out) == "out" ? "nf4-double" : "q8_0";
    int calls = 0;
    for (int stop_at = 0;; stop_at = stop_at * 2 + 1) {
      CAPTURE(stop_at);
      struct Counter {
        int left;
        int* calls;
      } counter{stop_at, &calls};
      QuantizeOptions options;
      options.progress = {[](void* user, const Progress& progress) {
                            auto& count = *static_cast<Counter*>(user);
                            ++*count.calls;
                            CHECK(progress.done <= progress.total);
                            CHECK(progress.stage == Stage::quantize);
                            return count.left-- == 0 ? 1 : 0;
                          },
                          &counter};
      const auto report = quantize(from, place.path(out), format, options);
      if (report.ok()) break;
      CHECK(report.status().code() == Code::stopped);
      CHECK(place.others().empty());
    }
    CHECK(calls > 20);
    fs::remove_all(place.path(out));
  }
  Cancel cancel;
  cancel.trigger();
  QuantizeOptions options;
  options.cancel = &cancel;
  CHECK(quantize(place.in(), place.path("out"), "nf4", options).status().code() == Code::stopped);
  CHECK(place.others().empty());
}

TEST_CASE("a disk that fails while it is read leaves nothing") {
  const Place place;
  FaultyFileSystem files;
  files.add_directory(place.in(), "model");
  const auto pool = Pool::start(1).take();
  for (const char* out : {"out", "out.gguf"}) {
    QuantizeOptions options;
    options.format = find_target_format(std::string_view(out) == "out" ? "fp8" : "q8_0");
    int failed = 0;
    for (std::uint64_t good = 0;; good = good * 5 / 4 + 1) {
      CAPTURE(good);
      files.fail_at = FaultyFileSystem::kNever;
      auto checkpoint = open_checkpoint("model", files);
      REQUIRE(checkpoint.ok());
      files.fail_at = files.reads() + good;
      const auto report = quantize_checkpoint(*checkpoint, place.path(out), options, *pool, files);
      if (report.ok()) break;
      CHECK(report.status().code() == Code::io);
      CHECK(place.others().empty());
      ++failed;
    }
    CHECK(failed > 5);
    fs::remove_all(place.path(out));
  }
}

TEST_CASE("a full disk leaves nothing") {
  const Place place;
  struct rlimit before;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t room : {rlim_t{0}, rlim_t{100}, rlim_t{5'000}, rlim_t{40'000}}) {
    for (const char* out : {"out", "out.gguf"}) {
      const struct rlimit limit = {room, before.rlim_max};
      REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
      const auto report =
          quantize(place.in(), place.path(out), std::string_view(out) == "out" ? "nf4" : "q8_0");
      REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
      CAPTURE(room);
      CAPTURE(out);
      CHECK(report.status().code() == Code::io);
      CHECK(place.others().empty());
    }
  }
  std::signal(SIGXFSZ, ignored);
}

// A field of /proc/self/status, in bytes; 0 where there is none.
std::uint64_t memory_field(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  return 0;
}

#ifdef NIB_SANITIZED
constexpr bool kMeasurable = false;
#else
constexpr bool kMeasurable = true;
#endif

TEST_CASE("memory stays below two tensors") {
  LlamaShape shape;
  shape.hidden = 2048;
  shape.width = 4096;  // 32 MiB a matrix in f32
  shape.layers = 1;
  const Place place(shape);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
  const std::uint64_t before = memory_field("VmHWM"), now = memory_field("VmRSS");
  if (!kMeasurable || before == 0 || before > now + (4 << 20)) {
    MESSAGE("skipped: the peak of memory cannot be measured here");
    return;
  }
  for (const char* format : {"nf4-double", "nvfp4", "fp8", "f16"}) {
    CAPTURE(format);
    REQUIRE(quantize(place.in(), place.path(format), format).ok());
  }
  REQUIRE(quantize(place.in(), place.path("out.gguf"), "q4_0").ok());
  REQUIRE(quantize(place.path("out.gguf"), place.path("back"), "nf4-double").ok());
  const std::uint64_t tensor = std::uint64_t{4} * 2048 * 4096;
  CHECK(memory_field("VmHWM") - now < tensor);
}

}  // namespace
}  // namespace nib::test
