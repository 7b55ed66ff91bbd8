// The emulator: threads meet where they must, exchange what the documents say, and what breaks a rule is an
// error with a place, not a hang.
#include <nibble/base/float16.hpp>
#include <nibble/base/float_scope.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <cuda/arch.cuh>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

using namespace cuda;
using simt::Emulator;
using simt::kWarpLanes;

std::uint64_t fresh_seed() { return std::random_device{}(); }

void check_fails(const Status& status, const char* text) {
  CAPTURE(status.message());
  CHECK(status.code() == Code::device);
  CHECK(status.message().find(text) != std::string::npos);
}

TEST_CASE("every thread of every block runs once") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  for (const simt::Shape shape : {simt::Shape{1, 32}, {7, 96}, {3, 1024}, {40, 64}}) {
    std::vector<int> runs(static_cast<std::size_t>(shape.blocks * shape.threads));
    const Status status = emulator.run(shape, [&] {
      CHECK(block_count() == shape.blocks);
      CHECK(block_threads() == shape.threads);
      ++runs[static_cast<std::size_t>(block_index() * block_threads() + thread_index())];
    });
    CHECK(status.ok());
    CHECK(std::all_of(runs.begin(), runs.end(), [](int n) { return n == 1; }));
  }
}

TEST_CASE("shapes that no device takes are refused") {
  Emulator emulator(1);
  const auto nothing = [] {};
  CHECK(emulator.run({0, 32}, nothing).code() == Code::argument);
  CHECK(emulator.run({1, 0}, nothing).code() == Code::argument);
  CHECK(emulator.run({1, 33}, nothing).code() == Code::argument);
  CHECK(emulator.run({1, 1056}, nothing).code() == Code::argument);
  CHECK(emulator.run({1, 32, 232449}, nothing).code() == Code::argument);
  CHECK(emulator.run({1, 32, 232448}, nothing).ok());
}

TEST_CASE("the seed draws the order of blocks and of threads") {
  const auto orders_of = [](std::uint64_t seed) {
    std::vector<int> order;
    CHECK(Emulator(seed)
              .run({4, 64},
                   [&] {
                     order.push_back(block_index() * 64 + thread_index());
                     sync_block();
                     order.push_back(block_index() * 64 + thread_index());
                   })
              .ok());
    return order;
  };
  CHECK(orders_of(5) == orders_of(5));
  std::set<std::vector<int>> different;
  for (std::uint64_t seed = 0; seed < 8; ++seed) different.insert(orders_of(seed));
  CHECK(different.size() == 8);
}

TEST_CASE("at a barrier of the block everybody sees what everybody wrote") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  constexpr int kThreads = 256, kRounds = 50;
  std::vector<unsigned> sums(kThreads);
  const Status status = emulator.run({3, kThreads, kThreads * sizeof(int)}, [&] {
    unsigned* const shared = shared_memory<unsigned[kThreads]>();
    const int i = thread_index();
    auto value = static_cast<unsigned>(i);
    for (int round = 0; round < kRounds; ++round) {
      shared[i] = value;
      sync_block();
      value += shared[(i + 1) % kThreads];
      sync_block();
    }
    sums[static_cast<std::size_t>(i)] = value;
  });
  CAPTURE(status.message());
  REQUIRE(status.ok());
  std::vector<unsigned> wanted(kThreads), next(kThreads);
  std::iota(wanted.begin(), wanted.end(), 0u);
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < kThreads; ++i) next[i] = wanted[i] + wanted[(i + 1) % kThreads];
    wanted = next;
  }
  CHECK(sums == wanted);
}

TEST_CASE("without the barrier some order shows that it is missing") {
  // What the emulator is for: a race that a fixed order would hide.
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    bool stale = false;
    CHECK(Emulator(seed)
              .run({1, 64, 64 * sizeof(int)},
                   [&] {
                     int* const shared = shared_memory<int[64]>();
                     shared[thread_index()] = thread_index();
                     if (shared[thread_index() ^ 1] != (thread_index() ^ 1)) stale = true;
                   })
              .ok());
    wrong += stale;
  }
  CHECK(wrong == 20);
}

TEST_CASE("shared memory begins as NaN in every block") {
  Emulator emulator(2);
  int seen = 0;
  CHECK(emulator
            .run({5, 32, 4096},
                 [&] {
                   float* const shared = shared_memory<float[1024]>();
                   if (thread_index() == 0) {
                     for (int i = 0; i < 1024; ++i) seen += std::isnan(shared[i]);
                     std::fill_n(shared, 1024, 1.0f);
                   }
                 })
            .ok());
  CHECK(seen == 5 * 1024);
}

TEST_CASE("a kernel that may overlap the one before it waits for that, in every thread") {
  Emulator emulator(4);
  const auto run = [&](bool overlaps, int waiting) {
    return emulator.run({2, 64, 0, overlaps}, [=] {
      if (thread_index() < waiting) wait_for_kernel_before();
    });
  };
  CHECK(run(true, 64).ok());
  CHECK(run(false, 0).ok());
  check_fails(run(true, 63), "never waited for the kernel before it");
}

TEST_CASE("subnormals are kept, whatever the caller does with his, and so is what the caller does") {
  const FloatScope flushes;
  volatile float least = 0x1p-149f;
  float twice = 0;
  CHECK(Emulator(5).run({1, 32}, [&] { twice = least + least; }).ok());
  std::uint32_t bits;
  std::memcpy(&bits, &twice, sizeof bits);
  CHECK(bits == 2);
  CHECK(least + least == 0.0f);
}

TEST_CASE("shared memory beyond what the launch asked for is an error") {
  Emulator emulator(3);
  check_fails(emulator.run({1, 32, 64}, [] { (void)shared_memory<float[17]>(); }), "more shared memory");
  for (const int at : {16, 17, -1}) {
    const Status status = emulator.run({1, 32, 64}, [at] { (&shared_memory<float>())[at] = 0; });
    check_fails(status, "beside the 64 bytes");
  }
}

TEST_CASE("a barrier that not all threads reach is an error with its place") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  check_fails(emulator.run({2, 64},
                           [] {
                             if (thread_index() < 40) sync_block();
                           }),
              "which 24 of 64 threads never reach");
  check_fails(emulator.run({1, 64},
                           [] {
                             if (thread_index() != 7) sync_warp();
                           }),
              "which 1 of 32 threads never reach");
  check_fails(emulator.run({1, 64},
                           [] {
                             if (thread_index() < 32)
                               sync_block();
                             else
                               sync_block();
                           }),
              "a barrier of the block");
  // After an error the emulator is as good as new.
  CHECK(emulator.run({2, 64}, [] { sync_block(); }).ok());
}

TEST_CASE("every kind of shuffle") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> values(64);
  for (auto& value : values) value = random();
  const Status status = emulator.run({1, 64}, [&] {
    const int i = thread_index(), lane = i % 32, warp = i - lane;
    const std::uint64_t own = values[static_cast<std::size_t>(i)];
    const auto of = [&](int other) { return values[static_cast<std::size_t>(warp + other)]; };
    for (int by = 0; by < 32; ++by) {
      CHECK(shuffle(own, by) == of(by));
      CHECK(shuffle(own, by + 32) == of(by));  // the hardware takes the lane modulo 32
      CHECK(shuffle(own, (5 * lane + by) % 32) == of((5 * lane + by) % 32));
      CHECK(shuffle_up(own, by) == of(lane < by ? lane : lane - by));
      CHECK(shuffle_down(own, by) == of(lane + by > 31 ? lane : lane + by));
      CHECK(shuffle_xor(own, by) == of(lane ^ by));
    }
    CHECK(shuffle_xor(static_cast<float>(i), 1) == static_cast<float>(i ^ 1));
  });
  CAPTURE(status.message());
  CHECK(status.ok());
}

TEST_CASE("an exchange by part of a warp is refused") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  check_fails(emulator.run({1, 32},
                           [] {
                             if (thread_index() < 16) (void)shuffle(1, 0);
                           }),
              "a shuffle");
  check_fails(emulator.run({1, 32},
                           [] {
                             if (thread_index() < 16)
                               (void)shuffle_up(1, 1);
                             else
                               (void)shuffle_down(1, 1);
                           }),
              "an exchange with its warp");
  check_fails(emulator.run({1, 32},
                           [] {
                             if (thread_index() < 16)
                               (void)shuffle_xor(1, 1);
                             else
                               (void)shuffle_xor(1, 1);
                           }),
              "an exchange with its warp");
  check_fails(emulator.run({1, 32},
                           [] {
                             if (thread_index() == 3) return;
                             float d[4] = {};
                             multiply_tile(d, {0, 0, 0, 0}, {0, 0});
                           }),
              "which 1 of 32 threads never reach");
  check_fails(emulator.run({1, 64},
                           [] {
                             if (thread_index() < 32)
                               sync_block();
                             else
                               (void)shuffle(1, 0);
                           }),
              "a barrier of the block");
}

TEST_CASE("copies land at the wait for their group and not before") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  std::vector<Words4> from(3 * 32);
  for (std::size_t i = 0; i < from.size(); ++i)
    for (std::uint32_t j = 0; j < 4; ++j) from[i].at[j] = static_cast<std::uint32_t>(4 * i + j);
  const Status status = emulator.run({1, 32, 3 * 32 * sizeof(Words4)}, [&] {
    Words4* const shared = shared_memory<Words4[96]>();
    const int i = thread_index();
    const auto landed = [&](int group) {
      const Words4 &to = shared[group * 32 + i], &wanted = from[static_cast<std::size_t>(group * 32 + i)];
      return std::equal(to.at, to.at + 4, wanted.at);
    };
    const auto poisoned = [&](int group) { return shared[group * 32 + i].at[3] == 0xffff'ffffu; };
    for (int group = 0; group < 3; ++group) {
      shared[group * 32 + i] = {};
      begin_copy(place_of(shared), group * 32 + i, &from[static_cast<std::size_t>(group * 32 + i)]);
      close_copy_group();
      CHECK(poisoned(group));
    }
    wait_for_copies<2>();
    CHECK((landed(0) && poisoned(1) && poisoned(2)));
    wait_for_copies<1>();
    CHECK((landed(1) && poisoned(2)));
    wait_for_copies<0>();
    CHECK(landed(2));
  });
  CAPTURE(status.message());
  CHECK(status.ok());

  const auto copy = [&](int to, int from_byte, bool wait) {
    return emulator.run({1, 32, 64}, [&, to, from_byte, wait] {
      auto* const shared = reinterpret_cast<std::byte*>(&shared_memory<Words4[4]>());
      begin_copy(
          place_of(reinterpret_cast<Words4*>(shared + to)), 0,
          reinterpret_cast<const Words4*>(reinterpret_cast<const std::byte*>(from.data()) + from_byte));
      close_copy_group();
      if (wait) wait_for_copies<0>();
    });
  };
  CHECK(copy(48, 16, true).ok());
  check_fails(copy(64, 0, true), "no shared memory");
  check_fails(copy(8, 0, true), "no multiples");
  check_fails(copy(0, 8, true), "no multiples");
  check_fails(copy(0, 0, false), "before it waited");
}

// --- tensor cores
// ---------------------------------------------------------------------------------------------

float widened(std::uint32_t bits) { return to_float(bf16{static_cast<std::uint16_t>(bits)}); }
std::uint32_t pair_of(float low, float high) {
  return to_bf16(low).bits | static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
}

// The fragment maps of the PTX ISA as it writes them, element by element: row and col of a_i, b_i, c_i, with
// groupID = laneid >> 2 and threadID_in_group = laneid % 4.
struct Element {
  int row, col;
};
Element place_of_a(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
  const int col = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
  return {row, col};
}
Element place_of_b(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
Element place_of_c(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

struct Matrices {
  float a[16][16], b[16][8], c[16][8], d[16][8];
};

Status multiply(Emulator& emulator, Matrices& m) {
  return emulator.run({1, 32}, [&] {
    const int lane = thread_index();
    std::uint32_t a[4], b[2];
    float d[4];
    const auto of_a = [&](int i) { return m.a[place_of_a(lane, i).row][place_of_a(lane, i).col]; };
    const auto of_b = [&](int i) { return m.b[place_of_b(lane, i).row][place_of_b(lane, i).col]; };
    for (int i = 0; i < 4; ++i) a[i] = pair_of(of_a(2 * i), of_a(2 * i + 1));
    for (int i = 0; i < 2; ++i) b[i] = pair_of(of_b(2 * i), of_b(2 * i + 1));
    for (int i = 0; i < 4; ++i) d[i] = m.c[place_of_c(lane, i).row][place_of_c(lane, i).col];
    multiply_tile(d, a, b);
    for (int i = 0; i < 4; ++i) m.d[place_of_c(lane, i).row][place_of_c(lane, i).col] = d[i];
  });
}

TEST_CASE("a product of tiles: each element of a and b meets its own row and column") {
  Emulator emulator(4);
  // One element of a, all of b: row of ones times distinct numbers; exact, so each place is told from all.
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k) {
      Matrices m{};
      m.a[row][k] = 1;
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j) m.b[i][j] = static_cast<float>(8 * i + j + 1);
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j) m.c[i][j] = static_cast<float>(1000 * (i + 1) + 100 * j);
      REQUIRE(multiply(emulator, m).ok());
      bool right = true;
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j)
          right = right && m.d[i][j] == m.c[i][j] + (i == row ? static_cast<float>(8 * k + j + 1) : 0.0f);
      CHECK(right);
    }
}

TEST_CASE("a product of tiles: random numbers, within what cutting seventeen addends may lose") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    Matrices m;
    std::normal_distribution<float> normal(0.0f, std::ldexp(1.0f, round - 10));
    const auto fill = [&](auto& matrix) {
      for (auto& row : matrix)
        for (float& value : row) value = to_float(to_bf16(normal(random)));
    };
    fill(m.a);
    fill(m.b);
    fill(m.c);
    REQUIRE(multiply(emulator, m).ok());
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        double wanted = m.c[i][j], largest = std::fabs(wanted);
        for (int k = 0; k < 16; ++k) {
          const double product = double{m.a[i][k]} * m.b[k][j];
          wanted += product;
          largest = std::max(largest, std::fabs(product));
        }
        // Each addend loses less than one unit of 2^-24 of the largest, the sum one of its own last place.
        const double bound = 17 * std::ldexp(largest, -24) + std::ldexp(std::fabs(wanted), -23);
        CHECK(std::fabs(m.d[i][j] - wanted) <= bound);
      }
  }
}

TEST_CASE("a product of tiles: subnormal factors count, infinities and NaN spread") {
  Emulator emulator(6);
  Matrices m{};
  m.a[3][2] = 0x1p-133f;  // the least bf16
  m.b[2][5] = 0x1p+120f;
  m.a[4][0] = std::numeric_limits<float>::infinity();
  m.b[0][0] = 2;
  m.a[5][1] = std::numeric_limits<float>::infinity();
  REQUIRE(multiply(emulator, m).ok());
  CHECK(m.d[3][5] == 0x1p-13f);
  CHECK(m.d[4][0] == std::numeric_limits<float>::infinity());
  CHECK(std::isnan(m.d[4][1]));  // infinity times zero
  CHECK(std::isnan(m.d[5][0]));
  CHECK(m.d[6][0] == 0.0f);
}

TEST_CASE("products of bf16: all exponents, nearest even, subnormals kept") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random()), other = static_cast<std::uint32_t>(random());
    const std::uint32_t product = multiply_bf16x2(bits, other);
    for (const int shift : {0, 16}) {
      const double wanted = double{widened(bits >> shift & 0xffff)} * widened(other >> shift & 0xffff);
      const std::uint32_t got = product >> shift & 0xffff;
      if (std::isnan(wanted)) {
        CHECK((got & 0x7fff) > 0x7f80);
        continue;
      }
      // Independently: of the two neighbours in bf16, none may be nearer.
      const double value = widened(got);
      if (std::isinf(value)) {
        CHECK(std::fabs(wanted) >= 0x1.ffp127);
        continue;
      }
      const double below = std::fabs(widened(got & 0x7fff ? got - 1 : got) - wanted),
                   above = (got & 0x7fff) == 0x7f7f ? 0x1p120 : std::fabs(widened(got + 1) - wanted);
      const double error = std::fabs(value - wanted);
      const bool nearest = error < std::min(below, above) ||
                           (error <= std::min(below, above) && !(got & 1)) ||
                           ((got & 0x7fff) == 0 && error <= above);
      if (!nearest) FAIL_CHECK("product of ", bits, " and ", other, " is ", product);
    }
  }
}

TEST_CASE("four matrices load as the documents draw them") {
  const std::uint64_t seed = fresh_seed();
  CAPTURE(seed);
  Emulator emulator(seed);
  constexpr int kStride = 24;  // words from row to row: rows need not be adjacent
  const Status status = emulator.run({1, 32, 32 * kStride * 2}, [] {
    auto& shared = shared_memory<std::uint16_t[32][kStride]>();
    const int lane = thread_index();
    for (int j = 0; j < kStride; ++j) shared[lane][j] = static_cast<std::uint16_t>(100 * lane + j);
    sync_warp();
    std::uint32_t out[4];
    load_matrices(out, &shared[lane][8]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const int row = lane / 4, word = 2 * (lane % 4);
      const auto wanted = [&](int j) { return static_cast<std::uint32_t>(100 * (8 * matrix + row) + 8 + j); };
      CHECK(out[matrix] == (wanted(word) | wanted(word + 1) << 16));
    }
  });
  CAPTURE(status.message());
  CHECK(status.ok());
  check_fails(emulator.run({1, 32, 1024},
                           [] {
                             std::uint32_t out[4];
                             load_matrices(out, reinterpret_cast<std::byte*>(&shared_memory<Words4>()) + 8);
                           }),
              "no multiple of 16");
  check_fails(emulator.run({1, 32, 1024},
                           [] {
                             std::uint32_t out[4];
                             load_matrices(out, &shared_memory<Words4>() + 64);
                           }),
              "outside its shared memory");
}

TEST_CASE("counting in global memory gives every thread another number") {
  Emulator emulator(7);
  std::int32_t counter = 0;
  std::vector<int> seen(6 * 64);
  CHECK(emulator.run({6, 64}, [&] { ++seen[static_cast<std::size_t>(add_in_order(&counter, 1))]; }).ok());
  CHECK(counter == 6 * 64);
  CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

}  // namespace
}  // namespace nib::test
