// Memory that tells which part of which phase brought in a page, without a second memory node.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace nib::test {

// A block of no contents, in small pages, and a pool that does the parts of a phase one after another and
// looks after each which pages have come.
class WatchedPages {
 public:
  static constexpr std::size_t kPage = 4096;
  // Whether the system's pages are of that size.
  static bool possible() { return sysconf(_SC_PAGESIZE) == static_cast<long>(kPage); }

  WatchedPages(std::size_t bytes, int threads)
      : bytes_(round_up(bytes, kPage)),
        data_(static_cast<std::byte*>(
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
        first(bytes_ / kPage, kNobody),
        pool(Pool::borrow({run, this, threads})) {
    REQUIRE(data_ != MAP_FAILED);
    madvise(data_, bytes_, MADV_NOHUGEPAGE);
  }
  ~WatchedPages() { munmap(data_, bytes_); }
  WatchedPages(const WatchedPages&) = delete;
  WatchedPages& operator=(const WatchedPages&) = delete;
  std::byte* data() const { return data_; }

  // Gives the block to who asks first.
  Allocator allocator() {
    return {[](void* user, std::size_t bytes, std::size_t alignment) -> void* {
              auto& that = *static_cast<WatchedPages*>(user);
              if (that.given_ || bytes > that.bytes_)
                return std::aligned_alloc(alignment, round_up(bytes, alignment));
              that.given_ = true;
              return that.data_;
            },
            [](void* user, void* block, std::size_t) {
              if (block != static_cast<WatchedPages*>(user)->data_) std::free(block);
            },
            this};
  }

 private:
  static void run(void* user, int threads, void (*task)(void*, int), void* arg) {
    auto& that = *static_cast<WatchedPages*>(user);
    that.look(-1);
    for (that.now = 0; that.now < threads; ++that.now) {
      task(arg, that.now);
      that.look(that.now);
    }
    that.now = -1;
  }
  // What has come since the last look, `part` has brought in.
  void look(int part) {
    std::vector<unsigned char> resident(first.size());
    REQUIRE(mincore(data_, bytes_, resident.data()) == 0);
    for (std::size_t page = 0; page < resident.size(); ++page)
      if ((resident[page] & 1) && first[page] == kNobody) first[page] = part;
  }

  std::size_t bytes_;
  std::byte* data_;
  bool given_ = false;

 public:
  static constexpr int kNobody = -2;
  std::vector<int> first;  // for each page the part that brought it in; -1: outside of phases
  int now = -1;            // the part that is being done
  std::unique_ptr<Pool> pool;
};

}  // namespace nib::test
