// Room cuda: a kernel's launch: on a stream of the device, or on an emulator, which then is the stream.
#pragma once

#include "arch.cuh"
#include <nibble/base/status.hpp>

#include <cstddef>

#if defined(__CUDACC__)
#include "answer.hpp"
#endif

namespace nib::inline v0::cuda {

// Threads: a multiple of 32. shared_bytes: what the kernel takes by shared_memory().
struct LaunchShape {
  int blocks, threads;
  std::size_t shared_bytes;
};

#if defined(__CUDACC__)

using Stream = cudaStream_t;

// Begins kernel(arguments...) behind what the stream has to do. Errors: those of the launch; what goes wrong
// later is found by whoever waits for the stream.
template <class... Parameters>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Parameters&... arguments) {
  const auto shared = static_cast<int>(shape.shared_bytes);
  NIB_TRY(status_of(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                    "asking for shared memory"));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  return status_of(cudaLaunchKernelEx(&config, kernel, arguments...), "launching a kernel");
}

#else

using Stream = simt::Emulator*;

template <class... Parameters>
Status launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream,
              const Parameters&... arguments) {
  return stream->run({shape.blocks, shape.threads, shape.shared_bytes}, kernel, arguments...);
}

#endif

}  // namespace nib::inline v0::cuda
