// Devices as the CUDA runtime has them.
#include "device_queue.hpp"
#include <nibble/base/concat.hpp>

#include <cstring>
#include <memory>

namespace nib::inline v0::cuda {
namespace {

// Threads have a current device each.
Status enter(const DeviceQueue& queue) { return status_of(cudaSetDevice(queue.index), "choosing a device"); }

// Is there code for the device that is current? All kernels are there for the same ones as this.
NIB_KERNEL void empty_kernel() {}
Status check_code(const DeviceFacts& facts) {
  cudaFuncAttributes attributes{};
  const cudaError_t asked = cudaFuncGetAttributes(&attributes, empty_kernel);
  if (asked == cudaErrorNoKernelImageForDevice || asked == cudaErrorUnsupportedPtxVersion)
    return Status(Code::unsupported,
                  concat(facts.name, ": this library has no kernels for compute capability ", facts.major,
                         ".", facts.minor));
  return status_of(asked, "asking for kernels");
}

// For what is to be done after all that was asked for.
Status enter_behind(DeviceQueue& queue) {
  NIB_TRY(enter(queue));
  return queue.launches.flush();
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
  NIB_TRY(enter(*queue));
  NIB_TRY(check_code(facts));
  NIB_TRY(queue->launches.open(facts.major >= 9));
  queue->stream = &queue->launches;
  NIB_TRY(queue->ring.open());
  return queue.release();
}

void close_queue(DeviceQueue* queue) {
  if (cudaSetDevice(queue->index) == cudaSuccess) {
    queue->launches.close();
    queue->ring.close();
  }
  delete queue;
}

Result<std::uint64_t> free_memory(DeviceQueue& queue) {
  NIB_TRY(enter(queue));
  std::size_t free = 0, all = 0;
  NIB_TRY(status_of(cudaMemGetInfo(&free, &all), "asking for free memory"));
  return std::uint64_t{free};
}

void* allocate(DeviceQueue& queue, std::size_t bytes) {
  void* pointer = nullptr;
  if (!enter(queue).ok()) return nullptr;
  if (cudaMalloc(&pointer, bytes) == cudaSuccess) return pointer;
  static_cast<void>(cudaGetLastError());  // it is told; a later call shall not find it
  return nullptr;
}

void release(DeviceQueue& queue, void* pointer) {
  if (enter(queue).ok()) cudaFree(pointer);
}

Status upload(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  NIB_TRY(enter_behind(queue));
  return queue.ring.send(to, from, bytes, queue.launches.stream());
}

Status download(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  NIB_TRY(enter_behind(queue));
  const cudaStream_t stream = queue.launches.stream();
  if (bytes > 0)
    NIB_TRY(status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream),
                      "copying from the device"));
  return status_of(cudaStreamSynchronize(stream), "waiting for the device");
}

Status copy(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  NIB_TRY(enter_behind(queue));
  return status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue.launches.stream()),
                   "copying on the device");
}

Status clear(DeviceQueue& queue, void* to, std::size_t bytes) {
  NIB_TRY(enter_behind(queue));
  return status_of(cudaMemsetAsync(to, 0, bytes, queue.launches.stream()), "clearing memory of the device");
}

}  // namespace nib::inline v0::cuda
