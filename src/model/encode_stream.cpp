#include "encode_stream.hpp"

#include <nibble/base/bits.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/kernels/encode.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <numeric>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

// Values that one thread reads, measures and encodes before it takes others: as floats they stay in a
// second-level cache.
constexpr std::int64_t kUnitValues = std::int64_t{1} << 15;
// Units of a thread between two meetings of all threads.
constexpr std::int64_t kUnitsAtOnce = 8;
constexpr std::size_t kBytesAtOnce = std::size_t{4} << 20;

bool shares_scales(Format format) { return format_info(format).scales == Scales::shared; }

// A weight on its way, block after block. Threads take units of a block, rows that share no scale with
// others, and beside them one writes the bytes of the block before. Scales that lie within a unit are
// measured right before its values are encoded; what is measured over the whole tensor first, takes all
// blocks twice.
class Stream {
 public:
  Stream(RowSource& source, const WeightPlan& plan, const Encoding& how, const Encoder& encoder, Pool& pool,
         const StreamHooks& hooks)
      : source_(source),
        how_(how),
        info_(format_info(how.format)),
        sharing_(shares_scales(how.format) ? how.sharing : ScaleSharing::per_tensor()),
        encoder_(encoder),
        pool_(pool),
        hooks_(hooks),
        rows_(plan.rows()),
        columns_(plan.columns()) {
    if (sharing_.run)  // where the runs and the rows begin together again
      band_ = at_once_ = sharing_.run / std::gcd(sharing_.run, columns_);
    else if (shares_scales(how.format))
      band_ = sharing_.rows;
    const std::int64_t least = std::max<std::int64_t>(1, band_);
    unit_ = least * std::max<std::int64_t>(1, kUnitValues / std::max<std::int64_t>(1, columns_ * least));
    unit_ = std::min(unit_, rows_);
    block_ = std::min(unit_ * kUnitsAtOnce * pool.threads(), rows_);
    workers_.resize(static_cast<std::size_t>(pool.threads()));
    for (Worker& worker : workers_) worker.values.resize(static_cast<std::size_t>(unit_ * columns_));
    for (Bytes& bytes : bytes_) {
      bytes.codes.resize(bytes_of(block_, info_.code_bytes));
      if (info_.scales == Scales::plane) bytes.scales.resize(bytes_of(block_, info_.scale_bytes));
    }
    noise_.resize(static_cast<std::size_t>(block_));
  }

  Result<Encoded> encode() {
    const bool shared = shares_scales(how_.format);
    whole_first_ = info_.tensor_scale || (shared && (band_ == 0 || how_.nested));
    if (shared || whole_first_) largest_.resize(static_cast<std::size_t>(sharing_.count(rows_, columns_)));
    if (whole_first_) {
      NIB_TRY(measure_all());
      const FloatScope scope(Subnormals::kept);  // not around hooks, in which the host's code runs
      if (shared) choose_scales(0, rows_);
      if (info_.tensor_scale) choose_tensor_scale();
      if (how_.nested) nest();
    }
    NIB_TRY(encode_all());
    if (info_.tensor_scale) NIB_TRY(put_tensor_scale());
    if (shared) NIB_TRY(put_scales());
    return out_;
  }

 private:
  std::size_t bytes_of(std::int64_t rows, std::uint32_t each) const {
    return static_cast<std::size_t>(rows * columns_) / info_.group * each;
  }

  struct Worker {
    std::vector<float> values;  // of the unit at hand
    std::vector<std::byte> stored;
    std::vector<float> largest;  // of the units so far, where all rows share their scales
    Status failure;
  };
  struct Bytes {  // of a block
    std::vector<std::byte> codes, scales;
    std::int64_t rows = 0;
  };

  // beside() once and work(worker, first row, rows) for all units of a block, whose values have been read,
  // by whichever thread is free.
  template <class Beside, class Work>
  Status share_out(std::int64_t first, std::int64_t count, Beside&& beside, Work&& work) {
    NIB_TRY(hooks_.step(done_, rows_));
    NIB_TRY(source_.prepare(first, count));
    std::atomic<std::int64_t> next{-1};  // beside() is the first
    std::atomic<bool> failed{false};
    const auto take = [&](Worker& worker, std::int64_t unit) -> Status {
      if (unit < 0) return beside();
      const std::int64_t row = unit * unit_, some = std::min(unit_, count - row);
      NIB_TRY(source_.read(first + row, some, worker.values.data(), worker.stored));
      work(worker, first + row, some);
      return {};
    };
    pool_.run([&](int index, int) {
      const FloatScope scope(Subnormals::kept);
      Worker& worker = workers_[static_cast<std::size_t>(index)];
      for (std::int64_t unit; !failed && (unit = next.fetch_add(1)) * unit_ < count;) {
        worker.failure = within_memory("a block of rows", [&] { return take(worker, unit); });
        if (!worker.failure.ok()) failed = true;
      }
    });
    for (Worker& worker : workers_)
      if (!worker.failure.ok()) return std::move(worker.failure);
    return {};
  }

  Status measure_all() {
    if (band_ == 0)
      for (Worker& worker : workers_)
        worker.largest.assign(static_cast<std::size_t>(sharing_.count(1, columns_)), 0.0f);
    for (std::int64_t row = 0; row < rows_; row += block_)
      NIB_TRY(share_out(
          row, std::min(block_, rows_ - row), [] { return Status(); },
          [&](Worker& worker, std::int64_t first, std::int64_t count) { measure(worker, first, count); }));
    if (band_ == 0)
      for (const Worker& worker : workers_)
        encoder_.measure(worker.largest.data(), static_cast<std::int64_t>(worker.largest.size()), 1,
                         largest_.data());
    return {};
  }

  Status encode_all() {
    Bytes *now = &bytes_[0], *before = &bytes_[1];
    for (std::int64_t row = 0; row < rows_; row += block_) {
      now->rows = std::min(block_, rows_ - row);
      NIB_TRY(share_out(
          row, now->rows, [&] { return put(*before); },
          [&](Worker& worker, std::int64_t first, std::int64_t count) {
            if (shares_scales(how_.format) && !whole_first_) {
              measure(worker, first, count);
              choose_scales(first, count);
            }
            encode_rows(worker.values.data(), first, count, *now, first - row);
          }));
      add_noise(now->rows);
      done_ += now->rows;
      std::swap(now, before);
    }
    return put(*before);
  }

  void add_noise(std::int64_t rows) {
    const FloatScope scope(Subnormals::kept);
    for (std::int64_t at = 0; at < rows; at += at_once_) {
      out_.noise.signal += noise_[static_cast<std::size_t>(at)].signal;
      out_.noise.noise += noise_[static_cast<std::size_t>(at)].noise;
    }
  }

  // Consecutive values of one row that share a scale; all of them when the whole row does.
  std::int64_t run() const {
    return sharing_.run ? sharing_.run : sharing_.columns ? sharing_.columns : columns_;
  }
  std::size_t scale_of_row(std::int64_t row) const {
    return static_cast<std::size_t>(sharing_.index(row, 0, columns_));
  }

  // --- scales

  void measure(Worker& worker, std::int64_t first, std::int64_t count) {
    for (std::int64_t row = 0; row < count; row += at_once_)
      encoder_.measure(worker.values.data() + row * columns_, std::min(at_once_, count - row) * columns_,
                       run(),
                       band_ == 0 ? worker.largest.data() : largest_.data() + scale_of_row(first + row));
  }

  void choose_scales(std::int64_t first, std::int64_t count) {
    const std::size_t end = first + count < rows_ ? scale_of_row(first + count) : largest_.size();
    for (std::size_t i = scale_of_row(first); i < end; ++i) largest_[i] = encoder_.scale_of(largest_[i]);
  }

  // The file has its reciprocal, in f32; so that is what the values have to be divided by.
  void choose_tensor_scale() {
    stored_scale_ = 1.0f / nvfp4_tensor_scale(largest_[0]);
    tensor_scale_ = 1.0f / stored_scale_;
  }
  Status put_tensor_scale() {
    std::byte bytes[4];
    store_little_endian(std::bit_cast<std::uint32_t>(stored_scale_), bytes);
    return hooks_.write(Part::tensor_scale, 0, bytes);
  }

  void nest() {
    const auto count = static_cast<std::int64_t>(largest_.size());
    out_.nested_offset = scale_offset(largest_.data(), count);
    nested_codes_.resize(largest_.size());
    absmax_.resize(ceil_div<std::size_t>(largest_.size(), 256));
    nest_scales(largest_.data(), count, out_.nested_offset, nested_codes_.data(), absmax_.data());
    const NestedScales read{nested_codes_.data(), kDynamicMap.level, absmax_.data(), out_.nested_offset};
    for (std::int64_t i = 0; i < count; ++i) read_scales_.push_back(read[i]);
  }
  Status put_scales() {
    if (!how_.nested) return hooks_.write(Part::scales, 0, std::as_bytes(std::span(largest_)));
    NIB_TRY(hooks_.write(Part::scales, 0, nested_codes_));
    return hooks_.write(Part::nested_scales, 0, std::as_bytes(std::span(absmax_)));
  }

  // --- codes

  // Rows that begin at row `at` of a block.
  void encode_rows(const float* values, std::int64_t first, std::int64_t count, Bytes& to, std::int64_t at) {
    for (std::int64_t row = 0; row < count; row += at_once_) {
      EncodeCall call{values + row * columns_, std::min(at_once_, count - row) * columns_,
                      to.codes.data() + bytes_of(at + row, info_.code_bytes)};
      if (!to.scales.empty()) call.scales = to.scales.data() + bytes_of(at + row, info_.scale_bytes);
      call.tensor_scale = tensor_scale_;
      if (shares_scales(how_.format)) {
        const std::size_t scale = scale_of_row(first + row);
        call.run = run();
        call.run_scales = largest_.data() + scale;
        call.read_scales = (how_.nested ? read_scales_ : largest_).data() + scale;
      }
      noise_[static_cast<std::size_t>(at + row)] = encoder_.encode(call);
    }
  }
  // Once.
  Status put(Bytes& bytes) {
    const std::int64_t rows = std::exchange(bytes.rows, 0);
    if (rows == 0) return {};
    NIB_TRY(put(Part::codes, code_offset_, bytes.codes, bytes_of(rows, info_.code_bytes)));
    return bytes.scales.empty()
               ? Status()
               : put(Part::scales, scale_offset_, bytes.scales, bytes_of(rows, info_.scale_bytes));
  }
  Status put(Part part, std::uint64_t& offset, const std::vector<std::byte>& bytes, std::size_t count) {
    NIB_TRY(hooks_.write(part, offset, std::span(bytes).first(count)));
    offset += count;
    return {};
  }

  RowSource& source_;
  const Encoding& how_;
  const FormatInfo& info_;
  const ScaleSharing sharing_;  // of what has to be measured
  const Encoder& encoder_;
  Pool& pool_;
  const StreamHooks& hooks_;
  std::int64_t rows_, columns_;
  std::int64_t at_once_ = 1;                      // rows that are measured and encoded in one call
  std::int64_t band_ = 0;                         // rows that share no scale with others; 0: all do
  std::int64_t unit_ = 1, block_ = 1, done_ = 0;  // rows
  bool whole_first_ = false;
  std::vector<Worker> workers_;
  Bytes bytes_[2];  // of the block at hand, and of the one before
  std::vector<Noise> noise_;
  std::vector<float> largest_,
      read_scales_;  // largest magnitudes that become scales, and what is read of those
  std::vector<std::byte> nested_codes_;
  std::vector<float> absmax_;
  std::uint64_t code_offset_ = 0, scale_offset_ = 0;
  float tensor_scale_ = 1, stored_scale_ = 1;
  Encoded out_;
};

// 32 codes of MXFP4: in safetensors neighbours in a byte, with their scale elsewhere; in GGUF j and j + 16 in
// a byte, behind it.
constexpr std::size_t kMxfp4Codes = 16, kMxfp4Block = 17;

void to_block(const std::byte* codes, std::byte scale, std::byte* block) {
  std::uint8_t unpacked[32];
  BitStream<4>::unpack(codes, 32, unpacked);
  block[0] = scale;
  SplitHalves<4>::pack(unpacked, 32, block + 1);
}
void from_block(const std::byte* block, std::byte* codes, std::byte* scale) {
  std::uint8_t unpacked[32];
  SplitHalves<4>::unpack(block + 1, 32, unpacked);
  *scale = block[0];
  BitStream<4>::pack(unpacked, 32, codes);
}

// Rows of a plan that is copied, each as it is or with its blocks made anew.
class RowCopy {
 public:
  RowCopy(const Checkpoint& checkpoint, const RowSource& source, const WeightPlan& plan, Format to)
      : checkpoint_(checkpoint),
        source_(source),
        from_(format_info(plan.parts[0]->format)),
        to_(format_info(to)),
        groups_(static_cast<std::size_t>(plan.columns()) / from_.group) {}

  std::size_t code_bytes() const { return groups_ * to_.code_bytes; }
  std::size_t scale_bytes() const { return groups_ * to_.scale_bytes; }

  // `stored` is room that the thread keeps from row to row.
  Status copy(std::int64_t row, std::byte* codes, std::byte* scales, std::vector<std::byte>& stored) const {
    const RowSource::Place at = source_.place(row);
    if (from_.format == to_.format) return read(at.tensor->codes, at.row, {codes, code_bytes()});
    const std::size_t code_row = groups_ * from_.code_bytes, scale_row = groups_ * from_.scale_bytes;
    stored.resize(code_row + scale_row);
    const std::span<std::byte> old_codes = std::span(stored).first(code_row),
                               old_scales = std::span(stored).subspan(code_row);
    NIB_TRY(read(at.tensor->codes, at.row, old_codes));
    if (scale_row > 0) NIB_TRY(read(at.tensor->scales, at.row, old_scales));
    for (std::size_t g = 0; g < groups_; ++g)
      if (to_.format == Format::gguf_mxfp4)
        to_block(old_codes.data() + kMxfp4Codes * g, old_scales[g], codes + kMxfp4Block * g);
      else
        from_block(old_codes.data() + kMxfp4Block * g, codes + kMxfp4Codes * g, scales + g);
    return {};
  }

 private:
  Status read(const Plane& plane, std::int64_t row, std::span<std::byte> out) const {
    return read_plane(checkpoint_, plane, static_cast<std::uint64_t>(row) * out.size(), out);
  }

  const Checkpoint& checkpoint_;
  const RowSource& source_;
  const FormatInfo &from_, &to_;
  const std::size_t groups_;  // in a row
};

}  // namespace

bool has_scale_rule(Format format, ScaleRule rule) { return find_encoder(format, rule, {}).has_value(); }

Result<Encoded> encode_weight(RowSource& source, const WeightPlan& plan, const Encoding& how, Pool& pool,
                              const StreamHooks& hooks) {
  return within_memory(plan.name, [&]() -> Result<Encoded> {
    if (plan.values() == 0) return Encoded{};
    const auto encoder = find_encoder(how.format, how.rule, this_machine().features);
    if (!encoder)
      return Status(Code::unsupported, concat("weights cannot be written as ", format_name(how.format)));
    return Stream(source, plan, how, *encoder, pool, hooks).encode();
  });
}

bool can_copy(const WeightPlan& plan, Format to) {
  const auto fits = [&](const CheckpointTensor* part) {
    const Format from = part->format;
    const FormatInfo& info = format_info(from);
    const bool mxfp4 = (from == Format::mxfp4 && to == Format::gguf_mxfp4) ||
                       (from == Format::gguf_mxfp4 && to == Format::mxfp4);
    const bool alike = from == to && (info.scales == Scales::inside || info.scales == Scales::none);
    return from == plan.parts[0]->format && (mxfp4 || (alike && part->scaling.factors.empty()));
  };
  return plan.turned == Turned::none && !plan.values_as_rows &&
         std::all_of(plan.parts.begin(), plan.parts.end(), fits);
}

Status copy_weight(const Checkpoint& checkpoint, RowSource& source, const WeightPlan& plan, Format to,
                   Pool& pool, const StreamHooks& hooks) {
  return within_memory(plan.name, [&]() -> Status {
    const RowCopy rows(checkpoint, source, plan, to);
    const std::size_t row_bytes = rows.code_bytes(), scale_bytes = rows.scale_bytes();
    const std::int64_t count = plan.rows();
    if (count == 0 || row_bytes == 0) return {};
    const std::int64_t block =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(kBytesAtOnce / row_bytes), 1, count);
    std::vector<std::byte> codes(static_cast<std::size_t>(block) * row_bytes),
        scales(static_cast<std::size_t>(block) * scale_bytes);
    for (std::int64_t first = 0; first < count; first += block) {
      NIB_TRY(hooks.step(first, count));
      const std::int64_t some = std::min(block, count - first);
      const Status read = in_parallel(pool, some, [&](std::int64_t begin, std::int64_t end) -> Status {
        std::vector<std::byte> stored;
        for (std::int64_t row = begin; row < end; ++row) {
          const auto at = static_cast<std::size_t>(row);
          NIB_TRY(rows.copy(first + row, codes.data() + at * row_bytes, scales.data() + at * scale_bytes,
                            stored));
        }
        return {};
      });
      if (!read.ok()) return read;
      const auto put = [&](Part part, const std::vector<std::byte>& bytes, std::size_t each) -> Status {
        if (each == 0) return {};
        return hooks.write(part, static_cast<std::uint64_t>(first) * each,
                           std::span(bytes).first(static_cast<std::size_t>(some) * each));
      };
      NIB_TRY(put(Part::codes, codes, row_bytes));
      NIB_TRY(put(Part::scales, scales, scale_bytes));
    }
    return {};
  });
}

Status copy_plane(const Checkpoint& checkpoint, const Plane& plane, const StreamHooks& hooks, Part part) {
  return within_memory(checkpoint.path, [&]() -> Status {
    std::vector<std::byte> bytes(std::min<std::uint64_t>(plane.bytes, kBytesAtOnce));
    for (std::uint64_t at = 0; at < plane.bytes; at += bytes.size()) {
      NIB_TRY(hooks.step(static_cast<std::int64_t>(at), static_cast<std::int64_t>(plane.bytes)));
      const auto some = std::span(bytes).first(std::min<std::uint64_t>(bytes.size(), plane.bytes - at));
      NIB_TRY(read_plane(checkpoint, plane, at, some));
      NIB_TRY(hooks.write(part, at, some));
    }
    return {};
  });
}

}  // namespace nib::inline v0
