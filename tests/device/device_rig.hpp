// The devices that models are tested on, and ways to place a model on them: the emulated ones; or, where
// NIBBLE_TEST_CUDA_LIBRARY names libnibble-cuda.so, those of this computer.
#pragma once

#include "support/model_rig.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <dlfcn.h>

extern "C" const nib::DeviceLibrary nibble_device_library;  // the emulated one

namespace nib::test {

inline const std::string kTalesFolder = NIBBLE_TALES;  // set by CMake
inline const DeviceLibrary& device_library() {
  static const DeviceLibrary& library = []() -> const DeviceLibrary& {
    const char* path = std::getenv("NIBBLE_TEST_CUDA_LIBRARY");
    if (!path) return nibble_device_library;
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    REQUIRE_MESSAGE(handle, dlerror());
    const auto* table = static_cast<const DeviceLibrary*>(dlsym(handle, kDeviceLibrarySymbol));
    REQUIRE(table);
    REQUIRE(table->version == kDeviceVersion);
    REQUIRE(table->interface == kDeviceInterface);
    return *table;
  }();
  return library;
}
// Both of the emulated ones, with tensor cores and without; or the first of this computer.
inline std::vector<int> devices() {
  return &device_library() == &nibble_device_library ? std::vector<int>{0, 1} : std::vector<int>{0};
}

inline Placement all_there(const ModelConfig& config) {
  return Placement::of_last(config.layers, config.layers + 1, false);
}
inline Placement fast_there(const ModelConfig& config) {
  Placement placement = all_there(config);
  placement.may_be_fast = true;
  return placement;
}
inline Placement experts_here(const ModelConfig& config) {
  return Placement::of_last(config.layers, config.layers + 1, true);
}
// Halves of layers in turn, each beginning with x where it is not.
inline Placement zigzag(const ModelConfig& config) {
  Placement placement;
  placement.head = config.layers % 2 ? Place::host : Place::device;
  for (std::uint32_t l = 0; l < config.layers; ++l)
    placement.layers.push_back(l % 2 ? LayerPlacement{Place::device, Place::host}
                                     : LayerPlacement{Place::host, Place::device});
  return placement;
}

// The library, but for routers that write down what they chose, alone or behind a projection. One at a time.
class DeviceRouteRecorder {
 public:
  DeviceRouteRecorder() {
    library_.ops.route = route;
    library_.ops.project = project;
    choices_.clear();
  }
  const DeviceLibrary& library() const { return library_; }
  // As RouteRecorder has them.
  static const std::vector<std::vector<std::int32_t>>& choices() { return choices_; }

 private:
  static std::int32_t route(DeviceQueue* queue, const OpContext* context, const RouteArgs* args,
                            DeviceMessage* message) {
    const std::int32_t code = device_library().ops.route(queue, context, args, message);
    return code != 0 || !args->weight ? code : record(queue, *args, message);
  }
  static std::int32_t project(DeviceQueue* queue, const OpContext* context, const ProjectArgs* args,
                              DeviceMessage* message) {
    const std::int32_t code = device_library().ops.project(queue, context, args, message);
    return code != 0 || !args->route ? code : record(queue, *args->route, message);
  }
  static std::int32_t record(DeviceQueue* queue, const RouteArgs& args, DeviceMessage* message) {
    const auto each = static_cast<std::size_t>(args.experts_per_token),
               rows = static_cast<std::size_t>(args.rows);
    std::vector<std::int32_t> chosen(rows * each);
    const std::int32_t code = device_library().download(queue, chosen.data(), args.routing.chosen,
                                                        chosen.size() * sizeof(std::int32_t), message);
    for (std::size_t r = 0; r < rows; ++r)
      std::sort(chosen.begin() + static_cast<std::ptrdiff_t>(r * each),
                chosen.begin() + static_cast<std::ptrdiff_t>((r + 1) * each));
    choices_.push_back(std::move(chosen));
    return code;
  }

  DeviceLibrary library_ = device_library();
  static inline std::vector<std::vector<std::int32_t>> choices_;
};

}  // namespace nib::test
