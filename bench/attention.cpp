// Attention of one decoded token beside what memory allows: bench_attention [--benchmark_filter=...]
//
// The heads of gpt-oss (64 of queries, 8 of keys and values, 64 dimensions) over a context of so many
// positions, in as many layers as do not fit a cache, for every backend and format of the cache; and one and
// two heads of keys and values, which threads share by chunks. `of_read` is the rate at which keys and values
// are passed over, by the bandwidth of memory measured in the same run.
#include "machine.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/kernels/backend.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace nib;

constexpr int kHeadDim = 64;
constexpr std::size_t kCacheBytes = std::size_t{256} << 20;

// bf16 and f32: 0.011; bytes: 60 of 127, or 1.5 of 448, under scales of 0.011.
constexpr int kFiller = 0x3c;

void attend(benchmark::State& state, const Runtime& runtime, const Backend& backend, KvFormat format,
            int heads, int kv_heads, std::int64_t context, double read) {
  const KvLayout kv{format, kv_heads, kHeadDim};
  const auto pages = static_cast<std::size_t>(ceil_div(context, std::int64_t{kPagePositions}));
  const std::size_t layers = std::max<std::size_t>(1, kCacheBytes / (pages * kv.layer_bytes()));
  Memory memory(runtime.allocator());
  auto made = Buffer::make(pages * layers * kv.layer_bytes(), memory, Purpose::kv_cache, "keys and values");
  if (!made.ok()) return state.SkipWithError(made.status().message().c_str());
  Buffer cache = std::move(made).take();
  runtime.pool().run([&](int index, int count) {
    const Range mine = split(static_cast<std::int64_t>(cache.size()), index, count, 4096);
    std::memset(cache.data() + mine.begin, kFiller, static_cast<std::size_t>(mine.size()));
  });
  std::vector<std::byte*> table(pages);
  for (std::size_t p = 0; p < pages; ++p) table[p] = cache.data() + p * layers * kv.layer_bytes();
  const KvRow row{table.data(), 0, context - 1};
  const std::int64_t width = heads * kHeadDim;
  std::vector<float> q(static_cast<std::size_t>(width), 0.5f), out(q.size());
  const std::int64_t tile = kept_tile_floats(heads, kv);
  std::vector<float> tiles(static_cast<std::size_t>(runtime.pool().threads() * tile));
  const OpContext ops{&runtime.pool(), Numerics::bf16, nullptr, nullptr, tiles.data(), tile};
  for (auto _ : state)
    for (std::size_t layer = 0; layer < layers; ++layer)
      backend.ops.attention(ops, {q.data(), width, 1, heads, kv, layer * kv.layer_bytes(), &row, 0, 0.125f,
                                  nullptr, out.data(), width});
  const auto bytes = static_cast<double>(cache.size());
  state.counters["GB/s"] = bench::by_the_second(bytes * 1e-9);
  state.counters["of_read"] = bench::by_the_second(bytes / read);
  state.counters["positions/s"] = bench::by_the_second(static_cast<double>(pages * kPagePositions * layers));
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const auto [runtime, read] = bench::measured_machine();
  for (const BackendInfo& info : runtime->backends()) {
    if (!info.present) continue;
    const auto add = [&](KvFormat format, int heads, int kv_heads, std::int64_t context) {
      const std::string name =
          concat(info.name, "/", kv_format_name(format), "/", context, "/", heads, " heads of ", kv_heads);
      benchmark::RegisterBenchmark(name.c_str(), attend, std::cref(*runtime), std::cref(*info.backend),
                                   format, heads, kv_heads, context, read)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    };
    for (const KvFormat format : {KvFormat::bf16, KvFormat::int8, KvFormat::fp8, KvFormat::f32})
      for (const std::int64_t context : {1024, 16384}) add(format, 64, 8, context);
    for (const int kv_heads : {1, 2}) add(KvFormat::bf16, 8 * kv_heads, kv_heads, 16384);
  }
  benchmark::RunSpecifiedBenchmarks();
}
