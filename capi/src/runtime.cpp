// Room capi: nib_runtime.
#include "handles.hpp"
#include "versioned.hpp"
#include <nibble/runtime/measure.hpp>

#include <climits>
#include <type_traits>

// The host's functions are called as they are, without an adapter between.
static_assert(std::is_same_v<nib_run_threads_fn, decltype(nib::ThreadRunner::run)>);
static_assert(std::is_same_v<nib_allocate_fn, decltype(nib::Allocator::allocate)>);
static_assert(std::is_same_v<nib_release_fn, decltype(nib::Allocator::release)>);

namespace nib::capi {
namespace {

constexpr double kMeasureSeconds = 0.5;

Result<RuntimeOptions> read_options(const nib_runtime_options& given) {
  NIB_TRY(check_flags(given.flags, 0, "nib_runtime_options"));
  NIB_TRY(check_reserved(given.reserved, "nib_runtime_options"));
  RuntimeOptions out;
  if (given.threads > INT_MAX) return Status(Code::argument, concat("threads is ", given.threads));
  out.threads = static_cast<int>(given.threads);
  if (given.run_threads) {
    if (given.threads == 0)
      return Status(Code::argument, "run_threads is set, but threads, how many it runs at once, is 0");
    out.runner = {given.run_threads, given.run_threads_user, out.threads};
  }
  if (!given.allocate != !given.release)
    return Status(Code::argument, "allocate and release belong together, but only one is set");
  NIB_ASSIGN(out.cuda_library, read_text(given.cuda_library, given.cuda_library_size, "cuda_library"));
  if (given.allocate) out.allocator = {given.allocate, given.release, given.allocator_user};
  return out;
}

}  // namespace
}  // namespace nib::capi

using namespace nib;
using namespace nib::capi;

extern "C" {

nib_status nib_runtime_create(const nib_runtime_options* options, nib_runtime** out, nib_error* error) {
  if (out) *out = nullptr;
  return guard(error, [&]() -> Status {
    NIB_TRY(require(out, "out"));
    nib_runtime_options given;
    NIB_TRY(read_struct(options, "nib_runtime_options", given));
    NIB_ASSIGN(const RuntimeOptions wanted, read_options(given));
    auto host = std::make_shared<Host>();
    NIB_ASSIGN(host->runtime, nib::Runtime::create(wanted));
    host->on_log = given.on_log;
    host->on_log_user = given.on_log_user;
    host->log(NIB_LOG_INFO, concat(nib_build_info(), "; ", host->runtime->pool().threads(), " threads"));
    *out = new nib_runtime{std::move(host)};
    return {};
  });
}

nib_status nib_runtime_get_backend(const nib_runtime* runtime, uint32_t index, nib_backend_info* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(usable_here(runtime, "runtime"));
    NIB_TRY(check_output(out, "nib_backend_info"));
    const auto all = runtime->host->runtime->backends();
    if (index >= all.size()) return {Code::end, ""};
    const BackendInfo& info = all[index];
    nib_backend_info value = NIB_BACKEND_INFO_INIT;
    value.flags = info.present ? NIB_BACKEND_PRESENT : 0;
    value.name = info.name.c_str();
    value.name_size = info.name.size();
    value.missing = info.missing.c_str();
    value.missing_size = info.missing.size();
    write_struct(value, out);
    return {};
  });
}

nib_status nib_runtime_measure(const nib_runtime* runtime, const char* backend, size_t backend_size,
                               uint32_t numerics, double seconds, nib_machine_rates* out, nib_error* error) {
  return guard(error, [&]() -> Status {
    NIB_TRY(usable_here(runtime, "runtime"));
    NIB_TRY(check_output(out, "nib_machine_rates"));
    NIB_ASSIGN(const std::string_view name, read_text(backend, backend_size, "backend"));
    NIB_ASSIGN(const Numerics precision, read_numerics(numerics));
    if (!(seconds >= 0 && seconds <= 60))
      return {Code::argument, concat("seconds is ", seconds, ", expected 0 to 60")};
    const double each = (seconds == 0 ? kMeasureSeconds : seconds) / 2;
    const nib::Runtime& machine = *runtime->host->runtime;
    NIB_ASSIGN(const Backend* chosen, machine.backend(name));
    nib_machine_rates value = NIB_MACHINE_RATES_INIT;
    NIB_ASSIGN(value.read_bytes_per_second, measure_read_bandwidth(machine, each));
    value.dot_flops_per_second = measure_dot_rate(machine, *chosen, precision, each);
    write_struct(value, out);
    return {};
  });
}

void nib_runtime_free(nib_runtime* runtime) { free_here(runtime); }

}  // extern "C"
