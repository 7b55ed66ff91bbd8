// Room runtime: which devices beside the processor this computer has, and if none, why.
#pragma once

#include <nibble/base/status.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct DeviceInfo {
  std::string name;  // "NVIDIA H200"
  int compute_major, compute_minor;
  int processors;        // streaming multiprocessors
  std::uint64_t memory;  // bytes in all
};

struct DeviceSearch {
  std::string library;              // the file that was opened, or that was looked for
  std::vector<DeviceInfo> devices;  // at least one if `status` is ok
  // not_found: there is no such library, or it cannot be loaded; version: it belongs to another nibble;
  // unsupported: no driver, or one that is too old, or no device; device: asking failed.
  Status status;
};

// Opens nibble's CUDA library and asks it for devices. `place`: the library's file, or the folder that holds
// it; empty: the folder of the program or library that this function was linked into, then wherever the
// system looks for libraries. The library stays loaded. The driver may take a second to wake up; any thread.
DeviceSearch find_cuda_devices(std::string_view place = {});

}  // namespace nib::inline v0
