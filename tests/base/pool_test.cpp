// Pool: every part of every phase runs exactly once, in the environment promised, with our threads and a
// host's; phases of several callers take turns; threads that cannot be started are an error. Data races are
// the thread sanitizer's.
#include "support/sanitized.hpp"
#include <nibble/base/pool.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/resource.h>

namespace nib::test {
namespace {

std::unique_ptr<Pool> pool_of(int threads) {
  auto pool = Pool::start(threads);
  REQUIRE(pool.ok());
  return pool.take();
}

// How often each index ran, in one phase; plain integers, so that a missing hand-over is a data race.
std::vector<int> count_indices(Pool& pool) {
  std::vector<int> times(static_cast<std::size_t>(pool.threads()));
  pool.run([&](int index, int count) {
    if (count == pool.threads()) ++times[static_cast<std::size_t>(index)];
  });
  return times;
}
std::vector<int> once(int threads) { return std::vector<int>(static_cast<std::size_t>(threads), 1); }

// What tells one floating-point environment from another: sums half a step off, up and down, and subnormals.
struct Arithmetic {
  Arithmetic() {
    volatile float one = 1.0f, half_step = 0x1p-24f, least = 0x1p-126f, half = 0.5f, subnormal = 0x1p-127f,
                   large = 0x1p100f;
    up = one + half_step;
    down = -one - half_step;
    result = least * half;
    operand = subnormal * large;
  }
  bool operator==(const Arithmetic&) const = default;
  bool canonical() const { return up == 1.0f && down == -1.0f && result == 0.0f && operand == 0.0f; }
  float up, down, result, operand;
};

TEST_CASE("split: parts follow each other, cover all, are cut at the grain and differ by one grain at most") {
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 20000; ++i) {
    const auto total = static_cast<std::int64_t>(i % 3 ? random() % 300 : random());
    const int parts = 1 + static_cast<int>(random() % 40);
    const std::int64_t grain = 1 + random() % 20;
    CAPTURE(total);
    CAPTURE(parts);
    CAPTURE(grain);
    std::int64_t at = 0, least = std::numeric_limits<std::int64_t>::max(), most = 0;
    bool right = true;
    for (int part = 0; part < parts; ++part) {
      const Range range = split(total, part, parts, grain);
      right = right && range.begin == at && range.end >= range.begin;
      right = right && (range.end % grain == 0 || range.end == total);
      at = range.end;
      const std::int64_t grains = (range.size() + grain - 1) / grain;
      least = std::min(least, grains);
      most = std::max(most, grains);
    }
    REQUIRE(right);
    REQUIRE(at == total);
    REQUIRE(most - least <= 1);
  }
}

TEST_CASE("run: each index once, for any number of threads") {
  for (const int threads : {1, 2, 3, 8, 33}) {
    CAPTURE(threads);
    const auto pool = pool_of(threads);
    REQUIRE(pool->threads() == threads);
    for (int i = 0; i < 20; ++i) REQUIRE(count_indices(*pool) == once(threads));
  }
  for (const int none : {0, -3}) CHECK(pool_of(none)->threads() == 1);
}

TEST_CASE("phases: every call of run is one, and those on the caller alone are none") {
  const auto pool = Pool::start(2).take();
  CHECK(pool->phases() == 0);
  for (int i = 0; i < 5; ++i) pool->run([](int, int) {});
  pool->run_if(false, [](int, int) {});
  CHECK(pool->phases() == 5);
}

TEST_CASE("run: the threads work at the same time") {
  const auto pool = pool_of(3);
  std::barrier meeting(3);  // who works after another never comes past it
  for (int i = 0; i < 50; ++i) pool->run([&](int, int) { meeting.arrive_and_wait(); });
}

TEST_CASE("run: many short phases, each seeing what the one before wrote") {
  const auto pool = pool_of(4);
  constexpr int kPhases = 3000;
  std::array<int, 4> counts = {};
  bool in_step = true;
  for (int phase = 0; phase < kPhases; ++phase) {
    std::array<int, 4> seen = {};
    pool->run([&](int index, int count) {
      const auto i = static_cast<std::size_t>(index);
      seen[i] = counts[(i + static_cast<std::size_t>(phase)) % static_cast<std::size_t>(count)];
    });
    for (const int value : seen) in_step = in_step && value == phase;
    pool->run([&](int index, int) { ++counts[static_cast<std::size_t>(index)]; });
  }
  CHECK(in_step);
  for (const int count : counts) CHECK(count == kPhases);
}

TEST_CASE("run: phases of several callers take turns") {
  const auto pool = pool_of(3);
  constexpr int kCallers = 4, kPhases = 300;
  std::array<int, 3> counts = {};  // shared by all: two phases at once would race
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < kPhases; ++i)
        pool->run([&](int index, int) { ++counts[static_cast<std::size_t>(index)]; });
    });
  for (std::thread& caller : callers) caller.join();
  for (const int count : counts) CHECK(count == kCallers * kPhases);
}

TEST_CASE("run: a body may use another pool") {
  const auto outer = pool_of(3), inner = pool_of(2);
  std::atomic<int> calls{0};
  outer->run([&](int, int) { inner->run([&](int, int) { ++calls; }); });
  CHECK(calls.load() == 6);
}

TEST_CASE("run_if: all threads when it is worth it, else the caller alone") {
  const auto pool = pool_of(3);
  std::vector<int> times(3);
  pool->run_if(true, [&](int index, int count) { times[static_cast<std::size_t>(index)] += count; });
  CHECK(times == std::vector<int>{3, 3, 3});
  int calls = 0, index = -1, count = -1;
  std::thread::id where;
  pool->run_if(false, [&](int i, int n) {
    ++calls;
    index = i;
    count = n;
    where = std::this_thread::get_id();
  });
  CHECK(calls == 1);
  CHECK(index == 0);
  CHECK(count == 1);
  CHECK(where == std::this_thread::get_id());
}

// ---- a host's threads

struct Host {
  int phases = 0, asked = 0;
  // The last first, one after another on the calling thread.
  static void backwards(void* user, int threads, void (*task)(void*, int), void* arg) {
    Host& host = *static_cast<Host*>(user);
    ++host.phases;
    host.asked = threads;
    for (int i = threads - 1; i >= 0; --i) task(arg, i);
  }
  static void new_threads(void* user, int threads, void (*task)(void*, int), void* arg) {
    ++static_cast<Host*>(user)->phases;
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back(task, arg, i);
    for (std::thread& worker : workers) worker.join();
  }
};

TEST_CASE("borrow: the host's threads do all the work, once for each index") {
  for (const auto run : {Host::backwards, Host::new_threads}) {
    Host host;
    const auto pool = Pool::borrow({run, &host, 5});
    REQUIRE(pool->threads() == 5);
    for (int i = 1; i <= 10; ++i) {
      REQUIRE(count_indices(*pool) == once(5));
      REQUIRE(host.phases == i);
    }
  }
  Host host;
  const auto alone = Pool::borrow({Host::backwards, &host, 0});
  CHECK(alone->threads() == 1);
  CHECK(count_indices(*alone) == once(1));
  CHECK(host.asked == 1);
  const auto nobody = Pool::borrow({});
  CHECK(count_indices(*nobody) == once(1));
}

TEST_CASE("every body computes canonically, whatever the caller's environment, which comes back") {
  Host host;
  std::vector<std::unique_ptr<Pool>> pools;
  for (const int threads : {1, 2, 5}) pools.push_back(pool_of(threads));
  pools.push_back(Pool::borrow({Host::backwards, &host, 3}));
  pools.push_back(Pool::borrow({Host::new_threads, &host, 3}));
  for (const int rounding : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST})
    for (const auto& pool : pools)
      for (const bool worth : {true, false}) {
        CAPTURE(rounding);
        CAPTURE(worth);
        std::atomic<int> wrong{0};
        std::fesetround(rounding);
        const Arithmetic before;
        pool->run_if(worth, [&](int, int) { wrong += !Arithmetic().canonical(); });
        const Arithmetic after;
        std::fesetround(FE_TONEAREST);
        CHECK(wrong.load() == 0);
        CHECK(before == after);
        CHECK_FALSE(after.canonical());  // subnormals at least are the host's again
      }
}

// ---- beginning and end

TEST_CASE("a pool may end at once, after a pause, and while its threads still go to sleep") {
  for (int i = 0; i < 100; ++i) {
    const auto pool = pool_of(1 + i % 5);
    if (i % 3 == 1) count_indices(*pool);
    if (i % 10 == 2) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

TEST_CASE("start: no room for a thread is an error of the code memory, and passes") {
  pthread_attr_t usual, huge;
  REQUIRE(pthread_getattr_default_np(&usual) == 0);
  REQUIRE(pthread_attr_init(&huge) == 0);
  REQUIRE(pthread_attr_setstacksize(&huge, std::size_t{1} << 46) == 0);
  REQUIRE(pthread_setattr_default_np(&huge) == 0);
  auto refused = Pool::start(2);
  REQUIRE(pthread_setattr_default_np(&usual) == 0);
  pthread_attr_destroy(&huge);
  pthread_attr_destroy(&usual);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.status().code() == Code::memory);
  CHECK(refused.status().message().find("thread") != std::string::npos);
  CHECK(count_indices(*pool_of(2)) == once(2));
}

#ifndef NIB_SANITIZED  // sanitizers need address space themselves
TEST_CASE("start: when a later thread has no room, those before it are gone too") {
  rlimit before = {};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  // What is mapped now (the first number of statm, in pages), and 100 MiB for stacks.
  std::uint64_t pages = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "r")) {
    unsigned long first = 0;
    if (std::fscanf(statm, "%lu", &first) == 1) pages = first;
    std::fclose(statm);
  }
  REQUIRE(pages > 0);
  rlimit tight = before;
  tight.rlim_cur = pages * 4096 + (rlim_t{100} << 20);
  REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
  auto refused = Pool::start(500);
  REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.status().code() == Code::memory);
  CHECK(count_indices(*pool_of(8)) == once(8));
}
#endif

}  // namespace
}  // namespace nib::test
