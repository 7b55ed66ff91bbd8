// A whole model next to what the machine allows: bench_model [options], --help lists them.
//
// Without -m, a checkpoint of gpt-oss-20b's layer shape with random weights is written to a temporary folder
// first. The ceilings are measured in the same run: decode reads every active weight once for a token, so the
// bandwidth of memory bounds it; prefill multiplies, so the rate of the dot instruction does.
#include "random_checkpoint.hpp"
#include <nibble/runtime/measure.hpp>
#include <nibble/runtime/session.hpp>
#include <nibble/runtime/speed.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <unistd.h>

namespace {

using namespace nib;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, backend, numerics = "bf16", folder, keep;
  bench::GptOssShape shape;
  std::uint32_t prompt = 512, decode = 32;
  int threads = 0, rounds = 3;
};

Numerics numerics_of(const Options& options) {
  if (options.numerics == "int8") return Numerics::int8;
  return options.numerics == "f32" ? Numerics::f32 : Numerics::bf16;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class T>
T expect(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "bench_model: %s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(result).take();
}
void expect(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "bench_model: %s\n", status.message().c_str());
  std::exit(1);
}

// A folder of its own below `parent`, gone with the object.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent) {
    path_ = (parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent)) /
            "nibble-bench-XXXXXX";
    if (!mkdtemp(path_.data())) {
      std::fprintf(stderr, "bench_model: cannot make a folder %s\n", path_.c_str());
      std::exit(1);
    }
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_checkpoint(const std::string& folder, const bench::GptOssShape& shape) {
  const bool person = isatty(STDERR_FILENO);
  int shown = -1;
  expect(bench::write_random_gpt_oss(folder, shape, [&](std::uint64_t done, std::uint64_t total) {
    const int percent = static_cast<int>(100 * done / total);
    if (!person || percent == shown) return;
    shown = percent;
    std::fprintf(stderr, "\rwriting %.1f GB of random weights: %d %%", static_cast<double>(total) * 1e-9,
                 percent);
  }));
  if (person) std::fputc('\n', stderr);
}

struct Timing {
  double load = 0;                 // seconds
  double prefill = 0, decode = 0;  // tokens per second
};

Timing measure(const std::shared_ptr<Runtime>& runtime, const std::string& path, const Options& options,
               std::shared_ptr<Model>& model) {
  const SpeedOptions speed{.prompt = options.prompt,
                           .decode = options.decode,
                           .rounds = static_cast<std::uint32_t>(options.rounds)};
  ModelOptions wanted;
  wanted.backend = options.backend;
  wanted.numerics = numerics_of(options);
  const auto start = Clock::now();
  model = expect(Model::open(runtime, path, wanted, {.context = speed.positions()}));
  Timing timing{.load = seconds_since(start)};
  for (const Speed& measured : expect(measure_speed(model, speed)))
    (measured.kind == Speed::Kind::prefill ? timing.prefill : timing.decode) = measured.tokens_per_second();
  return timing;
}

// For other programs to be measured by.
void write_only(const Options& options) {
  std::error_code error;
  std::filesystem::create_directories(options.keep, error);
  if (error || !std::filesystem::is_empty(options.keep, error)) {
    std::fprintf(stderr, "bench_model: %s is not an empty folder\n", options.keep.c_str());
    std::exit(1);
  }
  write_checkpoint(options.keep, options.shape);
}

void bench_model(const Options& options) {
  const auto runtime = expect(Runtime::create({.threads = options.threads}));
  const Backend* backend = expect(runtime->backend(options.backend));
  const Numerics numerics = numerics_of(options);

  std::optional<TemporaryFolder> made;
  std::string path = options.model;
  if (path.empty()) {
    made.emplace(options.folder);
    path = made->path();
    write_checkpoint(path, options.shape);
  }
  constexpr double kSeconds = 0.5;
  double bandwidth = expect(measure_read_bandwidth(*runtime, kSeconds));
  double peak = measure_dot_rate(*runtime, *backend, numerics, kSeconds);
  std::shared_ptr<Model> model;
  const Timing timing = measure(runtime, path, options, model);
  // Measured again: a neighbour that slowed the first measurement down would flatter the ratios.
  bandwidth = std::max(bandwidth, expect(measure_read_bandwidth(*runtime, kSeconds)));
  peak = std::max(peak, measure_dot_rate(*runtime, *backend, numerics, kSeconds));

  const ModelInfo& info = model->info();
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    if (entry.is_regular_file()) bytes += entry.file_size();
  std::printf("%s: %u layers, hidden %u, %u experts, %u per token, %.2f G parameters; %s, %d threads, %s\n",
              options.model.empty() ? "gpt-oss-20b layer shape, random weights" : options.model.c_str(),
              info.layers, info.hidden, info.experts, info.experts_per_token,
              static_cast<double>(info.parameters) * 1e-9, info.backend.c_str(), runtime->pool().threads(),
              options.numerics.c_str());
  const double read = static_cast<double>(info.decode_bytes) * timing.decode;
  const double multiplied = static_cast<double>(info.prefill_flops) * timing.prefill;
  std::printf("%-14s %8.2f s        %8.2f GB/s of file\n", "load", timing.load,
              static_cast<double>(bytes) / timing.load * 1e-9);
  std::printf("prefill %-6u %8.1f tok/s    %8.1f GFLOP/s  of %8.1f measured  %5.1f %%\n", options.prompt,
              timing.prefill, multiplied * 1e-9, peak * 1e-9, 100 * multiplied / peak);
  std::printf("decode %-7u %8.1f tok/s    %8.2f GB/s     of %8.2f measured  %5.1f %%\n", options.decode,
              timing.decode, read * 1e-9, bandwidth * 1e-9, 100 * read / bandwidth);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Loads a model, prefills a prompt, decodes; prints each rate beside what this machine allows.");
  Options options;
  app.add_option("-m,--model", options.model, "a model to measure instead of random weights");
  app.add_option("--layers", options.shape.layers, "layers of the random model")->capture_default_str();
  app.add_option("--vocabulary", options.shape.vocabulary, "its vocabulary")->capture_default_str();
  app.add_option("--folder", options.folder, "where to write it (default: the temporary folder)");
  app.add_option("--keep", options.keep, "only write the random model, here, and leave it (bench/compare.py)");
  app.add_option("--prompt", options.prompt, "prompt tokens")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--decode", options.decode, "tokens to decode")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "the best of so many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("-t,--threads", options.threads, "threads (default: one for each processor)");
  app.add_option("--backend", options.backend, "avx512, avx-vnni, avx2, neon or scalar (default: the best)");
  app.add_option("--numerics", options.numerics, "bf16, f32 or int8")
      ->check(CLI::IsMember({"bf16", "f32", "int8"}));
  CLI11_PARSE(app, argc, argv);
  options.keep.empty() ? bench_model(options) : write_only(options);
}
