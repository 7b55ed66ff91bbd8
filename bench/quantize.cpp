// How fast a tensor is quantized, beside what memory allows: bench_quantize [--gib N] [--threads N]
// [FORMAT...]
//
// The floor of every figure is moving each byte once: those that are read and those that are written, at the
// rate at which the same threads copy memory (measured in the same run, the best of several). `of memory` is
// that time over the time taken, which is the processors' time divided by the threads: what the clock would
// say on a machine that nobody else uses.
//
//   encoders   a tensor of f32 in memory (1 GiB unless said otherwise) to codes and scales in memory; as
//   bytes
//              alone, and with the noise
//   stream     the way of `nibble quantize`: the same values as a bf16 checkpoint, from the page cache of
//              /dev/shm to a directory there, with noise and progress
#include <nibble/base/concat.hpp>
#include <nibble/base/machine.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/io/output.hpp>
#include <nibble/io/safetensors_writer.hpp>
#include <nibble/kernels/encode.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace nib;

constexpr std::int64_t kColumns = 4096;

// The processors' time, divided by the threads.
class Stopwatch {
 public:
  explicit Stopwatch(int threads) : threads_(threads) {}
  double seconds() const { return static_cast<double>(std::clock() - start_) / CLOCKS_PER_SEC / threads_; }

 private:
  int threads_;
  std::clock_t start_ = std::clock();
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
      bandwidth_ = std::max(bandwidth_, 2.0 * static_cast<double>(bytes) / watch.seconds());
    }
    std::printf("%d threads of %s, copying moves %.1f GB/s\n", pool_->threads(), this_machine().cpu.c_str(),
                bandwidth_ * 1e-9);
    std::printf("%-12s %28s %28s %28s\n%-12s %28s %28s %28s\n", "", "encoders: bytes", "with noise", "stream",
                "", "GB/s of f32   of memory", "GB/s of f32   of memory", "GB/s of bf16   of memory");
    write_checkpoint();
  }
  ~Bench() { std::filesystem::remove_all(kFolder); }

  void measure(const TargetFormat& format) {
    const bool gguf = format.safetensors == Format::none;
    if (!options_.wants(format.name)) return;
    std::printf("%-12s", format.name);
    const Format id = gguf ? format.gguf : format.safetensors;
    const Encoder encoder = *find_encoder(id, ScaleRule::usual, this_machine().features);
    if (format.nested)
      std::printf("%28s %28s", "", "");
    else
      for (const bool with_noise : {false, true}) {
        double least = 1e30;
        for (int i = 0; i < 3; ++i) {
          const Stopwatch watch(pool_->threads());
          encode(encoder, format_info(id), format.sharing, with_noise);
          least = std::min(least, watch.seconds());
        }
        const FormatInfo& info = format_info(id);
        const double count = static_cast<double>(rows_ * kColumns), groups = count / info.group;
        double written = groups * info.code_bytes;
        if (info.scales == Scales::plane) written += groups * info.scale_bytes;
        if (info.scales == Scales::shared)
          written += 4 * static_cast<double>(format.sharing.count(rows_, kColumns));
        print(least, 4 * count, written);
      }
    if (!gguf) stream(format);  // a GGUF file wants a whole model
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static constexpr const char* kFolder = "/dev/shm/nibble-bench-quantize";

  void print(double seconds, double in, double out) const {
    std::printf(" %16.2f %10.0f%%", in * 1e-9 / seconds, 100 * (in + out) / bandwidth_ / seconds);
  }

  // The encoder as it is, on rows that are in memory.
  void encode(const Encoder& encoder, const FormatInfo& info, const ScaleSharing& sharing, bool with_noise) {
    const bool shared = info.scales == Scales::shared;
    const std::int64_t band = shared && !sharing.run ? (sharing.rows ? sharing.rows : rows_) : 1;
    const std::int64_t run = sharing.run ? sharing.run : sharing.columns ? sharing.columns : kColumns;
    const float* values = values_.as<float>().data();
    float* scales = scales_.as<float>().data();
    std::vector<float> of_rows(static_cast<std::size_t>(rows_));
    float largest = 0;
    const bool whole = info.tensor_scale || band == rows_;
    if (whole) {
      rows([&](std::int64_t row) {
        float& of = of_rows[static_cast<std::size_t>(row)];
        of = 0;
        encoder.measure(values + row * kColumns, kColumns, kColumns, &of);
      });
      encoder.measure(of_rows.data(), rows_, rows_, &largest);
      if (shared) scales[0] = encoder.scale_of(largest);
    }
    const auto encode_row = [&](std::int64_t row) {
      const std::int64_t group = row * kColumns / info.group;
      EncodeCall call{values + row * kColumns, kColumns, codes_.data() + group * info.code_bytes};
      if (info.tensor_scale) call.tensor_scale = nvfp4_tensor_scale(largest);
      if (shared) {
        call.run = run;
        call.run_scales = call.read_scales = scales + sharing.index(row, 0, kColumns);
      } else if (info.scales == Scales::plane) {
        call.scales = scales_.data() + group * info.scale_bytes;
      }
      if (with_noise)
        of_rows[static_cast<std::size_t>(row)] = static_cast<float>(encoder.encode(call).noise);
      else
        encoder.encode_bytes(call);
    };
    if (!shared || whole) return rows(encode_row);
    bands(band, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t from = sharing.index(begin, 0, kColumns),
                         to = sharing.index(end - 1, kColumns - 1, kColumns) + 1;
      std::fill(scales + from, scales + to, 0.0f);
      for (std::int64_t row = begin; row < end; ++row)
        encoder.measure(values + row * kColumns, kColumns, run, scales + sharing.index(row, 0, kColumns));
      for (std::int64_t i = from; i < to; ++i) scales[i] = encoder.scale_of(scales[i]);
      for (std::int64_t row = begin; row < end; ++row) encode_row(row);
    });
  }
  template <class Body>
  void bands(std::int64_t band, Body&& body) {
    pool_->run([&](int index, int threads) {
      const Range mine = split(rows_, index, threads, band);
      for (std::int64_t row = mine.begin; row < mine.end; row += band)
        body(row, std::min(row + band, mine.end));
    });
  }
  template <class Body>
  void rows(Body&& body) {
    bands(1, [&](std::int64_t row, std::int64_t) { body(row); });
  }

  // A llama of one matrix.
  void write_checkpoint() {
    const std::filesystem::path folder = kFolder;
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder / "in");
    const auto rows = static_cast<std::uint64_t>(rows_);
    const std::string config =
        concat(R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": )", rows,
               R"(, "num_attention_heads": 32, "num_hidden_layers": 1, "vocab_size": 32,
                                       "max_position_embeddings": 512, "rms_norm_eps": 1e-5})");
    const std::vector<TensorSpec> specs = {{"model.layers.0.mlp.up_proj.weight", DType::bf16, {rows, 4096}}};
    auto writer = SafetensorsWriter::create((folder / "in/model.safetensors").string(), specs);
    const Encoder narrow = *find_encoder(Format::bf16, ScaleRule::usual, this_machine().features);
    encode(narrow, format_info(Format::bf16), {}, false);
    (void)(write_file((folder / "in/config.json").string(), config).ok() && writer.ok() &&
           writer->append({codes_.data(), rows * 4096 * 2}).ok() && writer->finish().ok());
  }

  void stream(const TargetFormat& format) {
    const std::filesystem::path folder = kFolder;
    const auto checkpoint = open_checkpoint((folder / "in").string());
    QuantizeOptions how;
    how.format = &format;
    how.only = [](std::string_view) { return true; };
    how.progress = {[](void*, const Progress&) { return 0; }, nullptr};
    double least = 1e30, written = 0;
    for (int i = 0; i < 2; ++i) {
      const Stopwatch watch(pool_->threads());
      const auto report = checkpoint.ok()
                              ? quantize_checkpoint(*checkpoint, (folder / "out").string(), how, *pool_)
                              : Result<QuantizeReport>(checkpoint.status());
      least = std::min(least, watch.seconds());
      if (!report.ok()) {
        std::printf(" %s", report.status().message().c_str());
        return;
      }
      written = static_cast<double>(report->bytes_after);
      std::filesystem::remove_all(folder / "out");
    }
    print(least, 2 * static_cast<double>(rows_ * kColumns), written);
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
  for (const TargetFormat& format : target_formats()) bench.measure(format);
  return 0;
}
