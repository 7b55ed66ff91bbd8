// The one symbol of the library: its table of functions.
#include "machine.hpp"
#include "pack.hpp"

#include <cstring>
#include <exception>
#include <utility>

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

// The same of a body that is a Result, which goes to `out`.
template <class Out, class Body>
std::int32_t answer_with(Out* out, DeviceMessage* message, const Body& body) {
  return answer(message, [&]() -> Status {
    NIB_ASSIGN(*out, body());
    return {};
  });
}

template <class Args, Status (*op)(DeviceQueue&, const OpContext&, const Args&)>
std::int32_t run(DeviceQueue* queue, const OpContext* context, const Args* args, DeviceMessage* message) {
  return answer(message, [&] { return op(*queue, *context, *args); });
}

template <Status (*move)(DeviceQueue&, void*, const void*, std::size_t)>
std::int32_t move_bytes(DeviceQueue* queue, void* to, const void* from, std::size_t bytes,
                        DeviceMessage* message) {
  return answer(message, [&] { return move(*queue, to, from, bytes); });
}

constexpr DeviceOps kOps = {
    run<QkvArgs, run_qkv>,       run<AttentionArgs, run_attention>, run<ProjectArgs, run_project>,
    run<RouteArgs, run_route>,   run<ExpertsArgs, run_experts>,     run<HeadArgs, run_head>,
    run<DigestArgs, run_digest>,
};

}  // namespace
}  // namespace nib::inline v0::cuda

namespace {
namespace device = nib::cuda;
using nib::DeviceMessage, nib::DeviceQueue;
}  // namespace

extern "C" [[gnu::visibility("default")]] const nib::DeviceLibrary nibble_device_library = {
    .table_bytes = sizeof(nib::DeviceLibrary),
    .interface = nib::kDeviceInterface,
    .version = nib::kDeviceVersion,
    .count =
        [](std::int32_t* out, DeviceMessage* message) {
          return device::answer_with(out, message, [] { return device::count_devices(); });
        },
    .describe =
        [](std::int32_t index, nib::DeviceFacts* out, DeviceMessage* message) {
          return device::answer_with(out, message, [&] { return device::describe_device(index); });
        },
    .open =
        [](std::int32_t index, DeviceQueue** out, DeviceMessage* message) {
          return device::answer_with(out, message, [&] { return device::open_queue(index); });
        },
    .close = device::close_queue,
    .free_memory =
        [](DeviceQueue* queue, std::uint64_t* out, DeviceMessage* message) {
          return device::answer_with(out, message, [&] { return device::free_memory(*queue); });
        },
    .allocate = [](DeviceQueue* queue, std::size_t bytes) { return device::allocate(*queue, bytes); },
    .release = [](DeviceQueue* queue, void* pointer) { device::release(*queue, pointer); },
    .allocate_locked = [](DeviceQueue* queue,
                          std::size_t bytes) { return device::allocate_locked(*queue, bytes); },
    .release_locked = [](DeviceQueue* queue, void* pointer) { device::release_locked(*queue, pointer); },
    .upload = device::move_bytes<device::upload>,
    .download = device::move_bytes<device::download>,
    .copy = device::move_bytes<device::copy>,
    .clear =
        [](DeviceQueue* queue, void* to, std::size_t bytes, DeviceMessage* message) {
          return device::answer(message, [&] { return device::clear(*queue, to, bytes); });
        },
    .pack =
        [](const nib::PackedWeight* weight, nib::DeviceRows rows, std::byte* out, std::int32_t index,
           std::int32_t count, DeviceMessage* message) {
          return device::answer(message, [&] { return device::pack(*weight, rows, out, index, count); });
        },
    .ops = device::kOps,
};
