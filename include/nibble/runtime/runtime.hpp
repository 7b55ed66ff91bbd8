// Room runtime: Runtime: the threads, the memory source and the backends that models share.
#pragma once

#include <nibble/base/machine.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct Backend;
class Device;

struct RuntimeOptions {
  int threads = 0;        // 0: one for each processor this process may use
  ThreadRunner runner{};  // runner.run set: the host's threads are used and `threads` is ignored
  Allocator allocator = system_allocator();
  std::string cuda_library{};  // the library's file or folder, as find_cuda_devices has it
};

// One line of what this build and this machine offer.
struct BackendInfo {
  const Backend* backend;
  std::string name;     // "avx512", "avx-vnni", "avx2", "neon", "scalar"
  bool present;         // this machine can run it
  std::string missing;  // "some of AVX2, FMA and F16C"; empty when it is present
};

// Immutable after creation; every function may be called from any thread. Models keep it alive.
class Runtime {
 public:
  // Errors: memory (threads could not be started), argument (a negative thread count).
  static Result<std::shared_ptr<Runtime>> create(const RuntimeOptions& options = {});
  ~Runtime();

  Pool& pool() const { return *pool_; }
  const Machine& machine() const { return machine_; }
  Allocator allocator() const { return allocator_; }
  // Every backend compiled in, best first.
  std::span<const BackendInfo> backends() const { return backends_; }
  // By name, or the best that is present for an empty name. Errors: not_found naming what there is;
  // unsupported when it is compiled in but this machine lacks something, which the message names.
  Result<const Backend*> backend(std::string_view name) const;
  // Opens device `index` of nibble's CUDA library, for the caller alone. The driver may take a second to wake
  // up. Errors: those of find_cuda_devices; not_found (no such device), device_memory.
  Result<std::unique_ptr<Device>> open_device(int index) const;

 private:
  Runtime() = default;
  Machine machine_;
  Allocator allocator_;
  std::string cuda_library_;
  std::unique_ptr<Pool> pool_;
  std::vector<BackendInfo> backends_;
};

}  // namespace nib::inline v0
