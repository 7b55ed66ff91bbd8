// A device library as the core may meet it; NIB_FAKE_... says what is wrong with it.
#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstdlib>
#include <cstring>

namespace {

using namespace nib;

std::int32_t count(std::int32_t* out, DeviceMessage* message) {
#if defined(NIB_FAKE_devices)
  *out = 2;
  (void)message;
  return 0;
#elif defined(NIB_FAKE_failing)
  (void)out;
  std::memset(message->text, 'x', sizeof message->text);  // no end
  return static_cast<std::int32_t>(Code::device);
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

constexpr DeviceLibrary table() {
  DeviceLibrary table{};
  table.table_bytes = kBytes;
  table.interface = kInterface;
  table.version = kVersion;
  table.count = count;
  table.describe = describe;
  return table;
}

}  // namespace

extern "C" [[gnu::visibility("default")]] const DeviceLibrary nibble_device_library = table();
