// operator new of this program, the library included, failing when a test says so, and counting what is
// alive.
#pragma once

#include <cstdint>

namespace nib::test {

// While it lives, allocations of this thread are counted from 0, and number `n` fails.
class FailNew {
 public:
  static constexpr std::int64_t kNever = -1;
  explicit FailNew(std::int64_t n);
  ~FailNew();
  FailNew(const FailNew&) = delete;
  FailNew& operator=(const FailNew&) = delete;
  // How many there were so far.
  std::int64_t count() const;
};

// Blocks of operator new that are not yet deleted, of all threads.
std::int64_t blocks_alive();

}  // namespace nib::test
