// The definitions of formats/ as encoders, and the choice among tables.
#include <nibble/base/bits.hpp>
#include <nibble/base/float16.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/kernels/encode.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace nib::inline v0 {

#if defined(__x86_64__)
extern const EncoderTable kAvx2Encoders;
extern const EncoderTable kAvx512Encoders;
#endif

namespace {

// Of squares in Square, of eight chunks of 32 before they go to the sixteen sums.
template <class Square>
class Sums {
 public:
  // Value i of a run.
  void add(std::int64_t i, float value, float back) {
    if (i % 32 == 0 && chunks_++ % 8 == 0) flush();
    if constexpr (std::is_same_v<Square, float>) {
      const float step = back - value;
      signal_[i % 16] = std::fma(value, value, signal_[i % 16]);
      noise_[i % 16] = std::fma(step, step, noise_[i % 16]);
    } else {
      const Square v = value, step = back - v;
      signal_[i % 16] += v * v;
      noise_[i % 16] += step * step;
    }
  }
  Noise total() {
    flush();
    return {total(all_signal_), total(all_noise_)};
  }

 private:
  void flush() {
    for (int i = 0; i < 16; ++i) {
      all_signal_[i] += static_cast<double>(signal_[i]);
      all_noise_[i] += static_cast<double>(noise_[i]);
      signal_[i] = noise_[i] = 0;
    }
  }
  static double total(const double (&s)[16]) {
    double t[8];
    for (int i = 0; i < 8; ++i) t[i] = s[i] + s[i + 8];
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
  }
  std::uint32_t chunks_ = 0;
  Square signal_[16] = {}, noise_[16] = {};
  double all_signal_[16] = {}, all_noise_[16] = {};
};

// The noise of codes that have been written.
template <BlockFormat F, class Square>
Noise noise_of_blocks(const EncodeCall& call) {
  Sums<Square> sums;
  for (std::int64_t group = 0; group < call.count / F::group; ++group) {
    float back[F::group];
    F::decode_group(call.codes + group * static_cast<std::int64_t>(F::code_bytes),
                    call.scales + group * static_cast<std::int64_t>(F::scale_bytes), back);
    for (int j = 0; j < F::group; ++j) {
      const std::int64_t i = group * F::group + j;
      sums.add(i, call.values[i], back[j] * call.tensor_scale);
    }
  }
  return sums.total();
}

template <SharedScaleFormat F, class Square>
Noise noise_of_runs(const EncodeCall& call) {
  Sums<Square> sums;
  for (std::int64_t i = 0; i < call.count; i += F::group) {
    float back[F::group];
    std::byte scale[4];
    store_little_endian(std::bit_cast<std::uint32_t>(call.read_scales[i / call.run]), scale);
    F::decode_group(call.codes + i / F::group, scale, back);
    for (int j = 0; j < F::group; ++j) sums.add(i % call.run + j, call.values[i + j], back[j]);
  }
  return sums.total();
}

template <BlockFormat F>
Noise write_blocks(const EncodeCall& call) {
  quantize_rows<F>(call.values, 1, call.count, call.codes, call.scales, {{}, call.tensor_scale});
  return {};
}
template <SharedScaleFormat F>
Noise write_runs(const EncodeCall& call) {
  quantize_shared_rows<F>(call.values, 1, call.count, ScaleSharing::per_run(call.run), call.run_scales,
                          call.codes);
  return {};
}

void measure_runs(const float* values, std::int64_t count, std::int64_t run, float* largest) {
  measure_rows(values, 1, count, ScaleSharing::per_run(run), 0, largest);
}

template <BlockFormat F>
constexpr EncoderTable::Row row(ScaleRule rule = ScaleRule::usual) {
  return {F::id, rule,
          [](const EncodeCall& call) {
            write_blocks<F>(call);
            return noise_of_blocks<F, float>(call);
          },
          write_blocks<F>};
}
template <SharedScaleFormat F>
constexpr EncoderTable::Row row() {
  return {F::id, ScaleRule::usual,
          [](const EncodeCall& call) {
            write_runs<F>(call);
            return noise_of_runs<F, float>(call);
          },
          write_runs<F>};
}

constexpr EncoderTable::Row kRows[] = {
    row<PlainF32>(),
    row<PlainF16>(),
    row<PlainBf16>(),
    row<Mxfp4>(),
    row<Mxfp4>(ScaleRule::floor),
    row<Mxfp4With<RoundUpScale>>(ScaleRule::round_up),
    row<Mxfp4With<LeastErrorScale>>(ScaleRule::least_error),
    row<GgufMxfp4>(),
    row<GgufMxfp4>(ScaleRule::floor),
    row<GgufMxfp4With<RoundUpScale>>(ScaleRule::round_up),
    row<GgufMxfp4With<LeastErrorScale>>(ScaleRule::least_error),
    row<Nvfp4>(),
    row<Nvfp4With<RoundUpScale>>(ScaleRule::round_up),
    row<Nvfp4With<LeastErrorScale>>(ScaleRule::least_error),
    row<Fp8E4M3>(),
    row<Int8>(),
    row<LlmInt8>(),
    row<Nf4>(),
    row<BnbFp4>(),
    row<Q4_0>(),
    row<Q4_1>(),
    row<Q5_0>(),
    row<Q5_1>(),
    row<Q8_0>(),
};

template <class Number>
void widen(const std::byte* words, std::int64_t count, float* values) {
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = to_float(Number{load_little_endian<std::uint16_t>(words + 2 * i)});
}

constexpr EncoderTable kDefinitions = {
    "definition", [](const CpuFeatures&) { return true; }, kRows, measure_runs, {widen<bf16>, widen<f16>}};

constexpr const EncoderTable* kTables[] = {
#if defined(__x86_64__)
    &kAvx512Encoders, &kAvx2Encoders,
#endif
    &kDefinitions};

// What does not depend on the table.
template <StoredFormat... F>
void complete(Format format, EncodeFunction& noise_in_double, float (*&scale_of)(float)) {
  const auto take = [&]<class T>(T) {
    if (T::id != format) return;
    if constexpr (SharedScaleFormat<T>) {
      noise_in_double = noise_of_runs<T, double>;
      scale_of = T::scale_of;
    } else {
      noise_in_double = noise_of_blocks<T, double>;
    }
  };
  (take(F{}), ...);
}

// Whether squares in f32 lost more than they may: to infinity, or (2^-150 each) beside the signal.
bool lost_squares(const Noise& noise, std::int64_t count) {
  constexpr double kMost = std::numeric_limits<double>::max();
  return !(noise.signal >= static_cast<double>(count) * 0x1p-100 && noise.signal <= kMost &&
           noise.noise <= kMost);
}

}  // namespace

Noise Encoder::encode(const EncodeCall& call) const {
  const FloatScope scope(Subnormals::kept);
  const Noise noise = with_noise_(call);
  return lost_squares(noise, call.count) ? noise_in_double_(call) : noise;
}

void Encoder::encode_bytes(const EncodeCall& call) const {
  const FloatScope scope(Subnormals::kept);
  without_(call);
}

void Encoder::measure(const float* values, std::int64_t count, std::int64_t run, float* largest) const {
  measure_(values, count, run, largest);
}

std::optional<Encoder> find_encoder(Format format, ScaleRule rule, const CpuFeatures& features) {
  for (const EncoderTable* table : kTables)
    for (const EncoderTable::Row& row : table->rows)
      if (row.format == format && row.rule == rule && table->present(features)) {
        Encoder found;
        found.with_noise_ = row.with_noise;
        found.without_ = row.without;
        found.measure_ = table->measure;
        complete<PlainF32, PlainF16, PlainBf16, Mxfp4, GgufMxfp4, Nvfp4, Fp8E4M3, Int8, LlmInt8, Nf4, BnbFp4,
                 Q4_0, Q4_1, Q5_0, Q5_1, Q8_0>(format, found.noise_in_double_, found.scale_of_);
        return found;
      }
  return std::nullopt;
}

Wideners find_wideners(const CpuFeatures& features) {
  for (const EncoderTable* table : kTables)
    if (table->present(features)) return table->widen;
  return kDefinitions.widen;
}

}  // namespace nib::inline v0
