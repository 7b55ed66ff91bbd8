#include "launch_list.hpp"

#include <utility>

namespace nib::inline v0::cuda {

Status LaunchList::flush() {
  if (now_.kernels.empty()) return {};
  if (!(now_ == before_)) {
    forget_graph();
    NIB_TRY(launch_each(now_));
  } else {
    if (!graph_) NIB_TRY(make_graph(now_));
    NIB_TRY(status_of(cudaGraphLaunch(graph_, stream_), "launching a graph"));
  }
  std::swap(now_, before_);
  now_.clear();
  return {};
}

Status LaunchList::allow_shared_memory(const Kernel& kernel) {
  if (!known_.insert(kernel.function).second) return {};
  int device = 0, most = 0;
  NIB_TRY(status_of(cudaGetDevice(&device), "asking for the device"));
  NIB_TRY(status_of(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                    "asking for shared memory"));
  cudaFuncAttributes attributes{};
  NIB_TRY(status_of(cudaFuncGetAttributes(&attributes, kernel.function), "asking about a kernel"));
  return status_of(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        most - static_cast<int>(attributes.sharedSizeBytes)),
                   "asking for shared memory");
}

// Each kernel may begin while the one before it ends: it waits by itself where it needs what that one has
// left (wait_for_kernel_before).
Status LaunchList::launch_each(List& list) {
  std::vector<void*> arguments;
  for (const Kernel& kernel : list.kernels) {
    NIB_TRY(allow_shared_memory(kernel));
    arguments.clear();
    for (std::size_t i = 0; i < kernel.arguments; ++i)
      arguments.push_back(list.bytes.data() + list.offsets[kernel.first_argument + i]);
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
  NIB_TRY(launched);
  NIB_TRY(status_of(ended, "recording a graph"));
  const cudaError_t made = cudaGraphInstantiate(&graph_, recorded, 0);
  cudaGraphDestroy(recorded);
  return status_of(made, "making a graph");
}

}  // namespace nib::inline v0::cuda
