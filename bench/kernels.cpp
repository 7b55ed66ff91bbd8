// Every matrix kernel of this machine's backends beside its ceilings: bench_kernels [benchmark options]
//
// A row named avx2/mxfp4/floats/1 multiplies one row of activations with weights that no cache holds, on all
// processors. GB/s counts packed weights; of_read is that rate over `read`, the rate at which the same memory
// is read right after, and of_peak the rate of operations over the dot instruction's, measured when the
// program starts.
#include "machine.hpp"
#include <nibble/base/float_scope.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/kernels/backend.hpp>

#include <cstdio>
#include <cstring>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace nib;

constexpr std::int64_t kRows = 2880, kK = 2880;  // of one expert of gpt-oss
constexpr std::size_t kWeightBytes = std::size_t{512} << 20;
// By ActivationLayout.
constexpr const char* kLayoutNames[] = {"/floats", "/pairs", "/bytes", "/sums_of_floats", "/sums_of_pairs"};
constexpr const char* kScaleNames[] = {"/narrow_scales", "/usual_scales", ""};  // by ScaleRange

// Bytes that are weights of ordinary size in this format, whatever the order: 0x7b is two codes of MXFP4 and
// its scale 2^-4, 0x2c2c is 0.065 in f16, which many formats have as scales, 0x3c3c is 0.011 in bf16 and f32.
int filler(Format format) {
  if (format == Format::mxfp4) return 0x7b;
  return format == Format::bf16 || format == Format::f32 ? 0x3c : 0x2c;
}

// What a kernel multiplies here: its format, or one without tiles; scales that a tensor shares are one for
// 128 inputs.
Format format_of(const MatmulKernel& kernel) {
  return kernel.weight == Format::none ? Format::q3_k : kernel.weight;
}

// `rows` rows of activations through as many matrices as fill kWeightBytes.
void multiply(benchmark::State& state, const Runtime& runtime, const MatmulKernel& kernel, int rows,
              double peak) {
  const Format format = format_of(kernel);
  const std::int64_t group = format_info(format).group, k = kK / group * group;
  PackedWeight weight{format, kRows, k, nullptr, &kernel, 128};
  const std::size_t matrices = kWeightBytes / weight.bytes();
  Memory memory(runtime.allocator());
  auto made = Buffer::make(matrices * weight.bytes(), memory, Purpose::weights, "the weights of a bench");
  if (!made.ok()) return state.SkipWithError(made.status().message().c_str());
  Buffer weights = std::move(made).take();  // on huge pages, as a model's are
  const std::vector<std::byte> x(
      activation_bytes(kernel.x, weight.k_padded()) * static_cast<std::size_t>(rows), std::byte{0x3c});
  Pool& pool = runtime.pool();
  const auto threads = static_cast<std::size_t>(pool.threads());
  std::vector<std::vector<float>> out(threads, std::vector<float>(static_cast<std::size_t>(rows) * 64));
  const auto strips_of = [&](int index, int count, auto&& visit) {
    for (std::size_t m = 0; m < matrices; ++m) {
      const Range mine = split(weight.strips(), index, count);
      for (std::int64_t strip = mine.begin; strip < mine.end;) {
        const std::int64_t end = std::min((strip / kGroupStrips + 1) * kGroupStrips, mine.end);
        visit(weights.data() + m * weight.bytes(), strip, end);
        strip = end;
      }
    }
  };
  std::memset(weights.data(), filler(format), weights.size());
  for (auto _ : state)
    pool.run([&](int index, int count) {
      const FloatScope scope;
      PackedWeight mine = weight;
      float* tile = out[static_cast<std::size_t>(index)].data();
      strips_of(index, count, [&](const std::byte* data, std::int64_t begin, std::int64_t end) {
        mine.data = data;
        kernel.run({&mine, begin, end, x.data(), rows, tile, 64});
      });
    });
  const double bytes = static_cast<double>(weights.size());
  const double flops = 2.0 * static_cast<double>(matrices) * static_cast<double>(kRows * k * rows);
  state.counters["GB/s"] = bench::by_the_second(bytes * 1e-9);
  state.counters["GFLOP/s"] = bench::by_the_second(flops * 1e-9);
  // Beside what the same memory is read at in the same moment: neighbours come and go.
  const double read = measure_read_bandwidth(runtime, {weights.data(), weights.size()}, 0.1);
  state.counters["read"] = read * 1e-9;
  state.counters["of_read"] = bench::by_the_second(bytes / read);
  state.counters["of_peak"] = bench::by_the_second(flops / peak);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const auto [runtime, read] = bench::measured_machine();
  std::set<const MatmulKernel*> met;
  for (const BackendInfo& info : runtime->backends()) {
    if (!info.present) continue;
    // By ActivationLayout.
    double peaks[] = {measure_dot_rate(*runtime, *info.backend, Numerics::f32, 0.2),
                      measure_dot_rate(*runtime, *info.backend, Numerics::bf16, 0.2),
                      measure_dot_rate(*runtime, *info.backend, Numerics::int8, 0.2), 0, 0};
    peaks[3] = peaks[0];
    peaks[4] = peaks[1];
    std::printf("%s multiplies %.1f GFLOP/s in f32, %.1f in bf16, %.1f in int8\n", info.name.c_str(),
                peaks[0] * 1e-9, peaks[1] * 1e-9, peaks[2] * 1e-9);
    for (std::size_t layout = 0; layout < std::size(peaks); ++layout)  // for roofline.py
      benchmark::AddCustomContext(info.name + kLayoutNames[layout], std::to_string(peaks[layout] * 1e-9));
    for (const auto kernels : {info.backend->int8_kernels, info.backend->kernels})
      for (const MatmulKernel& kernel : kernels) {
        if (!met.insert(&kernel).second) continue;  // instruction sets may share them
        const auto layout = static_cast<std::size_t>(kernel.x);
        for (const int rows : {1, 2, 4, 8, 32, 128}) {
          const std::string name = info.name + "/" + format_name(format_of(kernel)) + kLayoutNames[layout] +
                                   kScaleNames[static_cast<std::size_t>(kernel.scales)] + "/" +
                                   std::to_string(rows);
          benchmark::RegisterBenchmark(name.c_str(), multiply, std::cref(*runtime), std::cref(kernel), rows,
                                       peaks[layout])
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
  }
  benchmark::AddCustomContext("read", std::to_string(read * 1e-9));
  benchmark::AddCustomContext("processor", runtime->machine().cpu);
  benchmark::AddCustomContext("threads", std::to_string(runtime->pool().threads()));
  benchmark::RunSpecifiedBenchmarks();
}
