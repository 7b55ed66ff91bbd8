#include <nibble/kernels/device.hpp>

#include <cstring>

namespace nib::inline v0 {

Status device_status(std::int32_t code, const DeviceMessage& message) {
  if (code == static_cast<std::int32_t>(Code::ok)) return {};
  return Status(static_cast<Code>(code),
                std::string(message.text, strnlen(message.text, sizeof message.text)));
}

Result<std::unique_ptr<Device>> Device::open(const DeviceLibrary& library, int index) {
  std::unique_ptr<Device> device(new Device(library, index));
  DeviceMessage message{};
  NIB_TRY(device_status(library.describe(index, &device->facts_, &message), message));
  NIB_TRY(device_status(library.open(index, &device->queue_, &message), message));
  return device;
}

Device::~Device() {
  if (queue_) library_.close(queue_);
}

Allocator Device::allocator() {
  return {[](void* user, std::size_t bytes, std::size_t) -> void* {
            const Device& device = *static_cast<Device*>(user);
            return device.library_.allocate(device.queue_, bytes);
          },
          [](void* user, void* pointer, std::size_t) {
            const Device& device = *static_cast<Device*>(user);
            device.library_.release(device.queue_, pointer);
          },
          this};
}

Allocator Device::locked_allocator() const {
  return {[](void* user, std::size_t bytes, std::size_t) -> void* {
            const Device& device = *static_cast<const Device*>(user);
            return device.library_.allocate_locked(device.queue_, bytes);
          },
          [](void* user, void* pointer, std::size_t) {
            const Device& device = *static_cast<const Device*>(user);
            device.library_.release_locked(device.queue_, pointer);
          },
          const_cast<Device*>(this)};
}

Result<std::uint64_t> Device::free_memory() const {
  std::uint64_t bytes = 0;
  NIB_TRY(call(library_.free_memory, &bytes));
  return bytes;
}

Status Device::upload(void* to, const void* from, std::size_t bytes) const {
  return call(library_.upload, to, from, bytes);
}
Status Device::download(void* to, const void* from, std::size_t bytes) const {
  return call(library_.download, to, from, bytes);
}
Status Device::copy(void* to, const void* from, std::size_t bytes) const {
  return call(library_.copy, to, from, bytes);
}
Status Device::clear(void* to, std::size_t bytes) const { return call(library_.clear, to, bytes); }

Status Device::pack(const PackedWeight& weight, DeviceRows rows, std::byte* out, int index, int count) const {
  DeviceMessage message{};
  return device_status(library_.pack(&weight, rows, out, index, count, &message), message);
}

}  // namespace nib::inline v0
