// Room cuda: DeviceQueue, for those who launch kernels on it.
#pragma once

#include "machine.hpp"
#include "queue.hpp"

#if defined(__CUDACC__)
#include "pinned_ring.hpp"
#else
#include <atomic>
#include <memory>
#endif

namespace nib::inline v0 {

#if defined(__CUDACC__)
struct DeviceQueue : cuda::Queue {
  int index = 0;  // of the device
  cuda::LaunchList launches;
  cuda::PinnedRing ring;
};
#else
struct DeviceQueue : cuda::Queue {
  std::unique_ptr<simt::Emulator> emulator;
  std::atomic<std::uint64_t> in_use{0};
};
#endif

}  // namespace nib::inline v0
