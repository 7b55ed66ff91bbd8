// Devices as the CUDA runtime has them.
#include "device_queue.hpp"
#include <nibble/base/concat.hpp>

#include <cstring>
#include <memory>

namespace nib::inline v0::cuda {
namespace {

// Makes a device the current one of this thread, and at the end what was current before: the caller's program
// may use CUDA, too. What was, is asked of the driver, which knows of threads that have none; cudaSetDevice
// would wake up device 0 for those.
class Entered {
 public:
  explicit Entered(int device)
      : knows_(functions().get && functions().set && functions().get(&before_) == 0),
        status_(status_of(cudaSetDevice(device), "choosing a device")) {}
  ~Entered() {
    if (knows_) functions().set(before_);
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  const Status& status() const { return status_; }

 private:
  struct Functions {
    int (*get)(void** context) = nullptr;  // cuCtxGetCurrent
    int (*set)(void* context) = nullptr;   // cuCtxSetCurrent
  };
  static const Functions& functions() {
    static const Functions found = [] {
      Functions out;
      const auto find = [](const char* name, auto& function) {
        void* address = nullptr;
        cudaDriverEntryPointQueryResult result{};
        if (cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &result) ==
                cudaSuccess &&
            result == cudaDriverEntryPointSuccess)
          std::memcpy(&function, &address, sizeof address);
      };
      find("cuCtxGetCurrent", out.get);
      find("cuCtxSetCurrent", out.set);
      return out;
    }();
    return found;
  }

  void* before_ = nullptr;
  bool knows_;
  Status status_;
};

// Is there code for the device that is current? All kernels are there for the same ones as this. (The runtime
// says of a function that it is invalid, too, where it is "not compiled for the proper device architecture".)
NIB_KERNEL void empty_kernel() {}
Status check_code(const DeviceFacts& facts) {
  cudaFuncAttributes attributes{};
  const cudaError_t asked = cudaFuncGetAttributes(&attributes, empty_kernel);
  if (asked == cudaErrorNoKernelImageForDevice || asked == cudaErrorInvalidDeviceFunction ||
      asked == cudaErrorUnsupportedPtxVersion)
    return Status(Code::unsupported,
                  concat(facts.name, ": this library has no kernels for compute capability ", facts.major,
                         ".", facts.minor));
  return status_of(asked, "asking for kernels");
}

// For what is to be done on a device after all that was asked for.
template <class Work>
Status behind(DeviceQueue& queue, const Work& work) {
  const Entered entered(queue.index);
  NIB_TRY(entered.status());
  NIB_TRY(queue.launches.flush());
  return work(queue.launches.stream());
}

}  // namespace

Result<int> count_devices() {
  int count = 0;
  NIB_TRY(status_of(cudaGetDeviceCount(&count), "counting devices"));
  if (count < 1) return status_of(cudaErrorNoDevice, "counting devices");
  return count;
}

Result<DeviceFacts> describe_device(int index) {
  cudaDeviceProp found;
  NIB_TRY(status_of(cudaGetDeviceProperties(&found, index), "asking what a device is"));
  DeviceFacts facts{};
  static_assert(sizeof facts.name <= sizeof found.name);
  std::memcpy(facts.name, found.name, sizeof facts.name - 1);
  facts.major = found.major;
  facts.minor = found.minor;
  facts.processors = found.multiProcessorCount;
  facts.fast = found.major == 9 && found.minor == 0;  // sm_90a is no other one
  facts.memory = found.totalGlobalMem;
  return facts;
}

Result<DeviceQueue*> open_queue(int index) {
  NIB_ASSIGN(const DeviceFacts facts, describe_device(index));
  struct Close {
    void operator()(DeviceQueue* queue) const { close_queue(queue); }
  };
  std::unique_ptr<DeviceQueue, Close> queue(new DeviceQueue{});
  queue->index = index;
  queue->processors = facts.processors;
  queue->tensor_cores = facts.major >= 8;
  queue->fast_kernels = facts.fast != 0;
  const Entered entered(index);
  NIB_TRY(entered.status());
  NIB_TRY(check_code(facts));
  NIB_TRY(status_of(
      cudaDeviceGetAttribute(&queue->shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, index),
      "asking for shared memory"));
  NIB_TRY(queue->launches.open(facts.major >= 9));
  queue->stream = &queue->launches;
  NIB_TRY(queue->ring.open());
  return queue.release();
}

void close_queue(DeviceQueue* queue) {
  const Entered entered(queue->index);
  if (entered.status().ok()) {
    queue->launches.close();
    queue->ring.close();
  }
  delete queue;
}

Result<std::uint64_t> free_memory(DeviceQueue& queue) {
  const Entered entered(queue.index);
  NIB_TRY(entered.status());
  std::size_t free = 0, all = 0;
  NIB_TRY(status_of(cudaMemGetInfo(&free, &all), "asking for free memory"));
  return std::uint64_t{free};
}

void* allocate(DeviceQueue& queue, std::size_t bytes) {
  const Entered entered(queue.index);
  void* pointer = nullptr;
  if (!entered.status().ok()) return nullptr;
  if (cudaMalloc(&pointer, bytes) == cudaSuccess) return pointer;
  static_cast<void>(cudaGetLastError());  // it is told; a later call shall not find it
  return nullptr;
}

void release(DeviceQueue& queue, void* pointer) {
  const Entered entered(queue.index);
  if (entered.status().ok()) cudaFree(pointer);
}

// Mapped memory has one address for the host and all devices wherever there is one address space, as on every
// system of 64 bits that CUDA 13 runs on.
void* allocate_locked(DeviceQueue& queue, std::size_t bytes) {
  const Entered entered(queue.index);
  void* pointer = nullptr;
  if (!entered.status().ok()) return nullptr;
  if (cudaHostAlloc(&pointer, bytes, cudaHostAllocMapped) == cudaSuccess) return pointer;
  static_cast<void>(cudaGetLastError());
  return nullptr;
}

void release_locked(DeviceQueue& queue, void* pointer) {
  const Entered entered(queue.index);
  if (entered.status().ok()) cudaFreeHost(pointer);
}

Status upload(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  return behind(queue, [&](cudaStream_t stream) { return queue.ring.send(to, from, bytes, stream); });
}

Status download(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  return behind(queue, [&](cudaStream_t stream) -> Status {
    if (bytes > 0)
      NIB_TRY(status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream),
                        "copying from the device"));
    return status_of(cudaStreamSynchronize(stream), "waiting for the device");
  });
}

Status copy(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  return behind(queue, [&](cudaStream_t stream) {
    return status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream),
                     "copying on the device");
  });
}

Status clear(DeviceQueue& queue, void* to, std::size_t bytes) {
  return behind(queue, [&](cudaStream_t stream) {
    return status_of(cudaMemsetAsync(to, 0, bytes, stream), "clearing memory of the device");
  });
}

}  // namespace nib::inline v0::cuda
