#include "launch_list.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace nib::inline v0::cuda {

Status LaunchList::flush() {
  if (now_.kernels.empty()) return {};
  std::size_t at = find();
  const bool is_repeated = at < remembered_.size();
  if (!is_repeated) {
    remember();
    at = expected_;
  }
  now_.clear();  // whatever happens: nothing is launched twice
  expected_ = at + 1;
  Remembered& known = remembered_[at];
  known.used = ++flushes_;
  // A graph takes memory of the device, and there may be none left: its kernels, one by one, need none.
  if (is_repeated && !known.graph && graphs_work_) graphs_work_ = make_graph(known).ok();
  if (known.graph) {
    if (cudaGraphLaunch(known.graph, stream_) == cudaSuccess) return {};
    forget_graph(known);
    graphs_work_ = false;
  }
  return launch_each(known.list);
}

std::size_t LaunchList::find() const {
  const std::size_t count = remembered_.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = (expected_ + i) % count;
    if (remembered_[at].list == now_) return at;
  }
  return count;
}

// Allocates nothing: a list that is not remembered would be launched twice.
void LaunchList::remember() {
  const auto is_full = [&] {
    return remembered_.size() == kMostLists || kernels_ + now_.kernels.size() > kMostKernels;
  };
  while (!remembered_.empty() && is_full()) {
    const auto oldest =
        std::min_element(remembered_.begin(), remembered_.end(),
                         [](const Remembered& a, const Remembered& b) { return a.used < b.used; });
    forget(static_cast<std::size_t>(oldest - remembered_.begin()));
  }
  kernels_ += now_.kernels.size();
  const auto made = remembered_.emplace(remembered_.begin() + static_cast<std::ptrdiff_t>(expected_));
  std::swap(made->list, now_);
}

void LaunchList::forget(std::size_t index) {
  Remembered& of = remembered_[index];
  forget_graph(of);
  kernels_ -= of.list.kernels.size();
  remembered_.erase(remembered_.begin() + static_cast<std::ptrdiff_t>(index));
  if (index < expected_) --expected_;
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
  // A multiprocessor divides its memory between shared memory and cache for whoever runs there, and stands
  // empty before it divides it anew: kernels that are to begin while others end have to want the same.
  if (overlaps_)
    NIB_TRY(status_of(cudaFuncSetAttribute(kernel.function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                           cudaSharedmemCarveoutMaxShared),
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

Status LaunchList::make_graph(Remembered& of) {
  NIB_TRY(status_of(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a graph"));
  const Status launched = launch_each(of.list);
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &recorded);
  if (!launched.ok() && recorded) cudaGraphDestroy(recorded);
  NIB_TRY(launched);
  NIB_TRY(status_of(ended, "recording a graph"));
  const cudaError_t made = cudaGraphInstantiate(&of.graph, recorded, 0);
  if (made != cudaSuccess) of.graph = nullptr;
  cudaGraphDestroy(recorded);
  return status_of(made, "making a graph");
}

}  // namespace nib::inline v0::cuda
