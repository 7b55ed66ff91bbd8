// nib_runtime: backends, the host's threads, memory and log, measuring.
#include "support.hpp"
#include <nibble/formats/format.hpp>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace nib::test;

namespace {

std::vector<std::string> backend_names(const nib_runtime* runtime) {
  std::vector<std::string> names;
  nib_backend_info info = NIB_BACKEND_INFO_INIT;
  for (std::uint32_t i = 0; nib_runtime_get_backend(runtime, i, &info) == NIB_OK; ++i) {
    names.emplace_back(info.name, info.name_size);
    CHECK(((info.flags & NIB_BACKEND_PRESENT) != 0) == (info.missing_size == 0));
    // One flag more or less is what a processor lacks: never said to be all that the backend asks for.
    const std::string missing(info.missing, info.missing_size);
    CHECK((missing.empty() || missing.starts_with("some of ")));
  }
  CHECK(nib_runtime_get_backend(runtime, static_cast<std::uint32_t>(names.size()), &info) == NIB_END);
  CHECK(nib_runtime_get_backend(runtime, std::numeric_limits<std::uint32_t>::max(), &info) == NIB_END);
  return names;
}

}  // namespace

TEST_CASE("nib_build_info names the formats, and the backends that are listed") {
  std::string formats = "formats";
  for (const nib::FormatInfo& format : nib::kFormats)
    if (format.format != nib::Format::none) formats.append(" ").append(format.name);
  CHECK_MESSAGE(std::string_view(nib_build_info()).find(formats + ",") != std::string_view::npos,
                nib_build_info());

  const RuntimeHandle runtime = make_runtime(1);
  const std::vector<std::string> names = backend_names(runtime.get());
  CHECK(std::find(names.begin(), names.end(), "scalar") != names.end());
  std::string listed;
  for (const std::string& name : names) listed += " " + name;
  const std::string_view info = nib_build_info();
  CHECK_MESSAGE(info.substr(info.size() - std::min(info.size(), listed.size())) == listed, info);
}

TEST_CASE("options that cannot be right") {
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  nib_runtime* out = garbage<nib_runtime>();
  Error error;
  options.run_threads = [](void*, std::int32_t, nib_task_fn, void*) {};
  CHECK(nib_runtime_create(&options, &out, &error) == NIB_E_ARGUMENT);  // how many?
  CHECK(error.says("threads"));
  CHECK(out == nullptr);
  options = NIB_RUNTIME_OPTIONS_INIT;
  options.release = [](void*, void*, std::size_t) {};
  CHECK(nib_runtime_create(&options, &out, &error) == NIB_E_ARGUMENT);
  options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = 0x80000000u;
  CHECK(nib_runtime_create(&options, &out, &error) == NIB_E_ARGUMENT);
  CHECK(nib_runtime_create(nullptr, nullptr, &error) == NIB_E_ARGUMENT);
  CHECK(error.says("out"));
  CHECK(nib_cancel_create(nullptr) == NIB_E_ARGUMENT);
  nib_backend_info info = NIB_BACKEND_INFO_INIT;
  CHECK(nib_runtime_get_backend(nullptr, 0, &info) == NIB_E_ARGUMENT);
}

TEST_CASE("the log gets whole lines, and only where it is asked for") {
  struct Log {
    std::mutex mutex;
    std::string text;
  } log;
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = 1;
  options.on_log_user = &log;
  options.on_log = [](void* user, std::int32_t level, const char* text, std::size_t size) {
    auto& to = *static_cast<Log*>(user);
    const std::lock_guard lock(to.mutex);
    CHECK(level >= NIB_LOG_ERROR);
    CHECK(level <= NIB_LOG_INFO);
    CHECK(std::string_view(text, size).find('\n') == std::string_view::npos);
    to.text.append(text, size) += '\n';
  };
  nib_runtime* out = nullptr;
  REQUIRE(nib_runtime_create(&options, &out, nullptr) == NIB_OK);
  const RuntimeHandle runtime(out);
  CHECK(log.text.find(nib_build_info()) != std::string::npos);
  const ModelHandle model = open_model(runtime.get());
  CHECK(log.text.find(model_path()) != std::string::npos);
}

TEST_CASE("a host's threads and a host's memory carry a whole story, to the same tokens") {
  struct Host {
    std::atomic<int> runs{0};
    std::atomic<std::int64_t> bytes{0}, taken{0};
  } host;
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = 3;
  options.run_threads_user = options.allocator_user = &host;
  options.run_threads = [](void* user, std::int32_t threads, nib_task_fn task, void* arg) {
    ++static_cast<Host*>(user)->runs;
    std::vector<std::thread> team;
    for (std::int32_t i = 1; i < threads; ++i) team.emplace_back(task, arg, i);
    task(arg, 0);
    for (std::thread& thread : team) thread.join();
  };
  options.allocate = [](void* user, std::size_t bytes, std::size_t alignment) -> void* {
    auto& to = *static_cast<Host*>(user);
    to.bytes += static_cast<std::int64_t>(bytes);
    ++to.taken;
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  };
  options.release = [](void* user, void* memory, std::size_t bytes) {
    static_cast<Host*>(user)->bytes -= static_cast<std::int64_t>(bytes);
    std::free(memory);
  };
  const nib_session_options likeliest = greedy();
  nib_generate_options few = NIB_GENERATE_OPTIONS_INIT;
  few.max_tokens = 8;
  std::vector<nib_token> tokens;
  {
    nib_runtime* out = nullptr;
    Error error;
    REQUIRE_MESSAGE(nib_runtime_create(&options, &out, &error) == NIB_OK, error.text());
    const RuntimeHandle runtime(out);
    const ModelHandle model = open_model(runtime.get(), 1, 256);
    const SessionHandle session = make_session(model.get(), &likeliest);
    append(session.get(), encode(model.get(), "The little dog"));
    CHECK(nib_session_generate(session.get(), &few, nullptr, nullptr) == NIB_OK);
    tokens = held(session.get());
    CHECK(host.runs > 0);
    CHECK(host.taken > 0);
    nib_model_info info = NIB_MODEL_INFO_INIT;
    REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
    CHECK(info.host_bytes == static_cast<std::uint64_t>(host.bytes));
  }
  CHECK(host.bytes == 0);

  const RuntimeHandle own = make_runtime(1);
  const ModelHandle model = open_model(own.get());
  const SessionHandle session = make_session(model.get(), &likeliest);
  append(session.get(), encode(model.get(), "The little dog"));
  CHECK(nib_session_generate(session.get(), &few, nullptr, nullptr) == NIB_OK);
  CHECK(held(session.get()) == tokens);
}

TEST_CASE("measuring gives rates, for backends that are here") {
  const RuntimeHandle runtime = make_runtime(1);
  nib_machine_rates rates = NIB_MACHINE_RATES_INIT;
  Error error;
  const auto measure = [&](const char* backend, std::uint32_t numerics, double seconds) {
    return nib_runtime_measure(runtime.get(), backend, NIB_NUL, numerics, seconds, &rates, &error);
  };
  CHECK(measure("scalar", NIB_NUMERICS_INT8 + 1, 0.01) == NIB_E_ARGUMENT);
  CHECK(measure("scalar", NIB_NUMERICS_F32, -1) == NIB_E_ARGUMENT);
  CHECK(measure("scalar", NIB_NUMERICS_F32, std::numeric_limits<double>::quiet_NaN()) == NIB_E_ARGUMENT);
  CHECK(measure("abacus", NIB_NUMERICS_F32, 0.01) == NIB_E_NOT_FOUND);
  CHECK(error.says("abacus"));
  CHECK(rates.read_bytes_per_second == 0);
  REQUIRE_MESSAGE(measure("", NIB_NUMERICS_BF16, 0.02) == NIB_OK, error.text());
  CHECK(rates.read_bytes_per_second > 1e8);
  CHECK(rates.dot_flops_per_second > 1e7);
}
