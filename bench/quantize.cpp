// How fast a tensor is quantized, beside what memory and files allow:
//   bench_quantize [--gib N] [--threads N] [--files DIR] [FORMAT...]
//
// The floor of every figure is moving each byte once: those that are read and those that are written, at the
// rate at which the same threads copy memory (measured in the same run, the best of several). `of memory` is
// that time over the time taken, which is the processors' time divided by the threads: what the clock would
// say on a machine that nobody else uses.
//
//   bytes       the encoder alone: a tensor of f32 in memory (1 GiB unless said otherwise) to codes and
//   scales
//               in memory
//   with noise  and what gets lost, in the same pass
//   stream      encode_weight, what `nibble quantize` does with a tensor: the same values as a bf16
//   checkpoint
//               in memory, row by row to the bytes of the format in memory, with noise and progress
//   files       the same from a file, whose pages are in memory, to a new one, in DIR (/dev/shm unless said
//               otherwise); `of files` is beside the same threads reading and writing as many bytes and
//               nothing else
#include "../src/model/encode_stream.hpp"
#include <nibble/base/machine.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/io/file.hpp>
#include <nibble/kernels/encode.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

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
  std::string files = "/dev/shm";
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

// A file that lasts as long as the bench.
class Scratch {
 public:
  explicit Scratch(std::string path)
      : path_(std::move(path)), descriptor_(open(path_.c_str(), O_RDWR | O_CREAT, 0600)) {}
  ~Scratch() {
    close(descriptor_);
    unlink(path_.c_str());
  }
  bool usable() const { return descriptor_ >= 0; }
  // As new: its pages have to be found again.
  bool clear() const { return ftruncate(descriptor_, 0) == 0; }
  const std::string& path() const { return path_; }
  bool write(const std::byte* bytes, std::size_t count, std::uint64_t at) const {
    return pwrite(descriptor_, bytes, count, static_cast<off_t>(at)) == static_cast<ssize_t>(count);
  }
  bool read(std::byte* bytes, std::size_t count, std::uint64_t at) const {
    return pread(descriptor_, bytes, count, static_cast<off_t>(at)) == static_cast<ssize_t>(count);
  }

 private:
  std::string path_;
  int descriptor_;
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
    std::printf("%-12s %18s %18s %18s %18s\n%-12s %18s %18s %18s %18s\n", "", "bytes", "with noise", "stream",
                "files", "", "f32 GB/s of memory", "f32 GB/s of memory", "bf16 GB/s  memory",
                "bf16 GB/s   files");
    make_checkpoint();
    if (!stored_file_.usable() || !written_file_.usable())
      std::printf("no files in %s\n", options_.files.c_str());
  }

  void measure(const TargetFormat& format) {
    const bool gguf = format.safetensors == Format::none;
    if (!options_.wants(format.name)) return;
    std::printf("%-12s", format.name);
    const Format id = gguf ? format.gguf : format.safetensors;
    const Encoder encoder = *find_encoder(id, ScaleRule::usual, this_machine().features);
    if (format.nested)
      std::printf(" %18s %18s", "", "");
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
    if (stored_file_.usable() && written_file_.usable()) files(format, id);
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static void print(double rate, double share) { std::printf(" %9.2f %7.0f%%", rate, 100 * share); }
  void print(double seconds, double in, double out) const {
    print(in * 1e-9 / seconds, (in + out) / bandwidth_ / seconds);
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
    rows([&](std::int64_t row) {
      stored_file_.write(stored_.data() + row * kColumns * 2, kColumns * 2,
                         static_cast<std::uint64_t>(row) * kColumns * 2);
    });
    CheckpointTensor tensor;
    tensor.name = "up";
    tensor.format = Format::bf16;
    tensor.dtype = DType::bf16;
    tensor.shape = {static_cast<std::uint64_t>(rows_), kColumns};
    tensor.codes = {0, 0, bytes};
    checkpoint_.tensors.push_back(std::move(tensor));
  }

  // Seconds and bytes written. Nothing when it fails, which it has then said.
  struct Streamed {
    double seconds = 0, written = 0;
  };
  template <class Prepare, class Write>
  std::optional<Streamed> encode_stream(std::unique_ptr<File> from, const TargetFormat& format, Format id,
                                        Prepare&& prepare, Write&& write) {
    checkpoint_.files.clear();
    checkpoint_.files.push_back(std::move(from));
    const WeightPlan plan{"up", checkpoint_.tensors[0].shape, {checkpoint_.tensors.data()}, {}, Turned::none,
                          false};
    const Encoding how{id, format.sharing, format.nested, ScaleRule::usual};
    Streamed best{1e30, 0};
    for (int i = 0; i < 3; ++i) {
      double written = 0;
      const StreamHooks hooks{[&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
                                written += static_cast<double>(bytes.size());
                                return write(part, offset, bytes);
                              },
                              [](std::int64_t, std::int64_t) { return Status(); }};
      if (!prepare()) return std::nullopt;
      const Stopwatch watch(pool_->threads());
      RowSource source(checkpoint_, plan, *pool_);
      const auto encoded = encode_weight(source, plan, how, *pool_, hooks);
      best = {std::min(best.seconds, watch.seconds()), written};
      if (!encoded.ok()) {
        std::printf(" %s", encoded.status().message().c_str());
        return std::nullopt;
      }
    }
    return best;
  }

  void stream(const TargetFormat& format, Format id) {
    const auto streamed = encode_stream(
        std::make_unique<InMemory>(stored_.data(), stored_.size()), format, id, [] { return true; },
        [&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
          std::byte* to = part == Part::codes ? codes_.data() : scales_.data();
          std::memcpy(to + offset, bytes.data(), bytes.size());
          return Status();
        });
    if (streamed) print(streamed->seconds, static_cast<double>(stored_.size()), streamed->written);
  }

  // Codes from the beginning, and whatever else there is behind them.
  void files(const TargetFormat& format, Format id) {
    auto file = disk_file_system().open(stored_file_.path());
    if (!file.ok()) return;
    const auto streamed = encode_stream(
        file.take(), format, id, [&] { return written_file_.clear(); },
        [&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
          const std::uint64_t at = part == Part::codes ? 0 : stored_.size();
          return written_file_.write(bytes.data(), bytes.size(), at + offset)
                     ? Status()
                     : Status(Code::io, "cannot write");
        });
    if (!streamed) return;
    double least = 1e30;
    for (int i = 0; i < 3 && written_file_.clear(); ++i) {
      const Stopwatch watch(pool_->threads());
      move_files(streamed->written);
      least = std::min(least, watch.seconds());
    }
    print(static_cast<double>(stored_.size()) * 1e-9 / streamed->seconds, least / streamed->seconds);
  }

  // Reads what the stream reads, and writes as many bytes as it wrote.
  void move_files(double written) {
    constexpr std::int64_t kPiece = 1 << 18;
    pool_->run([&](int index, int threads) {
      std::vector<std::byte> piece(kPiece);
      const auto size = static_cast<std::int64_t>(stored_.size());
      const Range mine = split(size, index, threads, kPiece);
      for (std::int64_t at = mine.begin; at < mine.end; at += kPiece) {
        const auto some = static_cast<std::size_t>(std::min(kPiece, mine.end - at));
        stored_file_.read(piece.data(), some, static_cast<std::uint64_t>(at));
        const double share = written / static_cast<double>(size);
        const auto from = static_cast<std::uint64_t>(share * static_cast<double>(at));
        const auto to =
            static_cast<std::uint64_t>(share * static_cast<double>(at) + share * static_cast<double>(some));
        for (std::uint64_t i = from; i < to; i += kPiece)
          written_file_.write(piece.data(), std::min<std::uint64_t>(kPiece, to - i), i);
      }
    });
  }

  Options options_;
  Scratch stored_file_{options_.files + "/nibble-bench-stored"};
  Scratch written_file_{options_.files + "/nibble-bench-written"};
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
    else if (word == "--files" && i + 1 < count)
      options.files = arguments[++i];
    else
      options.formats.push_back(word);
  }
  Bench bench(options);
  for (const TargetFormat& format : target_formats()) bench.measure(format);
  return 0;
}
