// Room kernels: what a library with kernels for a device, opened at run time, hands over: one table of C
// functions under one name.
//
// Library and core are built from the same sources or do not work together at all: the core reads the first
// three fields, which keep their places for ever, and calls nothing unless they are exactly its own.
#pragma once

#include <nibble/version.hpp>

#include <cstdint>

namespace nib::inline v0 {

// Grows with every change of this file, and of anything that both sides take to be the same.
inline constexpr std::uint32_t kDeviceInterface = 1;
// Major, minor and patch of this nibble, three digits each.
inline constexpr std::uint32_t kDeviceVersion =
    NIBBLE_VERSION_MAJOR * 1'000'000 + NIBBLE_VERSION_MINOR * 1'000 + NIBBLE_VERSION_PATCH;

// A sentence for Status, zero-terminated, cut where it is too long.
struct DeviceMessage {
  char text[256];
};

// One device, as DeviceLibrary::describe fills it in.
struct DeviceFacts {
  char name[128];             // "NVIDIA H200", zero-terminated
  std::int32_t major, minor;  // of the compute capability
  std::int32_t processors;    // streaming multiprocessors
  std::int32_t reserved;      // zero
  std::uint64_t memory;       // bytes in all
};

// All functions return a Code as its number, and unless it is Code::ok fill in the message and leave the
// other outputs alone. Any thread.
struct DeviceLibrary {
  std::uint32_t table_bytes;  // sizeof(DeviceLibrary)
  std::uint32_t interface;    // kDeviceInterface
  std::uint32_t version;      // kDeviceVersion

  // How many devices there are, at least one. Errors: unsupported (no driver, one that is too old, no device:
  // the message says which), device.
  std::int32_t (*count)(std::int32_t* out, DeviceMessage* message);
  // Device `index` of them. Errors: argument, device.
  std::int32_t (*describe)(std::int32_t index, DeviceFacts* out, DeviceMessage* message);
};

// The name under which a library exports its table, a constant of type DeviceLibrary.
inline constexpr char kDeviceLibrarySymbol[] = "nibble_device_library";

}  // namespace nib::inline v0
