// Room cuda: a kernel's launch: on a queue of the device, or on an emulator, which then is the queue.
#pragma once

#include "arch.cuh"
#include <nibble/base/status.hpp>

#include <cstddef>

#if defined(__CUDACC__)
#include "launch_list.hpp"
#endif

namespace nib::inline v0::cuda {

// Threads: a multiple of 32. shared_bytes: what the kernel takes by shared_memory().
struct LaunchShape {
  int blocks, threads;
  std::size_t shared_bytes;
};

#if defined(__CUDACC__)

using Stream = LaunchList*;

// kernel(arguments...) after what was asked for before. Arguments are plain data. Errors: memory; what else
// goes wrong, the launch itself among it, is found by whoever waits.
template <class... Parameters>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Parameters&... arguments) {
  stream->add(reinterpret_cast<const void*>(kernel), shape.blocks, shape.threads, shape.shared_bytes,
              arguments...);
  return {};
}

#else

using Stream = simt::Emulator*;

template <class... Parameters>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Parameters&... arguments) {
  return stream->run({shape.blocks, shape.threads, shape.shared_bytes, true}, kernel, arguments...);
}

#endif

}  // namespace nib::inline v0::cuda
