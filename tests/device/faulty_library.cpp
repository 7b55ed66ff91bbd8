// The emulated device's library, but for calls that a test wants to fail.
#include "faulty_library.hpp"

#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstdlib>
#include <cstring>

#include <dlfcn.h>

extern "C" {
[[gnu::visibility("default")]] nib::test::Faults nibble_faults;
}

namespace {

using namespace nib;

const DeviceLibrary& emulated() {
  static const DeviceLibrary& table = []() -> const DeviceLibrary& {
    void* const handle = dlopen(NIBBLE_EMULATED, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    const void* const found = handle ? dlsym(handle, kDeviceLibrarySymbol) : nullptr;
    if (!found) std::abort();
    return *static_cast<const DeviceLibrary*>(found);
  }();
  return table;
}

bool fails(const char* what) {
  const std::int64_t number = nibble_faults.calls++;
  if (number < nibble_faults.first || number >= nibble_faults.end) return false;
  if (nibble_faults.cancel) {
    nibble_faults.cancel->trigger();
    return false;
  }
  nibble_faults.failed = what;
  return true;
}

// A function of the table, or of its ops, which fails by its name.
template <auto function, class... Arguments>
std::int32_t call(const char* what, DeviceMessage* message, Arguments... arguments) {
  if (!fails(what)) return (emulated().*function)(arguments..., message);
  std::strcpy(message->text, "the device was lost");
  return static_cast<std::int32_t>(Code::device);
}
template <class Args, DeviceOp<Args> DeviceOps::*op>
std::int32_t run(DeviceQueue* queue, const OpContext* context, const Args* args, DeviceMessage* message) {
  if (!fails("op")) return (emulated().ops.*op)(queue, context, args, message);
  std::strcpy(message->text, "the device was lost");
  return static_cast<std::int32_t>(Code::device);
}
template <auto DeviceLibrary::*function>
std::int32_t move(DeviceQueue* queue, void* to, const void* from, std::size_t bytes, DeviceMessage* message) {
  return call<function>("copy", message, queue, to, from, bytes);
}
template <auto DeviceLibrary::*function>
void* take(DeviceQueue* queue, std::size_t bytes) {
  if (fails(function == &DeviceLibrary::allocate ? "allocate" : "allocate_locked")) return nullptr;
  void* const memory = (emulated().*function)(queue, bytes);
  nibble_faults.blocks += memory != nullptr;
  return memory;
}
template <auto DeviceLibrary::*function>
void give_back(DeviceQueue* queue, void* memory) {
  nibble_faults.blocks -= memory != nullptr;
  (emulated().*function)(queue, memory);
}

DeviceLibrary table() {
  DeviceLibrary made = emulated();
  made.open = [](std::int32_t index, DeviceQueue** out, DeviceMessage* message) {
    const std::int32_t code = call<&DeviceLibrary::open>("open", message, index, out);
    nibble_faults.queues += code == 0;
    return code;
  };
  made.close = [](DeviceQueue* queue) {
    --nibble_faults.queues;
    emulated().close(queue);
  };
  made.free_memory = [](DeviceQueue* queue, std::uint64_t* out, DeviceMessage* message) {
    return call<&DeviceLibrary::free_memory>("free_memory", message, queue, out);
  };
  made.allocate = take<&DeviceLibrary::allocate>;
  made.release = give_back<&DeviceLibrary::release>;
  made.allocate_locked = take<&DeviceLibrary::allocate_locked>;
  made.release_locked = give_back<&DeviceLibrary::release_locked>;
  made.upload = move<&DeviceLibrary::upload>;
  made.download = move<&DeviceLibrary::download>;
  made.copy = move<&DeviceLibrary::copy>;
  made.clear = [](DeviceQueue* queue, void* to, std::size_t bytes, DeviceMessage* message) {
    return call<&DeviceLibrary::clear>("clear", message, queue, to, bytes);
  };
  made.ops = {run<QkvArgs, &DeviceOps::qkv>,         run<AttentionArgs, &DeviceOps::attention>,
              run<ProjectArgs, &DeviceOps::project>, run<RouteArgs, &DeviceOps::route>,
              run<ExpertsArgs, &DeviceOps::experts>, run<HeadArgs, &DeviceOps::head>,
              run<DigestArgs, &DeviceOps::digest>};
  return made;
}

}  // namespace

extern "C" {
[[gnu::visibility("default")]] extern const DeviceLibrary nibble_device_library;
const DeviceLibrary nibble_device_library = table();
}
