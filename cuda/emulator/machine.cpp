// Two devices that are not there: one with tensor cores, one without. Their memory is the host's, filled with
// NaN where it is new; what is asked of them has happened when the call returns.
#include "../device_queue.hpp"
#include <nibble/base/concat.hpp>

#include <cstdlib>
#include <cstring>
#include <string_view>

namespace nib::inline v0::cuda {
namespace {

constexpr int kDevices = 2;
constexpr std::uint64_t kMemory = std::uint64_t{1} << 30;
constexpr std::size_t kAlignment = 256;  // and room for the size of a block

}  // namespace

Result<int> count_devices() { return kDevices; }

Result<DeviceFacts> describe_device(int index) {
  if (index < 0 || index >= kDevices)
    return Status(Code::argument, concat("device ", index, ": there are ", kDevices));
  constexpr std::string_view names[] = {"emulated device with tensor cores",
                                        "emulated device without tensor cores"};
  DeviceFacts facts{};
  names[index].copy(facts.name, sizeof facts.name - 1);
  facts.major = index == 0 ? 9 : 7;
  facts.minor = index == 0 ? 0 : 5;
  facts.processors = 3;
  facts.fast = index == 0;
  facts.memory = kMemory;
  return facts;
}

Result<DeviceQueue*> open_queue(int index) {
  NIB_ASSIGN(const DeviceFacts facts, describe_device(index));
  auto queue = std::make_unique<DeviceQueue>();
  queue->emulator = std::make_unique<simt::Emulator>(1);
  queue->stream = queue->emulator.get();
  queue->processors = facts.processors;
  queue->tensor_cores = facts.major >= 8;
  queue->fast_kernels = facts.fast != 0;
  return queue.release();
}

void close_queue(DeviceQueue* queue) { delete queue; }

Result<std::uint64_t> free_memory(DeviceQueue& queue) { return kMemory - queue.in_use; }

void* allocate(DeviceQueue& queue, std::size_t bytes) {
  if (bytes > kMemory - queue.in_use) return nullptr;
  void* block = std::aligned_alloc(kAlignment, (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment);
  if (!block) return nullptr;
  queue.in_use += bytes;
  std::memcpy(block, &bytes, sizeof bytes);
  auto* const memory = static_cast<std::byte*>(block) + kAlignment;
  std::memset(memory, 0xff, bytes);
  return memory;
}

void release(DeviceQueue& queue, void* pointer) {
  if (!pointer) return;
  void* block = static_cast<std::byte*>(pointer) - kAlignment;
  std::size_t bytes = 0;
  std::memcpy(&bytes, block, sizeof bytes);
  queue.in_use -= bytes;
  std::free(block);
}

void* allocate_locked(DeviceQueue&, std::size_t bytes) {
  void* const memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return memory ? std::memset(memory, 0xff, bytes) : nullptr;
}
void release_locked(DeviceQueue&, void* pointer) { std::free(pointer); }

Status upload(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  return copy(queue, to, from, bytes);
}
Status download(DeviceQueue& queue, void* to, const void* from, std::size_t bytes) {
  return copy(queue, to, from, bytes);
}
Status copy(DeviceQueue&, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return {};
}
Status clear(DeviceQueue&, void* to, std::size_t bytes) {
  if (bytes > 0) std::memset(to, 0, bytes);
  return {};
}

}  // namespace nib::inline v0::cuda
