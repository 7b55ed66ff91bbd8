// What is left on a device when a pass ends early.
#include "device_rig.hpp"

#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// The library, but for the second projection, which fails; counts how often it is waited for after that.
class FailingProjection {
 public:
  FailingProjection() {
    library_.ops.project = project;
    library_.download = download;
    projections_ = waits_ = 0;
  }
  const DeviceLibrary& library() const { return library_; }
  static int waits() { return waits_; }

 private:
  static std::int32_t project(DeviceQueue* queue, const OpContext* context, const ProjectArgs* args,
                              DeviceMessage* message) {
    if (++projections_ != 2) return device_library().ops.project(queue, context, args, message);
    waits_ = 0;
    return static_cast<std::int32_t>(Code::device);
  }
  static std::int32_t download(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                               DeviceMessage* message) {
    ++waits_;
    return device_library().download(queue, to, from, bytes, message);
  }

  DeviceLibrary library_ = device_library();
  static inline int projections_, waits_;
};

TEST_CASE("a pass that fails leaves nothing to do on the device: its pages may go") {
  const FailingProjection failing;
  ModelRig rig(
      kTalesFolder,
      {.numerics = Numerics::bf16, .rows = 8, .placement = all_there, .library = &failing.library()});
  auto cache = rig.cache();
  REQUIRE(cache->extend(2).ok());
  const Status failed =
      rig.attempt(std::vector<BatchRow>{{cache.get(), 17, 0, false}, {cache.get(), 18, 1, true}});
  CHECK(failed.code() == Code::device);
  CHECK(failing.waits() == 1);
}

}  // namespace
}  // namespace nib::test
