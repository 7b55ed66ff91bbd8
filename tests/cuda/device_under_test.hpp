// What kernels are tested on: its memory, and its queue. That is the emulator, and the first CUDA device of
// this computer where the same tests are compiled as CUDA (test_cuda_on_device).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

#include <cuda/machine.hpp>
#include <cuda/queue.hpp>

namespace nib::test {

#if defined(__CUDACC__)

// Memory of the device that the host reads and writes, too, while the device has nothing to do. At multiples
// of 256. Throws std::bad_alloc.
inline void* allocate_for_device(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocManaged(&memory, std::max<std::size_t>(bytes, 1)) != cudaSuccess) throw std::bad_alloc();
  return memory;
}
inline void free_of_device(void* memory) noexcept { cudaFree(memory); }

// Device 0. It deals turns to threads as it likes: the seed is the emulator's.
class DeviceUnderTest {
 public:
  explicit DeviceUnderTest(std::uint64_t) : opened_(open()) {}
  ~DeviceUnderTest() { launches_.close(); }
  DeviceUnderTest(const DeviceUnderTest&) = delete;
  DeviceUnderTest& operator=(const DeviceUnderTest&) = delete;

  cuda::Queue queue(int processors, bool tensor_cores) {
    return {&launches_, processors, tensor_cores && has_tensor_cores_};
  }
  // Whether a queue may be given kernels of the fast class.
  bool has_fast_kernels() const { return has_fast_kernels_; }
  // Until what was asked for has ended. Errors: the device's; then `asked`, which is what the op answered.
  Status wait(const Status& asked) {
    NIB_TRY(opened_);
    NIB_TRY(launches_.flush());
    NIB_TRY(cuda::status_of(cudaStreamSynchronize(launches_.stream()), "waiting for the device"));
    return asked;
  }

 private:
  Status open() {
    NIB_ASSIGN(const DeviceFacts facts, cuda::describe_device(0));
    has_tensor_cores_ = facts.major >= 8;
    has_fast_kernels_ = facts.fast != 0;
    return launches_.open(facts.major >= 9);
  }

  cuda::LaunchList launches_;
  bool has_tensor_cores_ = false, has_fast_kernels_ = false;
  Status opened_;
};

#else

inline void* allocate_for_device(std::size_t bytes) {
  return ::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{256});
}
inline void free_of_device(void* memory) noexcept { ::operator delete (memory, std::align_val_t{256}); }

// Whose launches have ended when the call returns.
class DeviceUnderTest {
 public:
  explicit DeviceUnderTest(std::uint64_t seed) : emulator_(seed) {}
  cuda::Queue queue(int processors, bool tensor_cores) { return {&emulator_, processors, tensor_cores}; }
  bool has_fast_kernels() const { return true; }
  Status wait(const Status& asked) { return asked; }

 private:
  simt::Emulator emulator_;
};

#endif

// Ops on a device as if it had so many multiprocessors, and with its tensor cores, if it has any, or without
// them.
struct TestQueue {
  DeviceUnderTest* device;
  int processors;
  bool tensor_cores;
  bool fast = false;  // what is asked of it may be of the fast class

  // op(queue, arguments...), and waits until its results are there.
  template <class... Parameters>
  Status run(Status (*op)(const cuda::Queue&, Parameters...),
             const std::type_identity_t<std::remove_cvref_t<Parameters>>&... arguments) const {
    cuda::Queue queue = device->queue(processors, tensor_cores);
    queue.fast_kernels = fast && device->has_fast_kernels();
    return device->wait(op(queue, arguments...));
  }
};

template <class T>
struct DeviceAllocator {
  using value_type = T;
  DeviceAllocator() = default;
  template <class U>
  DeviceAllocator(const DeviceAllocator<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(allocate_for_device(count * sizeof(T))); }
  void deallocate(T* memory, std::size_t) { free_of_device(memory); }
  bool operator==(const DeviceAllocator&) const = default;
};

// Of numbers that kernels read or write.
template <class T>
using DeviceVector = std::vector<T, DeviceAllocator<T>>;

}  // namespace nib::test
