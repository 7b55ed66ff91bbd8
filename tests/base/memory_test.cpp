// Memory and Buffer: every byte is counted once and given back once; ceilings hold to the byte, also between
// threads; a size that no machine has is an error.
#include <nibble/base/memory.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <sys/mman.h>

namespace nib::test {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;
constexpr std::uint64_t kAll = std::numeric_limits<std::uint64_t>::max();

// A host's allocator that keeps a ledger, and refuses when told.
struct Ledger {
  std::vector<std::pair<void*, std::size_t>> alive;
  int allocations = 0, wrong_releases = 0;
  std::size_t least_alignment = kHuge;
  bool refuse = false;

  Allocator allocator() {
    return {[](void* user, std::size_t bytes, std::size_t alignment) -> void* {
              Ledger& ledger = *static_cast<Ledger*>(user);
              ++ledger.allocations;
              ledger.least_alignment = std::min(ledger.least_alignment, alignment);
              if (ledger.refuse) return nullptr;
              void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
              ledger.alive.emplace_back(block, bytes);
              return block;
            },
            [](void* user, void* pointer, std::size_t bytes) {
              Ledger& ledger = *static_cast<Ledger*>(user);
              ledger.wrong_releases += std::erase(ledger.alive, std::pair{pointer, bytes}) != 1;
              std::free(pointer);
            },
            this};
  }
};

Buffer buffer_of(std::size_t bytes, Memory& memory, Purpose purpose = Purpose::weights) {
  auto buffer = Buffer::make(bytes, memory, purpose, "a test");
  REQUIRE(buffer.ok());
  REQUIRE(buffer->size() == bytes);
  return buffer.take();
}

bool says(const Status& status, const std::string& part) {
  return status.message().find(part) != std::string::npos;
}

TEST_CASE("wish_huge_pages: any bytes, also fewer than a page has, keep what they hold") {
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{7} << 20}) {
    std::vector<char> bytes(size + 3, 'x');
    nib::wish_huge_pages(bytes.data() + 3, size);
    CHECK(std::count(bytes.begin(), bytes.end(), 'x') == static_cast<std::ptrdiff_t>(bytes.size()));
  }
}

TEST_CASE("accounts: each purpose by itself, what is in use and what was at most") {
  Ledger ledger;
  Memory memory(ledger.allocator());
  {
    const Buffer a = buffer_of(100, memory, Purpose::weights), b = buffer_of(7, memory, Purpose::weights),
                 c = buffer_of(5000, memory, Purpose::kv_cache);
    CHECK(memory.in_use(Purpose::weights) == 107);
    CHECK(memory.in_use(Purpose::kv_cache) == 5000);
    CHECK(memory.in_use(Purpose::activations) == 0);
    CHECK(ledger.alive.size() == 3);
  }
  const Buffer later = buffer_of(50, memory, Purpose::weights);
  CHECK(memory.in_use(Purpose::weights) == 50);
  CHECK(memory.peak(Purpose::weights) == 107);
  CHECK(memory.in_use(Purpose::kv_cache) == 0);
  CHECK(memory.peak(Purpose::kv_cache) == 5000);
  CHECK(memory.peak(Purpose::staging) == 0);
  CHECK(ledger.alive.size() == 1);
  CHECK(ledger.wrong_releases == 0);
  CHECK(ledger.least_alignment >= 64);
}

TEST_CASE("ceilings: reached to the byte, passed by none; the error says what, how much and why") {
  Ledger ledger;
  Memory memory(ledger.allocator());
  memory.set_ceiling(Purpose::kv_cache, 1000);
  Buffer first = buffer_of(600, memory, Purpose::kv_cache);
  const int before = ledger.allocations;
  for (const std::size_t bytes :
       {std::size_t{401}, std::size_t{1000}, std::size_t{1} << 40, std::numeric_limits<std::size_t>::max()}) {
    const auto refused = Buffer::make(bytes, memory, Purpose::kv_cache, "the pages of a session");
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.status().code() == Code::budget);
    for (const std::string& part : {std::string("the pages of a session"), std::to_string(bytes),
                                    std::string("1000"), std::string("600"), std::string("kv cache")})
      CHECK(says(refused.status(), part));
    CHECK(memory.in_use(Purpose::kv_cache) == 600);
    CHECK(memory.peak(Purpose::kv_cache) == 600);
  }
  CHECK(ledger.allocations == before);  // who may not have it does not ask for it
  {
    const Buffer rest = buffer_of(400, memory, Purpose::kv_cache);
    CHECK_FALSE(Buffer::make(1, memory, Purpose::kv_cache, "one more").ok());
    CHECK(buffer_of(2000, memory, Purpose::weights).size() == 2000);  // another purpose has its own
  }
  first.reset();
  CHECK(buffer_of(1000, memory, Purpose::kv_cache).size() == 1000);
  memory.set_ceiling(Purpose::kv_cache, 0);
  CHECK_FALSE(Buffer::make(1, memory, Purpose::kv_cache, "one").ok());
  CHECK(Buffer::make(0, memory, Purpose::kv_cache, "none").ok());
}

TEST_CASE("a host without memory: an error of the code memory, and nothing is charged") {
  Ledger ledger;
  Memory memory(ledger.allocator());
  ledger.refuse = true;
  const auto refused = Buffer::make(4096, memory, Purpose::activations, "the activations of a batch");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.status().code() == Code::memory);
  CHECK(says(refused.status(), "the activations of a batch"));
  CHECK(says(refused.status(), "4096"));
  CHECK(memory.in_use(Purpose::activations) == 0);
  CHECK(memory.peak(Purpose::activations) == 0);
  ledger.refuse = false;
  CHECK(buffer_of(4096, memory, Purpose::activations).size() == 4096);
}

TEST_CASE("sizes beyond every machine are refused, with and without a ceiling") {
  Memory memory;
  const Buffer some = buffer_of(100, memory);
  for (const std::uint64_t bytes : {kAll, kAll - 99, kAll - 100, kAll - 4095, kAll - kHuge, kAll - 2 * kHuge,
                                    kAll / 2 + 1, std::uint64_t{1} << 60}) {
    CAPTURE(bytes);
    for (const std::uint64_t ceiling : {kAll, std::uint64_t{1000}}) {
      memory.set_ceiling(Purpose::weights, ceiling);
      CHECK_FALSE(Buffer::make(bytes, memory, Purpose::weights, "too much").ok());
      CHECK(memory.in_use(Purpose::weights) == 100);
    }
    memory.set_ceiling(Purpose::weights, kAll);
  }
  CHECK(memory.peak(Purpose::weights) == 100);
}

TEST_CASE("buffers of the system: aligned, writable from end to end; large ones go back at once") {
  Memory memory;
  std::mt19937 random(std::random_device{}());
  std::vector<std::size_t> sizes = {1,         63,    64,        65,        4096,
                                    kHuge - 1, kHuge, kHuge + 1, 3 * kHuge, 3 * kHuge + 777};
  for (int i = 0; i < 50; ++i) sizes.push_back(1 + random() % 100000);
  for (const std::size_t bytes : sizes) {
    CAPTURE(bytes);
    void* page = nullptr;
    {
      Buffer buffer = buffer_of(bytes, memory);
      REQUIRE(reinterpret_cast<std::uintptr_t>(buffer.data()) % (bytes >= kHuge ? kHuge : 64) == 0);
      std::memset(buffer.data(), 0x77, bytes);
      CHECK(buffer.as<std::uint32_t>().size() == bytes / 4);
      CHECK(std::as_const(buffer).as<float>().size() == bytes / 4);
      CHECK(std::to_integer<int>(buffer.data()[bytes - 1]) == 0x77);
      page = buffer.data();
    }
    unsigned char resident = 0;
    if (bytes >= kHuge) {
      errno = 0;
      CHECK(mincore(page, 4096, &resident) == -1);
      CHECK(errno == ENOMEM);  // nothing is mapped there
    }
  }
  CHECK(memory.in_use(Purpose::weights) == 0);
}

TEST_CASE("buffers move: one owner at any time, everything given back once") {
  Ledger ledger;
  Memory memory(ledger.allocator()), other(ledger.allocator());
  {
    Buffer a = buffer_of(100, memory, Purpose::weights);
    std::byte* at = a.data();
    Buffer b(std::move(a));
    CHECK(b.data() == at);
    CHECK(b.size() == 100);
    CHECK(a.data() == nullptr);  // NOLINT: moved from, and empty
    CHECK(a.size() == 0);

    Buffer c = buffer_of(30, other, Purpose::kv_cache);
    c = std::move(b);  // of another account and purpose
    CHECK(c.data() == at);
    CHECK(c.size() == 100);
    b.reset();  // what c held went here at the latest
    CHECK(other.in_use(Purpose::kv_cache) == 0);
    CHECK(memory.in_use(Purpose::weights) == 100);

    Buffer& same = c;
    c = std::move(same);
    CHECK(c.data() == at);
    CHECK(c.size() == 100);

    std::vector<Buffer> many;
    for (std::size_t i = 1; i <= 20; ++i) many.push_back(buffer_of(i, memory, Purpose::staging));
    CHECK(memory.in_use(Purpose::staging) == 210);
    many.erase(many.begin(), many.begin() + 10);
    CHECK(memory.in_use(Purpose::staging) == 155);
    c.reset();
    c.reset();
    CHECK(memory.in_use(Purpose::weights) == 0);
    c = buffer_of(8, memory, Purpose::weights);  // and is of use again
    CHECK(memory.in_use(Purpose::weights) == 8);
  }
  CHECK(ledger.alive.empty());
  CHECK(ledger.wrong_releases == 0);
  for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::staging})
    CHECK(memory.in_use(purpose) + other.in_use(purpose) == 0);
}

TEST_CASE("nothing is nothing: no allocation, no address") {
  Ledger ledger;
  Memory memory(ledger.allocator());
  const Buffer empty = buffer_of(0, memory);
  CHECK(empty.data() == nullptr);
  CHECK(ledger.allocations == 0);
  CHECK(empty.as<float>().empty());
  CHECK(Buffer().size() == 0);
}

TEST_CASE("many threads: what fits is given whoever else is refused, and the ceiling holds") {
  Memory memory;
  memory.set_ceiling(Purpose::staging, 4000);
  std::atomic<int> refused{0}, given_too_much{0}, over{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)  // together these never want more than the ceiling
    threads.emplace_back([&] {
      while (!done) {
        const auto buffer = Buffer::make(2000, memory, Purpose::staging, "what fits");
        refused += !buffer.ok();
        over += memory.in_use(Purpose::staging) > 4000;
      }
    });
  for (int i = 0; i < 100000; ++i)
    given_too_much += Buffer::make(4001, memory, Purpose::staging, "what does not").ok();
  done = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(refused.load() == 0);
  CHECK(given_too_much.load() == 0);
  CHECK(over.load() == 0);
  CHECK(memory.in_use(Purpose::staging) == 0);
  CHECK(memory.peak(Purpose::staging) <= 4000);
  CHECK(memory.peak(Purpose::staging) >= 2000);
}

}  // namespace
}  // namespace nib::test
