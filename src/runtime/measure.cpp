#include <nibble/kernels/backend.hpp>
#include <nibble/runtime/measure.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

namespace nib::inline v0 {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Reads [begin, end) line by line; the sum keeps the compiler honest. Prefetching makes one core reach what
// it can.
std::uint64_t read_lines(const std::uint64_t* begin, const std::uint64_t* end) {
  std::uint64_t sums[8] = {};
  for (; begin < end; begin += 8) {
    __builtin_prefetch(begin + 512);
    for (int i = 0; i < 8; ++i) sums[i] ^= begin[i];
  }
  std::uint64_t all = 0;
  for (const std::uint64_t sum : sums) all ^= sum;
  return all;
}

}  // namespace

Result<double> measure_read_bandwidth(const Runtime& runtime, double seconds, std::size_t block_bytes) {
  constexpr std::size_t kLeast = std::size_t{128} << 20, kMost = std::size_t{1} << 30, kLine = 64;
  if (block_bytes == 0) block_bytes = std::clamp<std::size_t>(4 * runtime.machine().l3_cache, kLeast, kMost);
  Memory memory(runtime.allocator());
  NIB_ASSIGN(Buffer block, Buffer::make(round_up(block_bytes, kLine), memory, Purpose::staging,
                                        "the block for measuring bandwidth"));
  const std::int64_t lines = static_cast<std::int64_t>(block.size() / kLine);
  Pool& pool = runtime.pool();
  pool.run([&](int index, int count) {
    const Range mine = split(lines, index, count);
    std::memset(block.data() + static_cast<std::size_t>(mine.begin) * kLine, 1,
                static_cast<std::size_t>(mine.size()) * kLine);
  });
  return measure_read_bandwidth(runtime, {block.data(), block.size()}, seconds);
}

double measure_read_bandwidth(const Runtime& runtime, std::span<const std::byte> block, double seconds) {
  const auto lines = static_cast<std::int64_t>(block.size() / 64);
  const auto* words = reinterpret_cast<const std::uint64_t*>(block.data());
  std::atomic<std::uint64_t> sink{0};
  double best = 0;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    runtime.pool().run([&](int index, int count) {
      const Range mine = split(lines, index, count);
      sink.fetch_xor(read_lines(words + mine.begin * 8, words + mine.end * 8), std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(lines * 64) / seconds_since(start));
  } while (seconds_since(begin) < seconds);
  return best;
}

double measure_phase(const Runtime& runtime) {
  constexpr int kPhases = 20'000;
  const auto start = Clock::now();
  for (int i = 0; i < kPhases; ++i) runtime.pool().run([](int, int) {});
  return seconds_since(start) / kPhases;
}

double measure_dot_rate(const Runtime& runtime, const Backend& backend, Numerics numerics, double seconds) {
  double best = 0;
  const auto begin = Clock::now();
  for (std::int64_t iterations = 10'000; seconds_since(begin) < seconds;) {
    std::atomic<double> flops{0};
    const auto start = Clock::now();
    runtime.pool().run([&](int, int) { flops.fetch_add(backend.spin_dots(numerics, iterations)); });
    const double took = seconds_since(start);
    best = std::max(best, flops.load() / took);
    if (took < seconds / 8) iterations *= 2;
  }
  return best;
}

}  // namespace nib::inline v0
