// What each format costs and keeps: bits a weight, and signal to quantization noise on weights of three
// kinds.
//
//   bench_formats [CHECKPOINT]                         prints the table; CHECKPOINT: safetensors with f32 or
//   bf16 weights bench_formats CHECKPOINT --write docs/FORMATS.md   puts it into the page
//
// Signal to noise: 10 log10(sum w^2 / sum (w - decoded)^2), in dB. The figure in the column `computed` is the
// expected one of normal weights, by integration over the largest magnitude of a group and the values below
// it: it exists where the scale depends on the largest magnitude alone. The bound of every code at a rate
// is 6.02 dB a bit.
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace nib;

constexpr std::int64_t kK = 256;  // every group size divides it

struct Weights {
  const char* name;
  std::vector<float> values;  // rows of kK
};

std::vector<float> drawn(std::size_t count, auto distribution) {
  std::mt19937 random(20240607);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(distribution(random));
  return values;
}

// All matrices of the checkpoint, one after another; a tail shorter than a row is left out.
Result<std::vector<float>> weights_of(const std::string& path) {
  NIB_ASSIGN(const Checkpoint checkpoint, open_checkpoint(path));
  std::vector<float> values;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    const std::uint32_t bytes = format_info(tensor.format).code_bytes;
    const bool plain =
        tensor.format == Format::f32 || tensor.format == Format::bf16 || tensor.format == Format::f16;
    if (tensor.shape.size() != 2 || !plain) continue;
    std::vector<std::byte> stored(tensor.codes.bytes);
    NIB_TRY(read_plane(checkpoint, tensor.codes, 0, stored));
    const auto k = static_cast<std::int64_t>(stored.size() / bytes);
    const std::size_t at = values.size();
    values.resize(at + static_cast<std::size_t>(k));
    decode_row(EncodedMatrix{tensor.format, 1, k, stored.data(), nullptr}, 0, values.data() + at);
  }
  values.resize(values.size() / kK * kK);
  return values;
}

double decibels(double signal, double noise) { return 10 * std::log10(signal / noise); }

double noise_ratio(const std::vector<float>& values, const std::vector<float>& back) {
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = values[i], error = static_cast<double>(back[i]) - value;
    signal += value * value;
    noise += error * error;
  }
  return decibels(signal, noise);
}

template <BlockFormat F>
double measure(const std::vector<float>& values, bool with_tensor_scale) {
  const auto rows = static_cast<std::int64_t>(values.size()) / kK;
  std::vector<std::byte> codes(values.size() / F::group * F::code_bytes),
      scales(values.size() / F::group * F::scale_bytes + 1);
  Quantizing<> how;
  if (with_tensor_scale) {
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    how.tensor_scale = nvfp4_tensor_scale(largest);
  }
  quantize_rows<F>(values.data(), rows, kK, codes.data(), scales.data(), how);
  std::vector<float> back(values.size());
  for (std::size_t i = 0; i * F::group < values.size(); ++i)
    F::decode_group(codes.data() + i * F::code_bytes, scales.data() + i * F::scale_bytes,
                    back.data() + i * F::group);
  if (with_tensor_scale)
    for (float& value : back) value *= how.tensor_scale;
  return noise_ratio(values, back);
}

template <SharedScaleFormat F>
double measure_shared(const std::vector<float>& values, const ScaleSharing& sharing, bool nested) {
  const auto rows = static_cast<std::int64_t>(values.size()) / kK;
  std::vector<std::byte> codes(values.size() / F::group);
  std::vector<float> scales(static_cast<std::size_t>(sharing.count(rows, kK)));
  quantize_shared<F>(values.data(), rows, kK, sharing, codes.data(), scales.data());
  if (nested) {
    const auto count = static_cast<std::int64_t>(scales.size());
    const float offset = scale_offset(scales.data(), count);
    std::vector<std::byte> nested_codes(scales.size());
    std::vector<float> absmax((scales.size() + 255) / 256);
    nest_scales(scales.data(), count, offset, nested_codes.data(), absmax.data());
    const NestedScales read{nested_codes.data(), kDynamicMap.level, absmax.data(), offset};
    for (std::int64_t i = 0; i < count; ++i) scales[static_cast<std::size_t>(i)] = read[i];
  }
  std::vector<float> back(values.size());
  const EncodedMatrix w{F::id,  rows, kK, codes.data(), reinterpret_cast<const std::byte*>(scales.data()),
                        sharing};
  for (std::int64_t row = 0; row < rows; ++row) decode_row(w, row, back.data() + row * kK);
  return noise_ratio(values, back);
}

// The expected ratio of normal weights in groups of n: over the density of the largest magnitude a,
// n * 2 phi(a) * (2 Phi(a) - 1)^(n - 1), the error of a itself and of n - 1 values between -a and a.
// error(a, x, count) is the sum of squared errors of `count` values x beside a.
template <class Error>
double expected(int n, Error&& error) {
  const auto phi = [](double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); };
  const auto inside = [](double a) { return std::erf(a / std::sqrt(2.0)); };
  constexpr int kLargest = 600, kBelow = 31 * 16;
  double noise = 0, total = 0;
  for (int i = 0; i < kLargest; ++i) {
    const double a = (i + 0.5) * 6.5 / kLargest;
    const double density = n * 2 * phi(a) * std::pow(inside(a), n - 1);
    if (density < 1e-12) continue;
    double sum = 0, weight = 0;
    float at_a = static_cast<float>(a);
    for (int j = 0; j < kBelow; ++j) {
      const float x = static_cast<float>(a * (2 * (j + 0.5) / kBelow - 1));
      sum += phi(static_cast<double>(x)) * error(at_a, x);
      weight += phi(static_cast<double>(x));
    }
    noise += density * (error(at_a, at_a) + (n - 1) * sum / weight) / n;
    total += density;
  }
  return decibels(1, noise / total);
}

// Squared error of x in a group of F whose largest magnitude is a.
template <BlockFormat F>
double error_beside(float a, float x) {
  float values[F::group] = {a, x}, back[F::group];
  std::byte codes[F::code_bytes], scale[8];
  F::encode_group(values, codes, scale);
  F::decode_group(codes, scale, back);
  const double error = static_cast<double>(back[1]) - static_cast<double>(x);
  return error * error;
}
template <SharedScaleFormat F>
double error_beside_shared(float a, float x) {
  float values[2] = {x, x}, back[2];
  std::byte codes[1], scale[4];
  const float of = F::scale_of(a);
  store_little_endian(std::bit_cast<std::uint32_t>(of), scale);
  F::encode_codes(values, of, codes);
  F::decode_group(codes, scale, back);
  const double error = static_cast<double>(back[0]) - static_cast<double>(x);
  return error * error;
}

class Table {
 public:
  explicit Table(const std::vector<Weights>& kinds) : kinds_(kinds) {
    text_ = "\n| format | scale | bits a weight | 6.02 dB a bit | normal, computed |";
    for (const Weights& kind : kinds_) text_ += std::string(" ") + kind.name + " |";
    text_ += "\n|---|---|---|---|---|";
    for (std::size_t i = 0; i < kinds_.size(); ++i) text_ += "---|";
    text_ += "\n";
  }

  template <BlockFormat F>
  void add(const char* name, const char* rule, bool computed = true, bool with_tensor_scale = false) {
    const double bits = 8.0 * static_cast<double>(F::code_bytes + F::scale_bytes) / F::group;
    double figure = 0;
    if constexpr (F::group > 1)
      if (computed) figure = expected(F::group, error_beside<F>);
    begin(name, rule, bits, figure);
    for (const Weights& kind : kinds_) cell(measure<F>(kind.values, with_tensor_scale));
    text_ += "\n";
  }
  template <SharedScaleFormat F>
  void add_shared(const char* name, const char* sharing_name, const ScaleSharing& sharing,
                  double values_a_scale, bool nested = false) {
    const double scale_bits = values_a_scale == 0 ? 0
                              : nested            ? 8 / values_a_scale + 32 / (values_a_scale * 256)
                                                  : 32 / values_a_scale;
    const bool computed = values_a_scale > 0 && values_a_scale <= 4096 && !nested;
    begin(name, sharing_name, F::bits + scale_bits,
          computed ? expected(static_cast<int>(values_a_scale), error_beside_shared<F>) : 0);
    for (const Weights& kind : kinds_) cell(measure_shared<F>(kind.values, sharing, nested));
    text_ += "\n";
  }
  const std::string& text() const { return text_; }

 private:
  void begin(const char* name, const char* rule, double bits, double computed) {
    char line[160];
    std::snprintf(line, sizeof line, "| %s | %s | %.6g | %.1f |", name, rule, bits,
                  bits * 20 * std::log10(2.0));
    text_ += line;
    if (computed != 0)
      cell(computed);
    else
      text_ += " – |";
  }
  void cell(double value) {
    char number[32];
    std::snprintf(number, sizeof number, " %.1f |", value);
    text_ += std::isinf(value) ? " exact |" : number;
  }
  const std::vector<Weights>& kinds_;
  std::string text_;
};

template <class Element, class Rule, class Scale = E8M0, int Group = 32>
using As = Block<Format::none, Element, Scale, Group, Rule>;

std::string make_table(const std::vector<Weights>& kinds) {
  Table t(kinds);
  t.add<Mxfp4With<FloorScale>>("mxfp4", "floor");
  t.add<Mxfp4With<RoundUpScale>>("mxfp4", "round-up");
  t.add<Mxfp4With<LeastErrorScale>>("mxfp4", "least-error", false);
  t.add<Nvfp4With<AbsmaxScale>>("nvfp4", "absmax", false, true);
  t.add<Nvfp4With<RoundUpScale>>("nvfp4", "round-up", false, true);
  t.add<Nvfp4With<LeastErrorScale>>("nvfp4", "least-error", false, true);
  t.add_shared<Nf4>("nf4", "block 64", ScaleSharing::per_run(64), 64);
  t.add_shared<Nf4>("nf4", "block 64, double", ScaleSharing::per_run(64), 64, true);
  t.add_shared<Nf4>("nf4", "block 128", ScaleSharing::per_run(128), 128);
  t.add_shared<Nf4>("nf4", "block 4096", ScaleSharing::per_run(4096), 4096);
  t.add_shared<BnbFp4>("bnb_fp4", "block 64", ScaleSharing::per_run(64), 64);
  t.add<Q4_0>("q4_0", Q4_0::rule, false);
  t.add<Q4_1>("q4_1", Q4_1::rule, false);
  t.add<As<SymmetricInt<4>, AbsmaxScale, F16Scale, 32>>("int4, group 32", "absmax, f16");
  t.add<As<SymmetricInt<4>, AbsmaxScale, F16Scale, 128>>("int4, group 128", "absmax, f16");
  t.add<As<E2M1, AbsmaxScale, F32Scale, 32>>("e2m1, group 32", "absmax, f32");
  t.add<As<E1M2, FloorScale>>("e1m2, group 32", "floor");
  t.add<As<E3M0, FloorScale>>("e3m0, group 32", "floor");
  t.add<As<E3M0, RoundUpScale>>("e3m0, group 32", "round-up");
  t.add<As<Radix4Fp4, FloorScale>>("radix 4, group 32", "floor");
  t.add<As<Radix4Fp4, AbsmaxScale, F32Scale, 32>>("radix 4, group 32", "absmax, f32");
  t.add<Q5_0>("q5_0", Q5_0::rule, false);
  t.add<Q5_1>("q5_1", Q5_1::rule, false);
  t.add<Mxfp6E2M3With<FloorScale>>("mxfp6_e2m3", "floor");
  t.add<Mxfp6E2M3With<LeastErrorScale>>("mxfp6_e2m3", "least-error", false);
  t.add<Mxfp6E3M2With<FloorScale>>("mxfp6_e3m2", "floor");
  t.add<Mxfp8E4M3With<FloorScale>>("mxfp8_e4m3", "floor");
  t.add<Mxfp8E5M2With<FloorScale>>("mxfp8_e5m2", "floor");
  t.add<Mxint8With<FloorScale>>("mxint8", "floor");
  t.add<Mxint8With<RoundUpScale>>("mxint8", "round-up");
  t.add_shared<Fp8E4M3>("fp8_e4m3", "tensor", ScaleSharing::per_tensor(), 0);
  t.add_shared<Fp8E4M3>("fp8_e4m3", "128 x 128", ScaleSharing::per_tile(128, 128), 128 * 128);
  t.add_shared<Fp8E5M2>("fp8_e5m2", "tensor", ScaleSharing::per_tensor(), 0);
  t.add_shared<Int8>("int8", "tensor", ScaleSharing::per_tensor(), 0);
  t.add_shared<Int8>("int8", "row of 256", ScaleSharing::per_row(), 256);
  t.add_shared<Int8>("int8", "group 64", ScaleSharing::per_group(64), 64);
  t.add<Q8_0>("q8_0", Q8_0::rule);
  t.add<PlainBf16>("bf16", "–", false);
  t.add<PlainF16>("f16", "–", false);
  return t.text();
}

int write_into(const std::string& page, const std::string& table) {
  const std::string begin = "<!-- generated by bench_formats -->\n",
                    end = "<!-- /generated by bench_formats -->";
  std::string text;
  {
    std::ifstream in(page, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  const std::size_t from = text.find(begin), to = text.find(end);
  if (from == text.npos || to == text.npos) {
    std::fprintf(stderr, "%s: has no part for this table\n", page.c_str());
    return 1;
  }
  std::ofstream(page, std::ios::binary) << text.substr(0, from + begin.size()) << table << "\n"
                                        << text.substr(to);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<Weights> kinds;
  kinds.push_back({"normal", drawn(1 << 20, std::normal_distribution<double>())});
  kinds.push_back({"Student-t, 5", drawn(1 << 20, std::student_t_distribution<double>(5))});
  std::string page;
  for (int i = 1; i < count; ++i) {
    if (!std::strcmp(arguments[i], "--write") && i + 1 < count) {
      page = arguments[++i];
      continue;
    }
    auto values = weights_of(arguments[i]);
    if (!values.ok()) {
      std::fprintf(stderr, "%s\n", values.status().message().c_str());
      return 1;
    }
    if (!values->empty()) kinds.push_back({"weights of the checkpoint", values.take()});
  }
  const std::string table = make_table(kinds);
  if (!page.empty()) return write_into(page, table);
  std::fputs(table.c_str(), stdout);
  return 0;
}
