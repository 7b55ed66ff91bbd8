// The registry: the only place that knows every backend by name.
#include <nibble/base/concat.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/runtime/devices.hpp>
#include <nibble/runtime/runtime.hpp>

#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include <dlfcn.h>

namespace nib::inline v0 {
namespace {

constexpr const char* kCudaLibrary = "libnibble-cuda.so";

std::string version_text(std::uint32_t version) {
  return concat(version / 1'000'000, ".", version / 1'000 % 1'000, ".", version % 1'000);
}

// The folder of the file that this code is in, as far as the loader knows it; for a program that is what it
// was called as.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&find_cuda_devices), &info) || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

// What dlopen is to open: a path, or a name alone, which makes the loader search.
std::string library_path(std::string_view place) {
  std::error_code error;
  if (!place.empty()) {
    const std::filesystem::path path(place);
    return std::filesystem::is_directory(path, error) ? (path / kCudaLibrary).string() : path.string();
  }
  const std::filesystem::path folder = own_folder();
  const std::filesystem::path beside = folder / kCudaLibrary;
  return !folder.empty() && std::filesystem::exists(beside, error) ? beside.string() : kCudaLibrary;
}

struct CloseLibrary {
  void operator()(void* handle) const { dlclose(handle); }
};

// The table of a library that says it is exactly ours. Nothing of it has been called.
Result<const DeviceLibrary*> open_table(const std::string& path) {
  // A driver's threads may outlive the handle: the code stays.
  const std::unique_ptr<void, CloseLibrary> handle(
      dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
  if (!handle) {
    const char* reason = dlerror();
    return Status(Code::not_found, concat("no CUDA library: ", reason ? reason : path.c_str()));
  }
  const auto* table = static_cast<const DeviceLibrary*>(dlsym(handle.get(), kDeviceLibrarySymbol));
  if (!table) return Status(Code::version, concat(path, " is no device library of nibble"));
  if (table->table_bytes != sizeof(DeviceLibrary) || table->interface != kDeviceInterface ||
      table->version != kDeviceVersion)
    return Status(Code::version,
                  concat(path, " belongs to nibble ", version_text(table->version), " with device interface ",
                         table->interface, "; this is nibble ", version_text(kDeviceVersion),
                         " with device interface ", kDeviceInterface));
  return table;
}

Result<std::vector<DeviceInfo>> list_devices(const DeviceLibrary& table) {
  DeviceMessage message{};
  std::int32_t count = 0;
  NIB_TRY(device_status(table.count(&count, &message), message));
  std::vector<DeviceInfo> devices;
  for (std::int32_t i = 0; i < count; ++i) {
    DeviceFacts facts{};
    NIB_TRY(device_status(table.describe(i, &facts, &message), message));
    devices.push_back({std::string(facts.name, strnlen(facts.name, sizeof facts.name)), facts.major,
                       facts.minor, facts.processors, facts.memory});
  }
  return devices;
}

}  // namespace

DeviceSearch find_cuda_devices(std::string_view place) {
  DeviceSearch search;
  search.library = library_path(place);
  const auto table = open_table(search.library);
  if (!table.ok()) {
    search.status = table.status();
    return search;
  }
  auto devices = list_devices(**table);
  if (devices.ok())
    search.devices = devices.take();
  else
    search.status = devices.status();
  return search;
}

Result<std::shared_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) {
  if (options.threads < 0 || options.threads > 4096)
    return Status(Code::argument,
                  concat("threads: expected 0 (one for each processor) to 4096, found ", options.threads));
  std::shared_ptr<Runtime> runtime(new Runtime);
  runtime->machine_ = this_machine();
  runtime->allocator_ = options.allocator;
  runtime->cuda_library_ = options.cuda_library;
  if (options.runner.run) {
    runtime->pool_ = Pool::borrow(options.runner);
  } else {
    NIB_ASSIGN(runtime->pool_, Pool::start(options.threads ? options.threads : runtime->machine_.threads));
  }
  for (const Backend* backend : cpu_backends()) {
    const bool present = backend->present(runtime->machine_.features);
    // A processor that has most of it is not told that it lacks all.
    std::string missing = present ? std::string() : concat("some of ", backend->needs);
    runtime->backends_.push_back({backend, backend->name, present, std::move(missing)});
  }
  return runtime;
}

Runtime::~Runtime() = default;

Result<std::unique_ptr<Device>> Runtime::open_device(int index) const {
  NIB_ASSIGN(const DeviceLibrary* table, open_table(library_path(cuda_library_)));
  DeviceMessage message{};
  std::int32_t count = 0;  // which also says why there is none
  NIB_TRY(device_status(table->count(&count, &message), message));
  if (index < 0 || index >= count)
    return Status(Code::not_found,
                  concat("there is no device ", index, ": this computer has ", count, ", counted from 0"));
  return Device::open(*table, index);
}

Result<const Backend*> Runtime::backend(std::string_view name) const {
  std::string known;
  for (const BackendInfo& info : backends_) {
    if (name.empty() ? info.present : info.name == name) {
      if (info.present) return info.backend;
      return Status(Code::unsupported, concat("backend ", name, ": this processor lacks ", info.missing));
    }
    known += concat(known.empty() ? "" : ", ", info.name);
  }
  return Status(Code::not_found, concat("backend \"", name, "\" is not known (known: ", known, ")"));
}

}  // namespace nib::inline v0
