#include "encode_stream.hpp"

#include <nibble/base/bits.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/shared_scale.hpp>

#include <algorithm>
#include <cstring>
#include <vector>

namespace nib::inline v0 {
namespace {

// Values of one thread's share of a block: enough that waking the threads does not count, and 2 MiB as floats.
constexpr std::int64_t kValuesAtOnce = std::int64_t{1} << 19;
constexpr std::size_t kBytesAtOnce = std::size_t{4} << 20;

class Encoder {
 public:
  Encoder(RowSource& source, const WeightPlan& plan, const Encoding& how, Pool& pool,
          const StreamHooks& hooks)
      : source_(source), how_(how), pool_(pool), hooks_(hooks), rows_(plan.rows()), columns_(plan.columns()) {
    block_ = std::max<std::int64_t>(1, kValuesAtOnce * pool.threads() / std::max<std::int64_t>(1, columns_));
    block_ = std::min(block_, std::max<std::int64_t>(1, rows_));
    values_.resize(static_cast<std::size_t>(block_ * columns_));
    back_.resize(values_.size());
    of_row_.resize(static_cast<std::size_t>(block_));
  }

  Result<Encoded> encode() {
    NIB_TRY(choose());
    return out_;
  }

 private:
  // --- from the name of the format to its type

  Status choose() {
    switch (how_.format) {
      case Format::f32:
        return blocks<PlainF32>();
      case Format::f16:
        return blocks<PlainF16>();
      case Format::bf16:
        return blocks<PlainBf16>();
      case Format::mxfp4:
        return by_rule<Mxfp4With>();
      case Format::gguf_mxfp4:
        return by_rule<GgufMxfp4With>();
      case Format::nvfp4:
        if (how_.rule == ScaleRule::round_up) return blocks<Nvfp4With<RoundUpScale>>();
        if (how_.rule == ScaleRule::least_error) return blocks<Nvfp4With<LeastErrorScale>>();
        return blocks<Nvfp4>();
      case Format::q4_0:
        return blocks<Q4_0>();
      case Format::q4_1:
        return blocks<Q4_1>();
      case Format::q5_0:
        return blocks<Q5_0>();
      case Format::q5_1:
        return blocks<Q5_1>();
      case Format::q8_0:
        return blocks<Q8_0>();
      case Format::fp8_e4m3:
        return shared<Fp8E4M3>();
      case Format::int8:
        return shared<Int8>();
      case Format::llm_int8:
        return shared<LlmInt8>();
      case Format::nf4:
        return shared<Nf4>();
      case Format::bnb_fp4:
        return shared<BnbFp4>();
      default:
        return {Code::unsupported, concat("weights cannot be written as ", format_name(how_.format))};
    }
  }
  template <template <class> class With>
  Status by_rule() {
    if (how_.rule == ScaleRule::round_up) return blocks<With<RoundUpScale>>();
    if (how_.rule == ScaleRule::least_error) return blocks<With<LeastErrorScale>>();
    return blocks<With<FloorScale>>();
  }

  // --- what both kinds of formats do

  auto parallel() {
    return [this](std::int64_t count, auto&& body) {
      pool_.run([&](int index, int threads) {
        const Range range = split(count, index, threads);
        for (std::int64_t i = range.begin; i < range.end; ++i) body(i);
      });
    };
  }
  auto reader() {
    return [this](std::int64_t row, std::int64_t count, float* values) -> Status {
      NIB_TRY(hooks_.step(done_, rows_));
      return source_.read(row, count, values);
    };
  }
  // decode(row, out) gives a row of the block at hand as a reader will have it.
  template <class Decode>
  void add_noise(std::int64_t count, Decode&& decode) {
    parallel()(count, [&](std::int64_t row) {
      const float* values = values_.data() + row * columns_;
      float* back = back_.data() + row * columns_;
      decode(row, back);
      constexpr int kChains = 4;  // of additions that do not wait for one another
      double signal[kChains] = {}, noise[kChains] = {};
      const auto add = [&](std::int64_t c, int chain) {
        const double value = values[c], error = static_cast<double>(back[c]) - value;
        signal[chain] += value * value;
        noise[chain] += error * error;
      };
      std::int64_t c = 0;
      for (; c + kChains <= columns_; c += kChains)
        for (int chain = 0; chain < kChains; ++chain) add(c + chain, chain);
      for (; c < columns_; ++c) add(c, 0);
      of_row_[static_cast<std::size_t>(row)] = {(signal[0] + signal[1]) + (signal[2] + signal[3]),
                                                (noise[0] + noise[1]) + (noise[2] + noise[3])};
    });
    for (std::int64_t row = 0; row < count; ++row) {
      out_.noise.signal += of_row_[static_cast<std::size_t>(row)].signal;
      out_.noise.noise += of_row_[static_cast<std::size_t>(row)].noise;
    }
  }

  // --- formats whose groups stand alone

  template <BlockFormat F>
  Status blocks() {
    const std::int64_t groups = columns_ / F::group;
    Quantizing<> whole;
    if constexpr (format_info(F::id).tensor_scale) NIB_TRY(choose_tensor_scale(whole));
    std::vector<std::byte> codes(static_cast<std::size_t>(block_ * groups) * F::code_bytes);
    std::vector<std::byte> scales(static_cast<std::size_t>(block_ * groups) * F::scale_bytes);
    const StreamBuffers buffers{block_, values_.data(), codes.data(),
                                F::scale_bytes ? scales.data() : nullptr};
    std::uint64_t code_offset = 0, scale_offset = 0;
    const auto write = [&](std::int64_t, std::int64_t count, const std::byte* block,
                           const std::byte* of) -> Status {
      add_noise(count, [&](std::int64_t row, float* back) {
        for (std::int64_t g = 0; g < groups; ++g) {
          const auto group = static_cast<std::size_t>(row * groups + g);
          F::decode_group(block + group * F::code_bytes, of + group * F::scale_bytes, back + g * F::group);
        }
        if (whole.tensor_scale != 1)
          for (std::int64_t c = 0; c < columns_; ++c) back[c] *= whole.tensor_scale;
      });
      NIB_TRY(
          put(Part::codes, code_offset, {block, static_cast<std::size_t>(count * groups) * F::code_bytes}));
      if (F::scale_bytes)
        NIB_TRY(
            put(Part::scales, scale_offset, {of, static_cast<std::size_t>(count * groups) * F::scale_bytes}));
      done_ += count;
      return {};
    };
    NIB_TRY(quantize_stream<F>(rows_, columns_, buffers, reader(), write, whole, parallel()));
    if constexpr (format_info(F::id).tensor_scale) NIB_TRY(put_tensor_scale(whole.tensor_scale));
    return {};
  }

  Status put(Part part, std::uint64_t& offset, std::span<const std::byte> bytes) {
    NIB_TRY(hooks_.write(part, offset, bytes));
    offset += bytes.size();
    return {};
  }

  Status choose_tensor_scale(Quantizing<>& whole) {
    std::vector<float> largest(static_cast<std::size_t>(block_) + 1);
    for (std::int64_t row = 0; row < rows_; row += block_) {
      const std::int64_t some = std::min(block_, rows_ - row);
      NIB_TRY(reader()(row, some, values_.data()));
      parallel()(some, [&](std::int64_t i) {
        largest[static_cast<std::size_t>(i) + 1] = largest_magnitude(values_.data() + i * columns_, columns_);
      });
      largest[0] = largest_magnitude(largest.data(), some + 1);
    }
    // The file has its reciprocal, in f32; so that is what the values have to be divided by.
    const float stored = 1.0f / nvfp4_tensor_scale(largest[0]);
    whole.tensor_scale = 1.0f / stored;
    stored_scale_ = stored;
    return {};
  }
  Status put_tensor_scale(float) {
    std::byte bytes[4];
    store_little_endian(std::bit_cast<std::uint32_t>(stored_scale_), bytes);
    return hooks_.write(Part::tensor_scale, 0, bytes);
  }

  // --- formats whose scales the tensor shares

  template <SharedScaleFormat F>
  Status shared() {
    const std::int64_t count = how_.sharing.count(rows_, columns_);
    std::vector<float> scales(static_cast<std::size_t>(count)), stored;
    std::vector<std::byte> codes(static_cast<std::size_t>(block_ * columns_ / F::group));
    std::vector<std::byte> nested_codes;
    std::vector<float> absmax;
    const StreamBuffers buffers{block_, values_.data(), codes.data(), nullptr};
    std::uint64_t code_offset = 0;
    bool begun = false;
    const auto write = [&](std::int64_t first, std::int64_t some, const std::byte* block) -> Status {
      if (!begun) {
        begun = true;
        stored = scales;  // what a reader will multiply by
        if (how_.nested) nest(scales, stored, nested_codes, absmax);
      }
      add_noise(some, [&](std::int64_t row, float* back) {
        for (std::int64_t c = 0; c < columns_;) {
          const auto at = static_cast<std::size_t>(how_.sharing.index(first + row, c, columns_));
          const std::int64_t end = how_.sharing.end_of_scale(first + row, c, columns_);
          std::byte scale[4];
          store_little_endian(std::bit_cast<std::uint32_t>(stored[at]), scale);
          for (; c < end; c += F::group)
            F::decode_group(block + (row * columns_ + c) / F::group, scale, back + c);
        }
      });
      NIB_TRY(put(Part::codes, code_offset, {block, static_cast<std::size_t>(some * columns_ / F::group)}));
      done_ += some;
      return {};
    };
    NIB_TRY(quantize_shared_stream<F>(rows_, columns_, how_.sharing, scales.data(), buffers, reader(), write,
                                      {}, parallel()));
    if (!how_.nested) return hooks_.write(Part::scales, 0, std::as_bytes(std::span(scales)));
    NIB_TRY(hooks_.write(Part::scales, 0, nested_codes));
    return hooks_.write(Part::nested_scales, 0, std::as_bytes(std::span(absmax)));
  }

  void nest(const std::vector<float>& scales, std::vector<float>& stored, std::vector<std::byte>& codes,
            std::vector<float>& absmax) {
    const auto count = static_cast<std::int64_t>(scales.size());
    out_.nested_offset = scale_offset(scales.data(), count);
    codes.resize(scales.size());
    absmax.resize(ceil_div<std::size_t>(scales.size(), 256));
    nest_scales(scales.data(), count, out_.nested_offset, codes.data(), absmax.data());
    const NestedScales read{codes.data(), kDynamicMap.level, absmax.data(), out_.nested_offset};
    for (std::int64_t i = 0; i < count; ++i) stored[static_cast<std::size_t>(i)] = read[i];
  }

  RowSource& source_;
  const Encoding& how_;
  Pool& pool_;
  const StreamHooks& hooks_;
  std::int64_t rows_, columns_, block_, done_ = 0;
  std::vector<float> values_, back_;  // the block at hand, and what a reader will make of it
  std::vector<Noise> of_row_;
  float stored_scale_ = 1;
  Encoded out_;
};

// 32 codes, neighbours in a byte, to codes j and j + 16 in a byte, behind their scale.
void interleave(const std::byte* codes, std::byte scale, std::byte* block) {
  std::uint8_t unpacked[32];
  BitStream<4>::unpack(codes, 32, unpacked);
  block[0] = scale;
  SplitHalves<4>::pack(unpacked, 32, block + 1);
}

}  // namespace

bool has_scale_rule(Format format, ScaleRule rule) {
  switch (format) {
    case Format::mxfp4:
    case Format::gguf_mxfp4:
      return true;
    case Format::nvfp4:
      return rule != ScaleRule::floor;
    default:
      return rule == ScaleRule::usual;
  }
}

Result<Encoded> encode_weight(RowSource& source, const WeightPlan& plan, const Encoding& how, Pool& pool,
                              const StreamHooks& hooks) {
  return within_memory(plan.name, [&]() -> Result<Encoded> {
    if (plan.values() == 0) return Encoded{};
    return Encoder(source, plan, how, pool, hooks).encode();
  });
}

Status copy_weight(const Checkpoint& checkpoint, RowSource& source, const WeightPlan& plan, Format to,
                   Pool& pool, const StreamHooks& hooks) {
  return within_memory(plan.name, [&]() -> Status {
    const FormatInfo &from_info = format_info(plan.parts[0]->format), &to_info = format_info(to);
    const bool repack = from_info.format == Format::mxfp4 && to == Format::gguf_mxfp4;
    const std::int64_t rows = plan.rows(), groups = plan.columns() / from_info.group;
    const auto row_bytes = static_cast<std::int64_t>(to_info.code_bytes) * groups;
    if (rows == 0 || row_bytes == 0) return {};
    const std::int64_t block =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(kBytesAtOnce) / row_bytes, 1, rows);
    std::vector<std::byte> out(static_cast<std::size_t>(block * row_bytes));
    for (std::int64_t first = 0; first < rows; first += block) {
      NIB_TRY(hooks.step(first, rows));
      const std::int64_t some = std::min(block, rows - first);
      const Status read = in_parallel(pool, some, [&](std::int64_t begin, std::int64_t end) -> Status {
        std::vector<std::byte> codes(static_cast<std::size_t>(from_info.code_bytes * groups));
        std::vector<std::byte> scales(static_cast<std::size_t>(from_info.scale_bytes * groups));
        for (std::int64_t row = begin; row < end; ++row) {
          const RowSource::Place at = source.place(first + row);
          std::byte* to_row = out.data() + row * row_bytes;
          NIB_TRY(read_plane(checkpoint, at.tensor->codes, static_cast<std::uint64_t>(at.row) * codes.size(),
                             repack ? std::span(codes) : std::span(to_row, codes.size())));
          if (!repack) continue;
          NIB_TRY(read_plane(checkpoint, at.tensor->scales,
                             static_cast<std::uint64_t>(at.row) * scales.size(), scales));
          for (std::int64_t g = 0; g < groups; ++g)
            interleave(codes.data() + 16 * g, scales[static_cast<std::size_t>(g)], to_row + 17 * g);
        }
        return {};
      });
      if (!read.ok()) return read;
      NIB_TRY(hooks.write(Part::codes, static_cast<std::uint64_t>(first * row_bytes),
                          std::span(out).first(static_cast<std::size_t>(some * row_bytes))));
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
