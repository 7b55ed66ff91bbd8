// A device library as the core may meet it; NIB_FAKE_... says what is wrong with it. `idle` is the one on
// which models open: its memory is the host's, and its ops do nothing, so that its layers change no
// activation; `unlocked` is the same without page-locked memory.
#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstdlib>
#include <cstring>

namespace {

using namespace nib;

std::int32_t count(std::int32_t* out, DeviceMessage* message) {
#if defined(NIB_FAKE_devices) || defined(NIB_FAKE_full) || defined(NIB_FAKE_idle) || \
    defined(NIB_FAKE_unlocked)
  *out = 2;
  (void)message;
  return 0;
#elif defined(NIB_FAKE_failing)
  (void)out;
  std::memset(message->text, 'x', sizeof message->text);  // no end
  return static_cast<std::int32_t>(Code::device);
#elif defined(NIB_FAKE_absent)
  (void)out;
  std::strcpy(message->text, "there is no NVIDIA driver");
  return static_cast<std::int32_t>(Code::unsupported);
#else
  (void)out, (void)message;
  std::abort();  // a table that is not the core's is not called
#endif
}

std::int32_t describe(std::int32_t index, DeviceFacts* out, DeviceMessage*) {
  *out = {};
  std::strcpy(out->name, index == 0 ? "Fake 9000" : "Fake 7500");
  out->major = index == 0 ? 9 : 7;
  out->minor = index == 0 ? 0 : 5;
  out->processors = 132;
  out->fast = index == 0;
  out->memory = std::uint64_t{139} << 30;
  return 0;
}

#if defined(NIB_FAKE_interface)
constexpr std::uint32_t kBytes = sizeof(DeviceLibrary), kInterface = kDeviceInterface + 1,
                        kVersion = kDeviceVersion;
#elif defined(NIB_FAKE_version)
constexpr std::uint32_t kBytes = sizeof(DeviceLibrary), kInterface = kDeviceInterface, kVersion = 12'345'678;
#elif defined(NIB_FAKE_size)
constexpr std::uint32_t kBytes = 12, kInterface = kDeviceInterface, kVersion = kDeviceVersion;
#else
constexpr std::uint32_t kBytes = sizeof(DeviceLibrary), kInterface = kDeviceInterface,
                        kVersion = kDeviceVersion;
#endif

std::int32_t open(std::int32_t index, DeviceQueue** out, DeviceMessage*) {
  static int queues[2];
  *out = reinterpret_cast<DeviceQueue*>(&queues[index]);
  return 0;
}
void close(DeviceQueue*) {}
std::int32_t free_memory(DeviceQueue*, std::uint64_t* out, DeviceMessage*) {
#if defined(NIB_FAKE_full)
  *out = 1000;
#else
  *out = std::uint64_t{100} << 30;
#endif
  return 0;
}
void* allocate(DeviceQueue*, std::size_t bytes) {
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return memory ? std::memset(memory, 0, bytes) : nullptr;
}
void release(DeviceQueue*, void* pointer) { std::free(pointer); }
void* allocate_locked(DeviceQueue* queue, std::size_t bytes) {
#if defined(NIB_FAKE_unlocked)
  (void)queue, (void)bytes;
  return nullptr;
#else
  return allocate(queue, bytes);
#endif
}
std::int32_t transfer(DeviceQueue*, void* to, const void* from, std::size_t bytes, DeviceMessage*) {
  if (bytes) std::memcpy(to, from, bytes);
  return 0;
}
std::int32_t clear(DeviceQueue*, void* to, std::size_t bytes, DeviceMessage*) {
  if (bytes) std::memset(to, 0, bytes);
  return 0;
}
std::int32_t pack(const PackedWeight*, DeviceRows, std::byte*, std::int32_t, std::int32_t, DeviceMessage*) {
  return 0;
}
template <class Args>
std::int32_t nothing(DeviceQueue*, const OpContext*, const Args*, DeviceMessage*) {
  return 0;
}

constexpr DeviceLibrary table() {
  DeviceLibrary made{};
  made.table_bytes = kBytes;
  made.interface = kInterface;
  made.version = kVersion;
  made.count = count;
  made.describe = describe;
  made.open = open;
  made.close = close;
  made.free_memory = free_memory;
  made.allocate = allocate;
  made.release = release;
  made.allocate_locked = allocate_locked;
  made.release_locked = release;
  made.upload = made.download = made.copy = transfer;
  made.clear = clear;
  made.pack = pack;
  made.ops = {nothing<QkvArgs>,     nothing<AttentionArgs>, nothing<ProjectArgs>, nothing<RouteArgs>,
              nothing<ExpertsArgs>, nothing<HeadArgs>,      nothing<DigestArgs>};
  return made;
}

}  // namespace

extern "C" {
[[gnu::visibility("default")]] extern const DeviceLibrary nibble_device_library;
const DeviceLibrary nibble_device_library = table();
}
