// How fast a tensor is quantized, beside what memory allows: bench_quantize [--gib N] [--threads N]
// [FORMAT...]
//
// A tensor of f32 in memory (1 GiB unless said otherwise) goes into each format on all threads. `undisturbed`
// is the processors' time divided by the threads: `seconds` on a machine that nobody else uses. `of memory`
// is the time that moving its bytes and the encoded ones would take, by the rate at which the same threads
// copy memory (measured in the same run, the best of several), over that. Last, the way of `nibble quantize`:
// the same values as a bf16 checkpoint, from the page cache of /dev/shm to a directory there.
#include <nibble/base/concat.hpp>
#include <nibble/base/machine.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/io/output.hpp>
#include <nibble/io/safetensors_writer.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace nib;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kColumns = 4096;

// Of the clock on the wall, and of processors divided by threads: what the first would be if nobody else used
// the machine.
struct Took {
  double wall, undisturbed;
};
class Stopwatch {
 public:
  explicit Stopwatch(int threads) : threads_(threads) {}
  Took took() const {
    return {std::chrono::duration<double>(Clock::now() - start_).count(),
            static_cast<double>(std::clock() - cpu_) / CLOCKS_PER_SEC / threads_};
  }

 private:
  int threads_;
  Clock::time_point start_ = Clock::now();
  std::clock_t cpu_ = std::clock();
};

struct Options {
  double gib = 1;
  int threads = this_machine().threads;
  std::vector<std::string> formats;
  bool wants(const char* name) const {
    return formats.empty() || std::find(formats.begin(), formats.end(), name) != formats.end();
  }
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        pool_(Pool::start(options.threads).take()),
        rows_(static_cast<std::int64_t>(options.gib * (1 << 30)) / (4 * kColumns)) {
    const auto count = static_cast<std::size_t>(rows_ * kColumns);
    values_ = Buffer::make(count * 4, memory_, Purpose::staging, "the tensor").take();
    codes_ = Buffer::make(count * 4, memory_, Purpose::staging, "its codes").take();
    scales_ = Buffer::make(count, memory_, Purpose::staging, "its scales").take();
    pool_->run([&](int index, int threads) {  // also places the pages
      const Range mine = split(rows_, index, threads);
      std::uint32_t state = 12345u + static_cast<std::uint32_t>(index);
      float* values = values_.as<float>().data();
      for (std::int64_t i = mine.begin * kColumns; i < mine.end * kColumns; ++i) {
        float sum = 0;  // of four uniform ones: near enough to normal
        for (int j = 0; j < 4; ++j) {
          state = state * 1664525u + 1013904223u;
          sum += static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-33f;
        }
        values[i] = sum;
      }
    });
    const std::size_t bytes = values_.size();
    for (int i = 0; i < 5; ++i) {
      const Stopwatch watch(pool_->threads());
      pool_->run([&](int index, int threads) {
        const Range mine = split(static_cast<std::int64_t>(bytes), index, threads, 64);
        std::memcpy(codes_.data() + mine.begin, values_.data() + mine.begin,
                    static_cast<std::size_t>(mine.size()));
      });
      bandwidth_ = std::max(bandwidth_, 2.0 * static_cast<double>(bytes) / watch.took().undisturbed);
    }
    std::printf("%d threads, copying moves %.1f GB/s\n%-12s %10s %12s %12s %10s\n", pool_->threads(),
                bandwidth_ * 1e-9, "format", "seconds", "undisturbed", "GB/s of f32", "of memory");
  }

  auto parallel() {
    return [this](std::int64_t count, auto&& body) {
      pool_->run([&](int index, int threads) {
        const Range mine = split(count, index, threads);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) body(i);
      });
    };
  }
  template <BlockFormat F>
  void blocks(const char* name) {
    report(name, static_cast<double>(F::code_bytes + F::scale_bytes) / F::group, [&] {
      quantize_rows<F>(values_.as<float>().data(), rows_, kColumns, codes_.data(), scales_.data(), {},
                       parallel());
    });
  }
  template <SharedScaleFormat F>
  void shared(const char* name, const ScaleSharing& sharing) {
    const auto count = static_cast<double>(sharing.count(rows_, kColumns));
    report(name, 1.0 / F::group + 4 * count / static_cast<double>(rows_ * kColumns), [&] {
      quantize_shared<F>(values_.as<float>().data(), rows_, kColumns, sharing, codes_.data(),
                         scales_.as<float>().data(), {}, parallel());
    });
  }

  void whole_way(const char* format, const char* to) {
    if (!options_.wants("checkpoint")) return;
    namespace fs = std::filesystem;
    const fs::path folder = "/dev/shm/nibble-bench-quantize";
    fs::remove_all(folder);
    fs::create_directories(folder / "in");
    const auto rows = static_cast<std::uint64_t>(rows_);
    (void)write_file((folder / "in/config.json").string(),
                     concat(R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": )", rows,
                            R"(, "num_attention_heads": 32, "num_hidden_layers": 1, "vocab_size": 32,
                             "max_position_embeddings": 512, "rms_norm_eps": 1e-5})"));
    const std::vector<TensorSpec> specs = {{"model.layers.0.mlp.up_proj.weight", DType::bf16, {rows, 4096}}};
    auto writer = SafetensorsWriter::create((folder / "in/model.safetensors").string(), specs);
    quantize_rows<PlainBf16>(values_.as<float>().data(), rows_, kColumns, codes_.data(), nullptr, {},
                             parallel());
    const std::uint64_t bytes = rows * 4096 * 2;
    if (!writer.ok() || !writer->append({codes_.data(), bytes}).ok() || !writer->finish().ok()) return;
    const auto checkpoint = open_checkpoint((folder / "in").string());
    QuantizeOptions how;
    how.format = find_target_format(format);
    // On one thread: where the pool waits for a file it spins, which would count as work.
    const auto alone = Pool::start(1).take();
    const Stopwatch watch(1);
    const auto written = checkpoint.ok()
                             ? quantize_checkpoint(*checkpoint, (folder / to).string(), how, *alone)
                             : Result<QuantizeReport>(checkpoint.status());
    const Took took = watch.took();
    if (!written.ok())
      std::printf("%s\n", written.status().message().c_str());
    else
      line(format, took, static_cast<double>(bytes), static_cast<double>(written->bytes_after),
           "   a bf16 checkpoint of that many values, on one thread: GB/s of bf16", 1);
    fs::remove_all(folder);
  }

  bool wants(const char* name) const { return options_.wants(name); }

 private:
  template <class Work>
  void report(const char* name, double bytes_a_value, Work work) {
    if (!options_.wants(name)) return;
    Took best{1e30, 1e30};
    for (int i = 0; i < 3; ++i) {
      const Stopwatch watch(pool_->threads());
      work();
      const Took took = watch.took();
      if (took.undisturbed < best.undisturbed) best = took;
    }
    const double in = static_cast<double>(values_.size());
    line(name, best, in, in / 4 * bytes_a_value, "");
  }
  void line(const char* name, const Took& took, double in, double out, const char* what,
            int threads = 0) const {
    const double bandwidth = threads ? bandwidth_ * threads / pool_->threads() : bandwidth_;
    std::printf("%-12s %10.2f %12.2f %12.2f %9.0f%%%s\n", name, took.wall, took.undisturbed,
                in * 1e-9 / took.undisturbed, 100 * (in + out) / bandwidth / took.undisturbed, what);
    std::fflush(stdout);
  }

  Options options_;
  Memory memory_;
  std::unique_ptr<Pool> pool_;
  std::int64_t rows_;
  Buffer values_, codes_, scales_;
  double bandwidth_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string word = arguments[i];
    if (word == "--gib" && i + 1 < count)
      options.gib = std::stod(arguments[++i]);
    else if (word == "--threads" && i + 1 < count)
      options.threads = std::stoi(arguments[++i]);
    else
      options.formats.push_back(word);
  }
  Bench bench(options);
  bench.blocks<Mxfp4>("mxfp4");
  bench.blocks<Nvfp4>("nvfp4");
  bench.shared<Nf4>("nf4", ScaleSharing::per_run(64));
  bench.shared<BnbFp4>("fp4", ScaleSharing::per_run(64));
  bench.shared<LlmInt8>("llm-int8", ScaleSharing::per_row());
  bench.shared<Int8>("int8", ScaleSharing::per_row());
  bench.shared<Fp8E4M3>("fp8", ScaleSharing::per_tile(128, 128));
  bench.blocks<Q4_0>("q4_0");
  bench.blocks<Q4_1>("q4_1");
  bench.blocks<Q5_0>("q5_0");
  bench.blocks<Q5_1>("q5_1");
  bench.blocks<Q8_0>("q8_0");
  bench.blocks<PlainBf16>("bf16");
  bench.blocks<PlainF16>("f16");
  bench.whole_way("nf4", "nf4");
  bench.whole_way("int8", "int8");
  return 0;
}
