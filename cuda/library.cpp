// The one symbol of libnibble-cuda.so: its table of functions.
#include "answer.hpp"

#include <cstring>
#include <exception>

namespace nib::inline v0::cuda {
namespace {

// Runs `body` (a Status) and answers as the table's functions do: no exception leaves the library.
template <class Body>
std::int32_t answer(DeviceMessage* message, const Body& body) {
  const auto say = [&](Code code, const char* text) {
    std::strncpy(message->text, text, sizeof message->text - 1);
    message->text[sizeof message->text - 1] = 0;
    return static_cast<std::int32_t>(code);
  };
  try {
    const Status status = body();
    return status.ok() ? static_cast<std::int32_t>(Code::ok) : say(status.code(), status.message().c_str());
  } catch (const std::bad_alloc&) {
    return say(Code::memory, "out of memory");
  } catch (const std::exception& error) {
    return say(Code::internal, error.what());
  }
}

std::int32_t count_devices(std::int32_t* out, DeviceMessage* message) {
  return answer(message, [&]() -> Status {
    int count = 0;
    NIB_TRY(status_of(cudaGetDeviceCount(&count), "counting devices"));
    if (count < 1) return status_of(cudaErrorNoDevice, "counting devices");
    *out = count;
    return {};
  });
}

std::int32_t describe_device(std::int32_t index, DeviceFacts* out, DeviceMessage* message) {
  return answer(message, [&]() -> Status {
    cudaDeviceProp found;
    NIB_TRY(status_of(cudaGetDeviceProperties(&found, index), "asking what a device is"));
    DeviceFacts facts{};
    static_assert(sizeof facts.name <= sizeof found.name);
    std::memcpy(facts.name, found.name, sizeof facts.name - 1);
    facts.major = found.major;
    facts.minor = found.minor;
    facts.processors = found.multiProcessorCount;
    facts.memory = found.totalGlobalMem;
    *out = facts;
    return {};
  });
}

}  // namespace
}  // namespace nib::inline v0::cuda

extern "C" [[gnu::visibility("default")]] const nib::DeviceLibrary nibble_device_library = {
    sizeof(nib::DeviceLibrary), nib::kDeviceInterface,      nib::kDeviceVersion,
    nib::cuda::count_devices,   nib::cuda::describe_device,
};
