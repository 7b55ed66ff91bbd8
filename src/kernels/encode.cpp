// The definitions of formats/ as encoders, and the choice among tables.
#include <nibble/base/float_scope.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/kernels/encode.hpp>

#include <bit>

namespace nib::inline v0 {

#if defined(__x86_64__)
extern const EncoderTable kAvx2Encoders;
#endif

namespace {

struct Sums {
  double signal[8] = {}, noise[8] = {};
  void add(std::int64_t i, float value, float back) {
    const double exact = value, error = back - value;
    signal[i % 8] += exact * exact;
    noise[i % 8] += error * error;
  }
  static double total(const double (&s)[8]) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
  Noise total() const { return {total(signal), total(noise)}; }
};

template <BlockFormat F, bool WithNoise>
Noise encode_blocks(const EncodeCall& call) {
  quantize_rows<F>(call.values, 1, call.count, call.codes, call.scales, {{}, call.tensor_scale});
  Sums sums;
  for (std::int64_t group = 0; WithNoise && group < call.count / F::group; ++group) {
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

template <SharedScaleFormat F, bool WithNoise>
Noise encode_runs(const EncodeCall& call) {
  quantize_shared_rows<F>(call.values, 1, call.count, ScaleSharing::per_run(call.run), call.run_scales,
                          call.codes);
  Sums sums;
  for (std::int64_t i = 0; WithNoise && i < call.count; i += F::group) {
    float back[F::group];
    std::byte scale[4];
    store_little_endian(std::bit_cast<std::uint32_t>(call.read_scales[i / call.run]), scale);
    F::decode_group(call.codes + i / F::group, scale, back);
    for (int j = 0; j < F::group; ++j) sums.add(i % call.run + j, call.values[i + j], back[j]);
  }
  return sums.total();
}

void measure_runs(const float* values, std::int64_t count, std::int64_t run, float* largest) {
  measure_rows(values, 1, count, ScaleSharing::per_run(run), 0, largest);
}

template <BlockFormat F>
constexpr EncoderTable::Row row(ScaleRule rule = ScaleRule::usual) {
  return {F::id, rule, encode_blocks<F, true>, encode_blocks<F, false>};
}
template <SharedScaleFormat F>
constexpr EncoderTable::Row row() {
  return {F::id, ScaleRule::usual, encode_runs<F, true>, encode_runs<F, false>};
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

constexpr EncoderTable kDefinitions = {"definition", [](const CpuFeatures&) { return true; }, kRows,
                                       measure_runs};

constexpr const EncoderTable* kTables[] = {
#if defined(__x86_64__)
    &kAvx2Encoders,
#endif
    &kDefinitions};

using ScaleOf = float (*)(float);
template <SharedScaleFormat... F>
constexpr ScaleOf scale_of(Format format) {
  ScaleOf found = nullptr;
  ((F::id == format ? (found = F::scale_of, 0) : 0), ...);
  return found;
}

}  // namespace

Noise Encoder::encode(const EncodeCall& call) const {
  const FloatScope scope(Subnormals::kept);
  return with_noise_(call);
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
        found.scale_of_ = scale_of<Fp8E4M3, Int8, LlmInt8, Nf4, BnbFp4>(format);
        return found;
      }
  return std::nullopt;
}

}  // namespace nib::inline v0
