// What quantize_checkpoint leaves behind when it may not, cannot, or is told to stop: nothing.
#include "model/quantize_rig.hpp"
#include "support/faulty_files.hpp"
#include "support/sanitized.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

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

TEST_CASE("a GGUF file becomes no directory, and what nibble does not know nothing") {
  const Place place;
  REQUIRE(quantize(place.in(), place.path("a.gguf"), "f32").ok());
  CHECK(quantize(place.path("a.gguf"), place.path("a"), "nf4").status().code() == Code::unsupported);
  std::ofstream(place.in() + "/config.json") << R"({"model_type": "perceptron"})";
  const auto unknown = quantize(place.in(), place.path("b"), "nf4");
  CHECK(unknown.status().code() == Code::unsupported);
  CHECK(unknown.status().message().find("perceptron") != std::string::npos);
  CHECK(place.others() == std::vector<std::string>{"a.gguf"});
}

TEST_CASE("a stop leaves nothing, whenever it comes") {
  const Place place;
  for (const char* out : {"out", "out.gguf"}) {
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
      const auto report = quantize(place.in(), place.path(out), format, options);
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
  const std::uint64_t tensor = std::uint64_t{4} * 2048 * 4096;
  CHECK(memory_field("VmHWM") - now < tensor);
}

}  // namespace
}  // namespace nib::test
