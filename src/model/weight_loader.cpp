// From a checkpoint's bytes to packed weights: threads read pieces of natural rows and pack them, one tensor
// at a time.
#include <nibble/base/concat.hpp>
#include <nibble/base/float16.hpp>
#include <nibble/kernels/pack.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1}
                                      << 20;  // one read: large enough for a disk, small for a cache
constexpr std::int64_t kGroupRows = kGroupStrips * kStripRows;

std::uint64_t code_row_bytes(Format format, std::int64_t k) {
  const FormatInfo& info = format_info(format);
  return static_cast<std::uint64_t>(k) / info.group * info.code_bytes;
}
std::uint64_t scale_row_bytes(Format format, std::int64_t k) {
  const FormatInfo& info = format_info(format);
  return static_cast<std::uint64_t>(k) / info.group * info.scale_bytes;
}

float widen(Format format, const std::byte* at) {
  if (format == Format::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return format == Format::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

}  // namespace

class WeightLoader {
 public:
  using Matrix = WeightLayout::Matrix;
  using Vector = WeightLayout::Vector;

  // How a matrix is cut into pieces of work: `count` groups of strips (or, transposed, k tiles) of one
  // expert.
  struct Pieces {
    std::int64_t units;   // groups or tiles in an expert
    std::int64_t count;   // in a piece
    std::uint64_t bytes;  // staging of one piece
    std::int64_t per_expert() const { return ceil_div(units, count); }
  };
  static Pieces pieces_of(const Matrix& m) {
    if (m.transposed) {
      const std::uint64_t column =
          static_cast<std::uint64_t>(natural_rows(m)) * format_info(m.format).code_bytes;
      return {ceil_div(m.k, kTileK), 1, static_cast<std::uint64_t>(std::min(m.k, kTileK)) * column};
    }
    const std::uint64_t group = kGroupRows * (code_row_bytes(m.format, m.k) + scale_row_bytes(m.format, m.k));
    const std::int64_t groups = ceil_div(m.shape().strips(), kGroupStrips);
    const auto count = static_cast<std::int64_t>(
        std::clamp<std::uint64_t>(kPieceBytes / group, 1, static_cast<std::uint64_t>(groups)));
    return {groups, count, static_cast<std::uint64_t>(count) * group};
  }
  static std::int64_t natural_rows(const Matrix& m) { return m.interleaved ? 2 * m.width : m.rows; }

  WeightLoader(const Checkpoint& checkpoint, const Backend& backend, Numerics numerics, Pool& pool,
               ProgressSink progress, const Cancel* cancel, std::uint64_t total)
      : checkpoint_(checkpoint),
        backend_(backend),
        numerics_(numerics),
        pool_(pool),
        progress_(progress),
        cancel_(cancel),
        total_(total) {}

  void use(Buffer staging, std::byte* base) {
    staging_ = std::move(staging);
    staging_each_ = staging_.size() / static_cast<std::size_t>(pool_.threads());
    base_ = base;
  }

  Status load_rows(const CheckpointTensor& tensor, std::uint64_t offset) {
    const std::uint64_t pieces = ceil_div(tensor.codes.bytes, kPieceBytes);
    return in_parallel(static_cast<std::int64_t>(pieces), tensor, [&](std::int64_t piece, std::byte*) {
      const std::uint64_t begin = static_cast<std::uint64_t>(piece) * kPieceBytes;
      const std::uint64_t size = std::min(kPieceBytes, tensor.codes.bytes - begin);
      return read_plane(checkpoint_, tensor.codes, begin, {base_ + offset + begin, size});
    });
  }

  // Packs a matrix and returns its experts' PackedWeights, kernels chosen.
  Result<std::vector<PackedWeight>> load_matrix(const Matrix& m) {
    wide_ = false;
    const Pieces pieces = pieces_of(m);
    NIB_TRY(in_parallel(m.experts * pieces.per_expert(), *m.parts[0],
                        [&](std::int64_t piece, std::byte* staging) {
                          const std::int64_t expert = piece / pieces.per_expert();
                          const std::int64_t first = piece % pieces.per_expert() * pieces.count;
                          const Range units{first, std::min(first + pieces.count, pieces.units)};
                          return m.transposed ? pack_transposed(m, expert, units, staging)
                                              : pack_groups(m, expert, units, staging);
                        }));
    const MatmulKernel* kernel = find_kernel(backend_, m.format, numerics_, wide_);
    if (!kernel)
      return Status(Code::unsupported, concat(checkpoint_.path, ": tensor ", m.parts[0]->name, ": backend ",
                                              backend_.name, " cannot multiply ", format_name(m.format)));
    std::vector<PackedWeight> packed;
    for (std::int64_t e = 0; e < m.experts; ++e) {
      PackedWeight weight = m.shape();
      weight.data = base_ + m.offset + static_cast<std::uint64_t>(e) * weight.bytes();
      weight.kernel = kernel;
      packed.push_back(weight);
    }
    return packed;
  }

  Result<const float*> load_vector(const Vector& v) {
    auto* out = reinterpret_cast<float*>(base_ + v.offset);
    std::fill(out, out + v.lists * v.padded(), 0.0f);
    std::int64_t at = 0;  // into a list; several parts make one list
    for (const CheckpointTensor* part : v.parts) {
      if (stopped()) return Status(Code::stopped, concat(checkpoint_.path, ": loading was cancelled"));
      const std::uint64_t size = format_info(part->format).code_bytes;
      const std::uint64_t count = part->codes.bytes / size;
      const std::uint64_t at_once = std::max<std::uint64_t>(1, staging_.size() / size);
      for (std::uint64_t begin = 0; begin < count; begin += at_once) {
        const std::uint64_t some = std::min(at_once, count - begin);
        NIB_TRY(read_plane(checkpoint_, part->codes, begin * size, {staging_.data(), some * size}));
        for (std::uint64_t i = 0; i < some; ++i)
          out[position(v, at + static_cast<std::int64_t>(begin + i))] =
              widen(part->format, staging_.data() + i * size);
      }
      at += static_cast<std::int64_t>(count);
    }
    done_ += static_cast<std::uint64_t>(v.lists * v.padded()) * sizeof(float);
    return static_cast<const float*>(out);
  }

 private:
  bool stopped() const { return cancel_ && cancel_->triggered(); }

  // Value `i` of all lists, where it lies in memory.
  static std::int64_t position(const Vector& v, std::int64_t i) {
    const std::int64_t list = i / v.width, at = i % v.width, unit = at / 2;
    if (!v.interleaved) return list * v.padded() + at;
    return list * v.padded() + (2 * (unit / kStripRows) + at % 2) * kStripRows + unit % kStripRows;
  }

  // The natural row that lane `lane` of a strip holds, or -1 past the last.
  static std::int64_t natural_row(const Matrix& m, std::int64_t strip, std::int64_t lane) {
    if (!m.interleaved) {
      const std::int64_t row = strip * kStripRows + lane;
      return row < m.rows ? row : -1;
    }
    const std::int64_t unit = strip / 2 * kStripRows + lane;
    return unit < m.width ? 2 * unit + strip % 2 : -1;
  }

  // Runs work(piece, staging of the thread) for all pieces; the first failure ends it.
  template <class Work>
  Status in_parallel(std::int64_t pieces, const CheckpointTensor& tensor, Work&& work) {
    if (progress_({Stage::pack, done_, total_, tensor.name}) || stopped())
      return Status(Code::stopped, concat(checkpoint_.path, ": loading was cancelled"));
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    Status first;
    pool_.run([&](int index, int) {
      std::byte* staging = staging_.data() + static_cast<std::size_t>(index) * staging_each_;
      for (std::int64_t piece; !failed && !stopped() && (piece = next.fetch_add(1)) < pieces;)
        if (Status status = work(piece, staging); !status.ok()) {
          const std::lock_guard lock(mutex);
          if (!failed.exchange(true)) first = std::move(status);
        }
    });
    if (failed) return first;
    if (stopped()) return Status(Code::stopped, concat(checkpoint_.path, ": loading was cancelled"));
    done_ += tensor.codes.bytes + tensor.scales.bytes;
    return {};
  }

  // Natural rows [begin, end) of an expert, from the parts they lie in; row r at out + (r - begin) *
  // row_bytes.
  Status read_rows(const Matrix& m, std::int64_t expert, Range rows, std::uint64_t row_bytes, bool scales,
                   std::byte* out) {
    std::int64_t first = 0;  // row of the matrix at which the part begins
    for (const CheckpointTensor* part : m.parts) {
      const std::int64_t count =
          m.parts.size() == 1 ? natural_rows(m) : static_cast<std::int64_t>(part->shape[0]);
      const std::int64_t begin = std::max(rows.begin, first), end = std::min(rows.end, first + count);
      if (begin < end) {
        const std::uint64_t offset = static_cast<std::uint64_t>(expert * count + begin - first) * row_bytes;
        NIB_TRY(read_plane(checkpoint_, scales ? part->scales : part->codes, offset,
                           {out + static_cast<std::uint64_t>(begin - rows.begin) * row_bytes,
                            static_cast<std::uint64_t>(end - begin) * row_bytes}));
      }
      first += count;
    }
    return {};
  }

  // Groups of four strips need 64 consecutive natural rows each, in either order of rows.
  Status pack_groups(const Matrix& m, std::int64_t expert, Range groups, std::byte* staging) {
    const std::uint64_t codes_each = code_row_bytes(m.format, m.k),
                        scales_each = scale_row_bytes(m.format, m.k);
    const Range rows{groups.begin * kGroupRows, std::min(groups.end * kGroupRows, natural_rows(m))};
    std::byte* scales = staging + static_cast<std::uint64_t>(rows.size()) * codes_each;
    NIB_TRY(read_rows(m, expert, rows, codes_each, false, staging));
    if (scales_each) NIB_TRY(read_rows(m, expert, rows, scales_each, true, scales));

    const PackedWeight shape = m.shape();
    std::byte* out = base_ + m.offset + static_cast<std::uint64_t>(expert) * shape.bytes();
    for (std::int64_t strip = groups.begin * kGroupStrips;
         strip < std::min(groups.end * kGroupStrips, shape.strips()); ++strip) {
      StripRows natural;
      for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
        const std::int64_t row = natural_row(m, strip, lane);
        if (row < 0) continue;
        natural.codes[lane] = staging + static_cast<std::uint64_t>(row - rows.begin) * codes_each;
        if (scales_each)
          natural.scales[lane] = scales + static_cast<std::uint64_t>(row - rows.begin) * scales_each;
      }
      NIB_TRY(pack_strip(m, shape, strip, natural, out));
    }
    return {};
  }

  Status pack_strip(const Matrix& m, const PackedWeight& shape, std::int64_t strip, StripRows natural,
                    std::byte* out) {
    CarriedExponents carried{};
    if (m.format == Format::mxfp4) carried = first_exponents(static_cast<std::size_t>(m.k) / 32, natural);
    for (std::int64_t tile = 0; tile * kTileK < m.k; ++tile) {
      const std::int64_t k = std::min(kTileK, m.k - tile * kTileK);
      NIB_TRY(note(m, pack_tile(m.format, k, natural, carried, out + shape.tile_offset(strip, tile))));
      for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
        if (natural.codes[lane]) natural.codes[lane] += code_row_bytes(m.format, kTileK);
        if (natural.scales[lane]) natural.scales[lane] += scale_row_bytes(m.format, kTileK);
      }
    }
    return {};
  }

  // Stored [k, rows]: one k tile of all rows is contiguous; each strip's part of it is turned around first.
  Status pack_transposed(const Matrix& m, std::int64_t expert, Range tiles, std::byte* staging) {
    const PackedWeight shape = m.shape();
    const std::size_t size = format_info(m.format).code_bytes;
    const std::int64_t columns = natural_rows(m);
    std::byte* out = base_ + m.offset + static_cast<std::uint64_t>(expert) * shape.bytes();
    for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::int64_t k = std::min(kTileK, m.k - tile * kTileK);
      const std::uint64_t offset =
          static_cast<std::uint64_t>((expert * m.k + tile * kTileK) * columns) * size;
      NIB_TRY(read_plane(checkpoint_, m.parts[0]->codes, offset,
                         {staging, static_cast<std::size_t>(k * columns) * size}));
      for (std::int64_t strip = 0; strip < shape.strips(); ++strip) {
        std::byte turned[kStripRows][kTileK * 4];
        StripRows natural;
        for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
          const std::int64_t row = natural_row(m, strip, lane);
          if (row < 0) continue;
          for (std::int64_t i = 0; i < k; ++i)
            std::memcpy(turned[lane] + static_cast<std::size_t>(i) * size,
                        staging + static_cast<std::size_t>(i * columns + row) * size, size);
          natural.codes[lane] = turned[lane];
        }
        CarriedExponents carried{};
        NIB_TRY(note(m, pack_tile(m.format, k, natural, carried, out + shape.tile_offset(strip, tile))));
      }
    }
    return {};
  }

  Status note(const Matrix& m, PackFindings findings) {
    if (findings.not_a_number)
      return Status(Code::format, concat(checkpoint_.path, ": tensor ", m.parts[0]->name,
                                         " has a scale that is not a number (byte 255)"));
    if (findings.wide_exponents) wide_ = true;
    return {};
  }

  const Checkpoint& checkpoint_;
  const Backend& backend_;
  Numerics numerics_;
  Pool& pool_;
  ProgressSink progress_;
  const Cancel* cancel_;
  std::uint64_t total_, done_ = 0;
  Buffer staging_;
  std::size_t staging_each_ = 0;
  std::byte* base_ = nullptr;
  std::atomic<bool> wide_{false};
};

std::uint64_t WeightLayout::staging_bytes(int threads) const {
  std::uint64_t most = 64 * 1024;
  const auto look = [&](const Matrix& m) { most = std::max(most, WeightLoader::pieces_of(m).bytes); };
  for (const Layer& layer : layers_)
    for (const Matrix* m : {&layer.qkv, &layer.output, &layer.router, &layer.gate_up, &layer.down}) look(*m);
  look(head_);
  return round_up(most, std::uint64_t{64}) * static_cast<std::uint64_t>(threads);
}

Result<Weights> WeightLayout::load(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const Backend& backend, Numerics numerics, Memory& memory, Pool& pool,
                                   ProgressSink progress, const Cancel* cancel) const {
  Weights weights;
  NIB_ASSIGN(weights.memory,
             Buffer::make(bytes_, memory, Purpose::weights, concat("the weights of ", checkpoint.path)));
  NIB_ASSIGN(Buffer staging, Buffer::make(staging_bytes(pool.threads()), memory, Purpose::staging,
                                          "the buffers for reading weights"));
  std::byte* base = weights.memory.data();
  WeightLoader loader(checkpoint, backend, numerics, pool, progress, cancel, bytes_);
  loader.use(std::move(staging), base);

  weights.embedding = {embedding_->format, config.vocabulary, config.hidden, base + embedding_offset_};
  NIB_TRY(loader.load_rows(*embedding_, embedding_offset_));
  const auto one = [&](const Matrix& m, PackedWeight& out) -> Status {
    NIB_ASSIGN(std::vector<PackedWeight> packed, loader.load_matrix(m));
    out = packed.front();
    return {};
  };
  for (const Layer& from : layers_) {
    LayerWeights& to = weights.layers.emplace_back();
    NIB_ASSIGN(to.attention_norm, loader.load_vector(from.attention_norm));
    NIB_TRY(one(from.qkv, to.qkv));
    NIB_ASSIGN(to.qkv_bias, loader.load_vector(from.qkv_bias));
    NIB_ASSIGN(to.sinks, loader.load_vector(from.sinks));
    NIB_TRY(one(from.output, to.output));
    NIB_ASSIGN(to.output_bias, loader.load_vector(from.output_bias));
    NIB_ASSIGN(to.mlp_norm, loader.load_vector(from.mlp_norm));
    NIB_TRY(one(from.router, to.router));
    NIB_ASSIGN(to.router_bias, loader.load_vector(from.router_bias));
    NIB_ASSIGN(to.gate_up, loader.load_matrix(from.gate_up));
    NIB_ASSIGN(to.gate_up_bias, loader.load_vector(from.gate_up_bias));
    NIB_ASSIGN(to.down, loader.load_matrix(from.down));
    NIB_ASSIGN(to.down_bias, loader.load_vector(from.down_bias));
  }
  NIB_ASSIGN(weights.final_norm, loader.load_vector(final_norm_));
  NIB_TRY(one(head_, weights.head));
  return weights;
}

}  // namespace nib::inline v0
