#include "launch_list.hpp"

#include <array>
#include <utility>

namespace nib::inline v0::cuda {

Status LaunchList::flush() {
  if (now_.kernels.empty()) return {};
  const bool is_repeated = now_ == before_;
  if (!is_repeated) forget_graph();
  std::swap(now_, before_);
  now_.clear();  // whatever happens: nothing is launched twice
  // A graph takes memory of the device, and there may be none left: its kernels, one by one, need none.
  if (is_repeated && !graph_ && graphs_work_) graphs_work_ = make_graph(before_).ok();
  if (graph_) {
    if (cudaGraphLaunch(graph_, stream_) == cudaSuccess) return {};
    forget_graph();
    graphs_work_ = false;
  }
  return launch_each(before_);
}

Status LaunchList::allow_shared_memory(const Kernel& kernel) {
  if (known_.contains(kernel.function)) return {};
  int device = 0, most = 0;
  NIB_TRY(status_of(cudaGetDevice(&device), "asking for the device"));
  NIB_TRY(status_of(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                    "asking for shared memory"));
  cudaFuncAttributes attributes{};
  NIB_TRY(status_of(cudaFuncGetAttributes(&attributes, kernel.function), "asking about a kernel"));
  NIB_TRY(status_of(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         most - static_cast<int>(attributes.sharedSizeBytes)),
                    "asking for shared memory"));
  known_.insert(kernel.function);
  return {};
}

// Each kernel may begin while the one before it ends: it waits by itself where it needs what that one has
// left (wait_for_kernel_before).
Status LaunchList::launch_each(List& list) {
  std::array<void*, kMostArguments> arguments{};
  for (const Kernel& kernel : list.kernels) {
    NIB_TRY(allow_shared_memory(kernel));
    for (std::size_t i = 0; i < kernel.arguments; ++i)
      arguments[i] = list.bytes.data() + list.offsets[kernel.first_argument + i];
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(kernel.blocks));
    config.blockDim = dim3(static_cast<unsigned>(kernel.threads));
    config.dynamicSmemBytes = kernel.shared_bytes;
    config.stream = stream_;
    config.attrs = &early;
    config.numAttrs = overlaps_ ? 1 : 0;
    NIB_TRY(status_of(cudaLaunchKernelExC(&config, kernel.function, arguments.data()), "launching a kernel"));
  }
  return {};
}

Status LaunchList::make_graph(List& list) {
  NIB_TRY(status_of(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a graph"));
  const Status launched = launch_each(list);
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &recorded);
  if (!launched.ok() && recorded) cudaGraphDestroy(recorded);
  NIB_TRY(launched);
  NIB_TRY(status_of(ended, "recording a graph"));
  const cudaError_t made = cudaGraphInstantiate(&graph_, recorded, 0);
  if (made != cudaSuccess) graph_ = nullptr;
  cudaGraphDestroy(recorded);
  return status_of(made, "making a graph");
}

}  // namespace nib::inline v0::cuda
