// Room kernels: Device: a device that was opened through its library's table, as an object: its memory, its
// queue, its ops, with Status for errors.
#pragma once

#include <nibble/base/memory.hpp>
#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace nib::inline v0 {

// What a function of a device library answered.
Status device_status(std::int32_t code, const DeviceMessage& message);

// Everything but the allocators and pack() is for one thread at a time; what is asked for happens in order.
class Device {
 public:
  // Errors: argument (no such device), unsupported (no kernels for it), device_memory, device.
  static Result<std::unique_ptr<Device>> open(const DeviceLibrary& library, int index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFacts& facts() const { return facts_; }
  int index() const { return index_; }
  // Memory of the device, which the host cannot read; for Memory and Buffer, which it outlives.
  Allocator allocator();
  // Page-locked memory of the host, which the device can read, too.
  Allocator locked_allocator() const;
  // Bytes that nobody has taken. Errors: device.
  Result<std::uint64_t> free_memory() const;

  // Errors: device (it is lost, or of no more use to this process).
  Status upload(void* to, const void* from, std::size_t bytes) const;    // `from` may change afterwards
  Status download(void* to, const void* from, std::size_t bytes) const;  // and waits for all before it
  Status copy(void* to, const void* from, std::size_t bytes) const;
  Status clear(void* to, std::size_t bytes) const;

  // Part `index` of `count` of a matrix in the device's order: DeviceLibrary::pack. Any thread.
  Status pack(const PackedWeight& weight, DeviceRows rows, std::byte* out, int index, int count) const;

  const DeviceOps& ops() const { return library_.ops; }
  template <class Args>
  Status run(DeviceOp<Args> op, const OpContext& context, const Args& args) const {
    return call(op, &context, &args);
  }

 private:
  Device(const DeviceLibrary& library, int index) : library_(library), index_(index) {}
  template <class... Parameters, class... Arguments>
  Status call(std::int32_t (*function)(DeviceQueue*, Parameters...), const Arguments&... arguments) const {
    DeviceMessage message{};
    return device_status(function(queue_, arguments..., &message), message);
  }

  const DeviceLibrary& library_;
  int index_;
  DeviceFacts facts_{};
  DeviceQueue* queue_ = nullptr;
};

}  // namespace nib::inline v0
