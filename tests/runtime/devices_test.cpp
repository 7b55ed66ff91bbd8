// Devices are found through a library that is opened, asked whether it is the right one, and only then used.
#include <nibble/kernels/device_library.hpp>
#include <nibble/runtime/devices.hpp>

#include <cstddef>
#include <string>

#include <dlfcn.h>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

// What the core reads of a library that it does not know.
static_assert(offsetof(DeviceLibrary, table_bytes) == 0 && offsetof(DeviceLibrary, interface) == 4 &&
              offsetof(DeviceLibrary, version) == 8);

void check_refused(const char* place, Code code, const char* text) {
  const DeviceSearch search = find_cuda_devices(place);
  CAPTURE(search.status.message());
  CHECK(search.devices.empty());
  CHECK(search.status.code() == code);
  CHECK(search.status.message().find(text) != std::string::npos);
}

TEST_CASE("devices: a library that is missing, broken, or none of ours") {
  check_refused("/no/such/library.so", Code::not_found, "/no/such/library.so");
  check_refused("/usr", Code::not_found, "/usr/libnibble-cuda.so");
  check_refused(NIBBLE_TALES "/config.json", Code::not_found, "invalid ELF header");
  check_refused(NIBBLE_OTHER_LIBRARY, Code::version, "is no device library of nibble");
}

TEST_CASE("devices: nothing of a library of another version is called") {
  check_refused(NIBBLE_FAKE_version, Code::version, "belongs to nibble 12.345.678");
  check_refused(NIBBLE_FAKE_interface, Code::version, "interface");
  check_refused(NIBBLE_FAKE_size, Code::version, "belongs to nibble");
}

TEST_CASE("devices: what the library says arrives") {
  const DeviceSearch search = find_cuda_devices(NIBBLE_FAKE_devices);
  REQUIRE(search.status.ok());
  CHECK(search.library == NIBBLE_FAKE_devices);
  REQUIRE(search.devices.size() == 2);
  CHECK(search.devices[0].name == "Fake 9000");
  CHECK(search.devices[0].compute_major == 9);
  CHECK(search.devices[1].compute_minor == 5);
  CHECK(search.devices[1].processors == 132);
  CHECK(search.devices[1].memory == std::uint64_t{139} << 30);
}

TEST_CASE("devices: a message without an end is cut") {
  const DeviceSearch search = find_cuda_devices(NIBBLE_FAKE_failing);
  CHECK(search.status.code() == Code::device);
  CHECK(search.status.message() == std::string(sizeof(DeviceMessage), 'x'));
}

TEST_CASE("devices: no place named") {
  // Whatever this computer has, the answer is one or the other.
  const DeviceSearch search = find_cuda_devices();
  CHECK(search.status.ok() == !search.devices.empty());
  CHECK(search.library.ends_with("libnibble-cuda.so"));
}

#if defined(NIBBLE_CUDA_LIBRARY)
TEST_CASE("devices: the library itself, here") {
  const DeviceSearch search = find_cuda_devices(NIBBLE_CUDA_LIBRARY);
  CAPTURE(search.status.message());
  if (void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    CHECK((search.status.ok() || search.status.code() == Code::unsupported));
    for (const DeviceInfo& device : search.devices) CHECK((device.compute_major >= 7 && device.memory > 0));
    dlclose(driver);
  } else {
    CHECK(search.status.code() == Code::unsupported);
    CHECK(search.status.message() == "there is no NVIDIA driver");
  }
}
#endif

}  // namespace
}  // namespace nib::test
