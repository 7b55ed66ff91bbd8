// A device library that fails when a test says so: what it counts, and what it is told.
#pragma once

#include <nibble/base/cancel.hpp>

#include <atomic>
#include <cstdint>

namespace nib::test {

struct Faults {
  static constexpr std::int64_t kNever = INT64_MAX;
  // Of calls that can fail, numbered from 0 on: [first, end) do. Packing does not count: it asks nothing of
  // the device.
  std::int64_t first = kNever, end = kNever;
  Cancel* cancel = nullptr;  // if any, the first of them triggers it, and none fails
  std::int64_t calls = 0;
  const char* failed = "";      // the last one that did
  std::atomic<int> blocks = 0;  // that were allocated and not released, page-locked ones too
  int queues = 0;               // that were opened and not closed
};

// The name under which the library exports it.
inline constexpr char kFaultsSymbol[] = "nibble_faults";

}  // namespace nib::test
