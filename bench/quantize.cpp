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
//   stream     encode_weight, what `nibble quantize` does with a tensor: the same values as a bf16 checkpoint
//   in
//              memory, row by row to the bytes of the format in memory, with noise and progress. Files and
//              the system's copies of their pages are left out
#include "../src/model/encode_stream.hpp"
#include <nibble/base/machine.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/kernels/encode.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
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

class InMemory final : public File {
 public:
  InMemory(const std::byte* bytes, std::size_t size) : File("memory"), bytes_(bytes), size_(size) {}
  std::uint64_t size() const override { return size_; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    std::memcpy(out.data(), bytes_ + offset, out.size());
    return {};
  }

 private:
  const std::byte* bytes_;
  std::size_t size_;
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
    make_checkpoint();
  }

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
    stream(format, id);
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
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

  // The values once more, as the only tensor of a checkpoint of bf16.
  void make_checkpoint() {
    const auto bytes = static_cast<std::size_t>(rows_ * kColumns) * 2;
    stored_ = Buffer::make(bytes, memory_, Purpose::staging, "the checkpoint").take();
    const Encoder narrow = *find_encoder(Format::bf16, ScaleRule::usual, this_machine().features);
    rows([&](std::int64_t row) {
      narrow.encode_bytes(
          {values_.as<float>().data() + row * kColumns, kColumns, stored_.data() + row * kColumns * 2});
    });
    checkpoint_.files.push_back(std::make_unique<InMemory>(stored_.data(), bytes));
    CheckpointTensor tensor;
    tensor.name = "up";
    tensor.format = Format::bf16;
    tensor.dtype = DType::bf16;
    tensor.shape = {static_cast<std::uint64_t>(rows_), kColumns};
    tensor.codes = {0, 0, bytes};
    checkpoint_.tensors.push_back(std::move(tensor));
  }

  void stream(const TargetFormat& format, Format id) {
    const WeightPlan plan{"up", checkpoint_.tensors[0].shape, {checkpoint_.tensors.data()}, {}, false, false};
    const Encoding how{id, format.sharing, format.nested, ScaleRule::usual};
    double least = 1e30, written = 0;
    for (int i = 0; i < 3; ++i) {
      written = 0;
      const StreamHooks hooks{[&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
                                std::byte* to = part == Part::codes ? codes_.data() : scales_.data();
                                std::memcpy(to + offset, bytes.data(), bytes.size());
                                written += static_cast<double>(bytes.size());
                                return Status();
                              },
                              [](std::int64_t, std::int64_t) { return Status(); }};
      const Stopwatch watch(pool_->threads());
      RowSource source(checkpoint_, plan, *pool_);
      const auto encoded = encode_weight(source, plan, how, *pool_, hooks);
      least = std::min(least, watch.seconds());
      if (!encoded.ok()) {
        std::printf(" %s", encoded.status().message().c_str());
        return;
      }
    }
    print(least, static_cast<double>(stored_.size()), written);
  }

  Options options_;
  Memory memory_;
  std::unique_ptr<Pool> pool_;
  std::int64_t rows_;
  Buffer values_, codes_, scales_, stored_;
  Checkpoint checkpoint_;
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
