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
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1}
                                      << 20;  // one read: large enough for a disk, small for a cache
constexpr std::int64_t kGroupRows = kGroupStrips * kStripRows;
constexpr std::size_t kMostParts = 3;  // of a matrix: q, k and v

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
  using RowMap = WeightLayout::RowMap;

  // Of one row as it is stored, or staged: scales that are shared have been spread over their runs then.
  static std::uint64_t code_row_bytes(const Matrix& m) {
    const FormatInfo& info = format_info(m.format);
    return static_cast<std::uint64_t>(m.k) / info.group * info.code_bytes;
  }
  static std::uint64_t scale_row_bytes(const Matrix& m) {
    const FormatInfo& info = format_info(m.format);
    if (info.scales == Scales::shared)
      return static_cast<std::uint64_t>(ceil_div(m.k, m.scale_run)) * sizeof(float);
    return static_cast<std::uint64_t>(m.k) / info.group * info.scale_bytes;
  }

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
          static_cast<std::uint64_t>(m.stored.map.part_rows[0]) * format_info(m.format).code_bytes;
      return {ceil_div(m.k, kTileK), 1, static_cast<std::uint64_t>(std::min(m.k, kTileK)) * column};
    }
    const std::uint64_t group = kGroupRows * (code_row_bytes(m) + scale_row_bytes(m));
    const std::int64_t groups = ceil_div(m.shape().strips(), kGroupStrips);
    const auto count = static_cast<std::int64_t>(
        std::clamp<std::uint64_t>(kPieceBytes / group, 1, static_cast<std::uint64_t>(groups)));
    return {groups, count, static_cast<std::uint64_t>(count) * group};
  }
  // Staging for the tensors of one list of a vector.
  static std::uint64_t staging_of(const Vector& v) {
    std::uint64_t bytes = 0;
    for (std::size_t part = 0; v.exists() && part < v.stored.map.part_rows.size(); ++part)
      bytes += static_cast<std::uint64_t>(v.stored.map.part_rows[part]) * sizeof(float);
    return bytes;
  }

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

  // The numerics under which the kernels of matrices that share packed activations want them in one layout:
  // bytes where all can take them, else those of f32.
  Numerics shared_numerics(std::initializer_list<std::span<const Matrix>> lists) const {
    std::size_t count = 0;
    bool bytes = numerics_ == Numerics::int8;
    for (const std::span<const Matrix> list : lists)
      for (const Matrix& m : list) {
        count += m.exists();
        bytes = bytes && (!m.exists() || takes_bytes(backend_, m));
      }
    return count == 1 || bytes ? numerics_ : Numerics::f32;
  }

  static bool takes_bytes(const Backend& backend, const Matrix& m) {
    const MatmulKernel* kernel = find_kernel(backend, m.shape(), Numerics::int8, ScaleRange::any);
    return kernel && kernel->x == ActivationLayout::bytes;
  }

  // Packs a matrix and returns its experts' PackedWeights, kernels chosen for these numerics.
  Result<std::vector<PackedWeight>> load_matrix(const Matrix& m, Numerics numerics) {
    std::vector<PackedWeight> packed;
    if (!m.exists()) return packed;
    scales_ = ScaleRange::narrow;
    const CheckpointTensor& named = *m.stored.tensors[0];
    const Pieces pieces = pieces_of(m);
    NIB_TRY(in_parallel(m.stored.experts * pieces.per_expert(), named,
                        [&](std::int64_t piece, std::byte* staging) {
                          const std::int64_t expert = piece / pieces.per_expert();
                          const std::int64_t first = piece % pieces.per_expert() * pieces.count;
                          const Range units{first, std::min(first + pieces.count, pieces.units)};
                          if (!m.shape().tiled()) return copy_records(m, expert, units);
                          return m.transposed ? pack_transposed(m, expert, units, staging)
                                              : pack_groups(m, expert, units, staging);
                        }));
    for (const CheckpointTensor* tensor : m.stored.tensors)
      done_ += tensor->codes.bytes + tensor->scales.bytes;
    const MatmulKernel* kernel = find_kernel(backend_, m.shape(), numerics, scales_);
    if (!kernel)
      return Status(Code::unsupported, concat(checkpoint_.path, ": tensor ", named.name, ": backend ",
                                              backend_.name, " cannot multiply ", format_name(m.format)));
    for (std::int64_t e = 0; e < m.stored.experts; ++e) {
      PackedWeight weight = m.shape();
      weight.data = base_ + m.offset + static_cast<std::uint64_t>(e) * weight.bytes();
      weight.kernel = kernel;
      packed.push_back(weight);
    }
    return packed;
  }

  // Null when the model has no such vector.
  Result<const float*> load_vector(const Vector& v) {
    if (!v.exists()) return static_cast<const float*>(nullptr);
    if (stopped()) return Status(Code::stopped, concat(checkpoint_.path, ": loading was cancelled"));
    auto* all = reinterpret_cast<float*>(base_ + v.offset);
    const RowMap& map = v.stored.map;
    for (std::int64_t e = 0; e < v.stored.experts; ++e) {
      std::byte* parts[kMostParts];
      std::byte* next = staging_.data();
      for (std::size_t part = 0; part < map.part_rows.size(); ++part) {
        const CheckpointTensor& tensor = v.stored.tensor(e, part);
        const std::uint64_t size = format_info(tensor.format).code_bytes;
        const std::uint64_t bytes = static_cast<std::uint64_t>(map.part_rows[part]) * size;
        NIB_TRY(read_plane(checkpoint_, tensor.codes,
                           static_cast<std::uint64_t>(v.stored.first_row(e, part)) * size, {next, bytes}));
        parts[part] = std::exchange(next, next + bytes);
      }
      float* out = all + e * v.padded();
      std::fill(out, out + v.padded(), 0.0f);
      for (std::int64_t row = 0; row < map.rows(); ++row)
        if (RowMap::Source from; map.find(row, from)) {
          const Format format = v.stored.tensor(e, from.part).format;
          out[row] = widen(format, parts[from.part] +
                                       static_cast<std::uint64_t>(from.row) * format_info(format).code_bytes);
        }
    }
    done_ += static_cast<std::uint64_t>(v.values()) * sizeof(float);
    return static_cast<const float*>(all);
  }

 private:
  bool stopped() const { return cancel_ && cancel_->triggered(); }

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
    return {};
  }

  // The rows of the file that a piece needs, staged: where each row of the result finds its codes and scales.
  struct StagedRows {
    struct Part {
      std::int64_t first = 0, count = 0;  // rows of the part that were read
      const std::byte *codes = nullptr, *scales = nullptr;
    } parts[kMostParts];
  };
  Status stage(const Matrix& m, std::int64_t expert, Range rows, std::byte* staging, StagedRows& staged) {
    const RowMap& map = m.stored.map;
    std::int64_t last[kMostParts] = {};
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      RowMap::Source from;
      if (!map.find(row, from)) continue;
      StagedRows::Part& part = staged.parts[from.part];
      part.first = part.count++ == 0 ? from.row : std::min(part.first, from.row);
      last[from.part] = std::max(last[from.part], from.row + 1);
    }
    const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
    for (std::size_t p = 0; p < map.part_rows.size(); ++p) {
      StagedRows::Part& part = staged.parts[p];
      if (part.count == 0) continue;
      part.count = last[p] - part.first;
      const CheckpointTensor& tensor = m.stored.tensor(expert, p);
      const auto first = static_cast<std::uint64_t>(m.stored.first_row(expert, p) + part.first),
                 count = static_cast<std::uint64_t>(part.count);
      NIB_TRY(read_plane(checkpoint_, tensor.codes, first * codes_each, {staging, count * codes_each}));
      part.codes = std::exchange(staging, staging + count * codes_each);
      if (!scales_each) continue;
      NIB_TRY(read_scales(m, tensor, first, count, staging));
      part.scales = std::exchange(staging, staging + count * scales_each);
    }
    return {};
  }

  // The scales of `count` rows from `first` on.
  Status read_scales(const Matrix& m, const CheckpointTensor& tensor, std::uint64_t first,
                     std::uint64_t count, std::byte* out) {
    const std::uint64_t each = scale_row_bytes(m);
    if (format_info(m.format).scales != Scales::shared)
      return read_plane(checkpoint_, tensor.scales, first * each, {out, count * each});
    std::vector<float> spread(each / sizeof(float));
    for (std::uint64_t row = 0; row < count; ++row) {
      NIB_TRY(
          read_row_scales(checkpoint_, tensor, first + row, static_cast<std::uint64_t>(m.scale_run), spread));
      std::memcpy(out + row * each, spread.data(), each);
    }
    return {};
  }

  // The sixteen rows of a strip, each read by itself: for orders that scatter them over the file.
  Status stage_strip(const Matrix& m, std::int64_t expert, std::int64_t strip, std::byte* staging,
                     StripRows& natural) {
    const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
    for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
      RowMap::Source from;
      if (!m.stored.map.find(strip * kStripRows + lane, from)) continue;
      const CheckpointTensor& tensor = m.stored.tensor(expert, from.part);
      const auto row = static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row);
      NIB_TRY(read_plane(checkpoint_, tensor.codes, row * codes_each, {staging, codes_each}));
      natural.codes[lane] = std::exchange(staging, staging + codes_each);
      natural.factor[lane] = static_cast<float>(row_factor(tensor, row));
      if (!scales_each) continue;
      NIB_TRY(read_scales(m, tensor, row, 1, staging));
      natural.scales[lane] = std::exchange(staging, staging + scales_each);
    }
    return {};
  }

  Status pack_groups(const Matrix& m, std::int64_t expert, Range groups, std::byte* staging) {
    const PackedWeight shape = m.shape();
    const RowMap& map = m.stored.map;
    const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
    const Range strips{groups.begin * kGroupStrips, std::min(groups.end * kGroupStrips, shape.strips())};
    const bool scattered = map.order == RowMap::Order::per_head || map.order == RowMap::Order::pairs;
    StagedRows staged;
    if (!scattered)
      NIB_TRY(stage(m, expert, {strips.begin * kStripRows, strips.end * kStripRows}, staging, staged));
    std::byte* out = base_ + m.offset + static_cast<std::uint64_t>(expert) * shape.bytes();
    for (std::int64_t strip = strips.begin; strip < strips.end; ++strip) {
      StripRows natural;
      if (scattered) NIB_TRY(stage_strip(m, expert, strip, staging, natural));
      for (std::int64_t lane = 0; !scattered && lane < kStripRows; ++lane) {
        RowMap::Source from;
        if (!map.find(strip * kStripRows + lane, from)) continue;
        const StagedRows::Part& part = staged.parts[from.part];
        const auto row = static_cast<std::uint64_t>(from.row - part.first);
        natural.codes[lane] = part.codes + row * codes_each;
        if (part.scales) natural.scales[lane] = part.scales + row * scales_each;
        natural.factor[lane] = static_cast<float>(
            row_factor(m.stored.tensor(expert, from.part),
                       static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row)));
      }
      NIB_TRY(note(m, pack_strip(m.format, shape, strip, natural, out)));
    }
    return {};
  }

  // A format without tiles: every row into its record, its shared scales spread over it.
  Status copy_records(const Matrix& m, std::int64_t expert, Range groups) {
    const PackedWeight shape = m.shape();
    const std::uint64_t codes = shape.record_codes(), scales = shape.record_scales();
    std::byte* out = base_ + m.offset + static_cast<std::uint64_t>(expert) * shape.bytes();
    for (std::int64_t row = groups.begin * kGroupRows;
         row < std::min(groups.end * kGroupRows, shape.strips() * kStripRows); ++row) {
      std::byte* record = out + static_cast<std::uint64_t>(row / kStripRows) * shape.strip_bytes() +
                          static_cast<std::uint64_t>(row % kStripRows) * shape.record_bytes();
      std::memset(record, 0, shape.record_bytes());
      RowMap::Source from;
      if (!m.stored.map.find(row, from)) continue;
      const CheckpointTensor& tensor = m.stored.tensor(expert, from.part);
      const auto at = static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row);
      NIB_TRY(read_plane(checkpoint_, tensor.codes, at * codes, {record, codes}));
      if (scales) NIB_TRY(read_scales(m, tensor, at, 1, record + codes));
      if (format_info(m.format).tensor_scale) {
        const auto factor = static_cast<float>(row_factor(tensor, at));
        std::memcpy(record + codes + scales, &factor, sizeof factor);
      }
    }
    return {};
  }

  // Stored [k, rows]: one k tile of all rows is contiguous; each strip's part of it is turned around first.
  Status pack_transposed(const Matrix& m, std::int64_t expert, Range tiles, std::byte* staging) {
    const PackedWeight shape = m.shape();
    const std::size_t size = format_info(m.format).code_bytes;
    const RowMap& map = m.stored.map;
    const std::int64_t columns = map.part_rows[0];
    std::byte* out = base_ + m.offset + static_cast<std::uint64_t>(expert) * shape.bytes();
    for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::int64_t k = std::min(kTileK, m.k - tile * kTileK);
      const std::uint64_t offset =
          static_cast<std::uint64_t>((expert * m.k + tile * kTileK) * columns) * size;
      NIB_TRY(read_plane(checkpoint_, m.stored.tensors[0]->codes, offset,
                         {staging, static_cast<std::size_t>(k * columns) * size}));
      for (std::int64_t strip = 0; strip < shape.strips(); ++strip) {
        std::byte turned[kStripRows][kTileK * 4];
        StripRows natural;
        for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
          RowMap::Source from;
          if (!map.find(strip * kStripRows + lane, from)) continue;
          for (std::int64_t i = 0; i < k; ++i)
            std::memcpy(turned[lane] + static_cast<std::size_t>(i) * size,
                        staging + static_cast<std::size_t>(i * columns + from.row) * size, size);
          natural.codes[lane] = turned[lane];
        }
        pack_plain_tile(shape, strip, tile, natural, out);
      }
    }
    return {};
  }

  Status note(const Matrix& m, PackFindings findings) {
    if (findings.not_a_number)
      return Status(Code::format, concat(checkpoint_.path, ": tensor ", m.stored.tensors[0]->name,
                                         " has a scale that is not a number (byte 255)"));
    ScaleRange seen = scales_;
    while (seen < findings.scales && !scales_.compare_exchange_weak(seen, findings.scales)) {
    }
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
  std::atomic<ScaleRange> scales_{ScaleRange::narrow};  // of the matrix being packed
};

std::uint64_t WeightLayout::staging_bytes(int threads) const {
  std::uint64_t most = 64 * 1024;
  const auto look = [&](const Matrix& m) {
    if (m.exists()) most = std::max(most, WeightLoader::pieces_of(m).bytes);
  };
  for (const Layer& layer : layers_) {
    for (const Matrix& m : layer.qkv) look(m);
    for (const Matrix* m : {&layer.output, &layer.router, &layer.gate_up, &layer.up, &layer.down}) look(*m);
    for (const Vector* v :
         {&layer.attention_norm, &layer.qkv_bias, &layer.router_bias, &layer.gate_up_bias, &layer.down_bias})
      most = std::max(most, WeightLoader::staging_of(*v));
  }
  look(head_);
  return round_up(most, std::uint64_t{64}) * static_cast<std::uint64_t>(threads);
}

namespace {

// A router decides on the small differences of few outputs: it is not rounded further than to bf16.
Numerics router_numerics(Numerics numerics) { return numerics == Numerics::int8 ? Numerics::bf16 : numerics; }

// Formats of weights that bf16 holds exactly, scales and all.
bool bf16_holds(Format format) {
  switch (format) {
    case Format::bf16:
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2:
    case Format::mxfp6_e2m3:
    case Format::mxfp6_e3m2:
      return true;
    default:
      return false;
  }
}

}  // namespace

Status WeightLayout::check_int8(const Checkpoint& checkpoint, const Backend& backend) const {
  const auto check = [&](const Matrix& m) -> Status {
    if (!m.exists() || bf16_holds(m.format) || WeightLoader::takes_bytes(backend, m)) return {};
    return Status(Code::unsupported,
                  concat(checkpoint.path, ": tensor ", m.stored.tensors[0]->name, " is ",
                         format_name(m.format), ", which int8 numerics cannot multiply; bf16 numerics can, ",
                         "or int8 where such tensors are allowed to be computed as under bf16"));
  };
  for (const Layer& layer : layers_) {
    for (const Matrix& m : layer.qkv) NIB_TRY(check(m));
    for (const Matrix* m : {&layer.output, &layer.gate_up, &layer.up, &layer.down}) NIB_TRY(check(*m));
  }
  return check(head_);
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
  const auto one = [&](const Matrix& m, Numerics kind, PackedWeight& out) -> Status {
    NIB_ASSIGN(std::vector<PackedWeight> packed, loader.load_matrix(m, kind));
    if (!packed.empty()) out = packed.front();
    return {};
  };
  for (const Layer& from : layers_) {
    LayerWeights& to = weights.layers.emplace_back();
    NIB_ASSIGN(to.attention_norm, loader.load_vector(from.attention_norm));
    NIB_ASSIGN(to.attention_norm_bias, loader.load_vector(from.attention_norm_bias));
    for (const Matrix& m : from.qkv) {
      NIB_ASSIGN(std::vector<PackedWeight> packed, loader.load_matrix(m, loader.shared_numerics({from.qkv})));
      to.qkv.push_back(packed.front());
    }
    NIB_ASSIGN(to.qkv_bias, loader.load_vector(from.qkv_bias));
    NIB_ASSIGN(to.q_norm, loader.load_vector(from.q_norm));
    NIB_ASSIGN(to.k_norm, loader.load_vector(from.k_norm));
    NIB_ASSIGN(to.sinks, loader.load_vector(from.sinks));
    NIB_TRY(one(from.output, numerics, to.output));
    NIB_ASSIGN(to.output_bias, loader.load_vector(from.output_bias));
    NIB_ASSIGN(to.mlp_norm, loader.load_vector(from.mlp_norm));
    NIB_ASSIGN(to.mlp_norm_bias, loader.load_vector(from.mlp_norm_bias));
    NIB_TRY(one(from.router, router_numerics(numerics), to.router));
    NIB_ASSIGN(to.router_bias, loader.load_vector(from.router_bias));
    const Numerics gate_up = loader.shared_numerics({{&from.gate_up, 1}, {&from.up, 1}});
    NIB_ASSIGN(to.gate_up, loader.load_matrix(from.gate_up, gate_up));
    NIB_ASSIGN(to.up, loader.load_matrix(from.up, gate_up));
    NIB_ASSIGN(to.gate_up_bias, loader.load_vector(from.gate_up_bias));
    NIB_ASSIGN(to.down, loader.load_matrix(from.down, numerics));
    NIB_ASSIGN(to.down_bias, loader.load_vector(from.down_bias));
  }
  NIB_ASSIGN(weights.final_norm, loader.load_vector(final_norm_));
  NIB_ASSIGN(weights.final_norm_bias, loader.load_vector(final_norm_bias_));
  NIB_ASSIGN(weights.rope_divisors, loader.load_vector(rope_divisors_));
  NIB_TRY(one(head_, numerics, weights.head));
  return weights;
}

}  // namespace nib::inline v0
