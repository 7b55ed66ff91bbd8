// Models with layers on a device: options, plans, and why one cannot be opened there.
//
// The fake device opens models and computes nothing; the emulated one does.
#include "support.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>

using namespace nib::test;

namespace {

RuntimeHandle runtime_with(const char* cuda_library) {
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = 1;
  options.cuda_library = cuda_library;
  options.cuda_library_size = NIB_NUL;
  nib_runtime* out = nullptr;
  REQUIRE(nib_runtime_create(&options, &out, nullptr) == NIB_OK);
  return RuntimeHandle(out);
}

nib_model_options with_layers(std::uint32_t layers) {
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.device_layers = layers;
  return options;
}

PlanHandle plan_with(const nib_model_options& options) {
  const RuntimeHandle runtime = make_runtime(1);
  nib_plan* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(
      nib_plan_create(runtime.get(), model_path(), NIB_NUL, &options, nullptr, &out, &error) == NIB_OK,
      error.text());
  return PlanHandle(out);
}

nib_plan_summary summary_of(const PlanHandle& plan) {
  nib_plan_summary summary = NIB_PLAN_SUMMARY_INIT;
  REQUIRE(nib_plan_get_summary(plan.get(), &summary) == NIB_OK);
  return summary;
}

// Bytes of the items on `device`; `experts`: of experts alone.
std::uint64_t bytes_on(const PlanHandle& plan, std::string_view device, bool experts = false) {
  std::uint64_t bytes = 0;
  nib_plan_item item = NIB_PLAN_ITEM_INIT;
  for (std::uint32_t i = 0; nib_plan_get_item(plan.get(), i, &item) == NIB_OK; ++i) {
    const std::string_view name(item.name, item.name_size);
    if (std::string_view(item.device, item.device_size) == device &&
        (!experts || name.starts_with("experts")))
      bytes += item.bytes;
  }
  return bytes;
}

nib_status open_on(const char* library, const nib_model_options& options, Error& error) {
  const RuntimeHandle runtime = runtime_with(library);
  nib_model* out = garbage<nib_model>();
  const nib_status status = nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error);
  CHECK((status == NIB_OK) == (out != nullptr));
  nib_model_free(out);
  return status;
}

}  // namespace

TEST_CASE("a plan with layers on a device: items of both places add up") {
  for (const std::uint32_t layers : {0u, 2u, 7u, 99u, 0xffffffffu}) {
    CAPTURE(layers);
    const PlanHandle plan = plan_with(with_layers(layers));
    const nib_plan_summary summary = summary_of(plan);
    CHECK(summary.host_bytes == bytes_on(plan, "host"));
    CHECK(summary.device_bytes == bytes_on(plan, "cuda:0"));
    CHECK((summary.device_bytes > 0) == (layers > 0));
    CHECK(summary.device_budget == 0);
  }
  nib_model_options options = with_layers(99);
  options.flags = NIB_MODEL_HOST_EXPERTS;
  options.device = 3;
  const PlanHandle apart = plan_with(options);
  CHECK(bytes_on(apart, "cuda:3") == summary_of(apart).device_bytes);
  CHECK(bytes_on(apart, "cuda:3", true) == 0);
  CHECK(bytes_on(apart, "host", true) == bytes_on(plan_with(with_layers(0)), "host", true));
}

TEST_CASE("a program of before there were devices places nothing there") {
  nib_model_options options = with_layers(99);
  options.struct_size = offsetof(nib_model_options, device_layers);
  CHECK(summary_of(plan_with(options)).device_bytes == 0);
}

TEST_CASE("a cache of experts is planned and told of; a program of before there was one has none") {
  nib_model_options options = with_layers(99);
  options.expert_cache_bytes = bytes_on(plan_with(options), "cuda:0", true) / 2;
  const PlanHandle half = plan_with(options);
  CHECK(bytes_on(half, "cuda:0", true) <= options.expert_cache_bytes);
  CHECK(bytes_on(half, "host", true) > options.expert_cache_bytes);
  CHECK(summary_of(half).host_bytes == bytes_on(half, "host"));
  CHECK(summary_of(half).device_bytes == bytes_on(half, "cuda:0"));
  const RuntimeHandle runtime = runtime_with(NIBBLE_FAKE_idle);
  nib_model* out = nullptr;
  Error error;
  REQUIRE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK);
  const ModelHandle model(out);
  std::uint64_t slots = 0, locked = 0;
  nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
  for (std::uint32_t i = 0; nib_model_explain(model.get(), i, &item) == NIB_OK; ++i) {
    slots = std::max(slots, item.slots);
    locked += item.locked_bytes;
  }
  CHECK(slots > 1);
  CHECK(locked == bytes_on(half, "host", true));

  options.expert_cache_bytes = 1;
  CHECK(open_on(NIBBLE_FAKE_idle, options, error) == NIB_E_BUDGET);
  CHECK(error.says("the smallest that does"));
  options.device_layers = 0;
  CHECK(open_on(NIBBLE_FAKE_idle, options, error) == NIB_E_ARGUMENT);
  options.struct_size = offsetof(nib_model_options, expert_cache_bytes);
  CHECK(open_on(NIBBLE_FAKE_idle, options, error) == NIB_OK);
}

TEST_CASE("a model may be fast where its device can be") {
  const auto kernels = [](std::uint32_t flags, std::uint32_t device) {
    nib_model_options options = with_layers(99);
    options.flags = flags;
    options.device = device;
    const RuntimeHandle runtime = runtime_with(NIBBLE_FAKE_idle);
    nib_model* out = nullptr;
    Error error;
    REQUIRE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK);
    const ModelHandle model(out);
    std::set<std::string> names;
    nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
    for (std::uint32_t i = 0; nib_model_explain(model.get(), i, &item) == NIB_OK; ++i)
      names.emplace(item.kernel, item.kernel_size);
    return names;
  };
  CHECK(kernels(NIB_MODEL_MAY_BE_FAST, 0).contains("wgmma"));
  CHECK(!kernels(NIB_MODEL_MAY_BE_FAST, 1).contains("wgmma"));
  CHECK(!kernels(0, 0).contains("wgmma"));
}

TEST_CASE("a budget is the device's that it names") {
  const std::uint64_t needs = summary_of(plan_with(with_layers(2))).device_bytes;
  nib_budget budgets[3] = {{"cuda:1", 6, 1}, {"cuda:0", 6, needs - 1}, {"host", 4, 0}};
  nib_model_options options = with_layers(2);
  options.budgets = budgets;
  options.budget_count = 3;
  options.budget_size = sizeof(nib_budget);
  const nib_plan_summary tight = summary_of(plan_with(options));
  CHECK(tight.device_budget == needs - 1);
  CHECK((tight.flags & NIB_PLAN_FITS) == 0);
  CHECK(tight.longest_context < tight.context);
  Error error;
  CHECK(open_on(NIBBLE_FAKE_full, options, error) == NIB_E_BUDGET);
  CHECK(error.says("device's memory"));
  budgets[1].bytes = needs;
  CHECK((summary_of(plan_with(options)).flags & NIB_PLAN_FITS) != 0);
  options.device = 1;  // where one byte is allowed
  CHECK(summary_of(plan_with(options)).device_budget == 1);
  options.device = 0x80000000u;
  CHECK(open_on(NIBBLE_FAKE_full, options, error) == NIB_E_ARGUMENT);
  CHECK(error.says("device"));
}

TEST_CASE("why a model cannot be opened on a device") {
  Error error;
  nib_model_options options = with_layers(1);
  CHECK(open_on("/no/such/library.so", options, error) == NIB_E_NOT_FOUND);
  CHECK(error.says("/no/such/library.so"));
  CHECK(open_on(NIBBLE_FAKE_absent, options, error) == NIB_E_UNSUPPORTED);
  CHECK(error.says("there is no NVIDIA driver"));
  CHECK(open_on(NIBBLE_FAKE_full, options, error) == NIB_E_DEVICE_MEMORY);
  CHECK(error.says("Fake 9000"));
  options.device = 2;
  CHECK(open_on(NIBBLE_FAKE_full, options, error) == NIB_E_NOT_FOUND);
  CHECK(error.says("no device 2"));
  for (const std::uint32_t numerics : {NIB_NUMERICS_F32, NIB_NUMERICS_INT8}) {
    options.numerics = numerics;
    CHECK(open_on(NIBBLE_FAKE_full, options, error) == NIB_E_UNSUPPORTED);
    CHECK(error.says("numerics"));
  }
  CHECK(open_on("/no/such/library.so", with_layers(0), error) == NIB_OK);  // not looked for
}

TEST_CASE("a model that the processor computes names no device") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  REQUIRE(info.device);
  CHECK(std::string_view(info.device) == "");
  CHECK(info.device_size == 0);
  CHECK(info.device_bytes == 0);
}

TEST_CASE("a model on a device tells which, what it takes there, and where each tensor is") {
  const RuntimeHandle runtime = runtime_with(NIBBLE_FAKE_idle);
  const nib_model_options options = with_layers(99);
  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                  error.text());
  const ModelHandle model(out);
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  CHECK(std::string_view(info.device, info.device_size) == "Fake 9000");
  const SessionHandle session = make_session(model.get());
  append(session.get(), {1, 2, 3});
  const std::uint64_t before = info.device_bytes;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  CHECK(info.device_bytes > before);  // the session's keys and values
  CHECK(info.device_bytes == summary_of(plan_with(options)).device_bytes);

  std::uint32_t there = 0;
  nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
  for (std::uint32_t i = 0; nib_model_explain(model.get(), i, &item) == NIB_OK; ++i) {
    const bool embeds = std::string_view(item.op, item.op_size) == "embed";
    CHECK(std::string_view(item.device, item.device_size) == (embeds ? "host" : "cuda:0"));
    CHECK((std::string_view(item.instruction_set, item.instruction_set_size) == "cuda") == !embeds);
    there += !embeds;
  }
  CHECK(there > 10);
}

TEST_CASE("a session on a device says what it says on the processor") {
  std::vector<std::uint32_t> said[2];
  for (const char* library : {"", NIBBLE_EMULATED}) {
    const bool there = *library != 0;
    const RuntimeHandle runtime = there ? runtime_with(library) : make_runtime(1);
    const nib_model_options options = with_layers(there ? 3 : 0);
    nib_model* out = nullptr;
    Error error;
    REQUIRE_MESSAGE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                    error.text());
    const ModelHandle model(out);
    const SessionHandle session = make_session(model.get());
    append(session.get(), {433, 2, 97, 1203});
    const float* logits = nullptr;
    std::size_t count = 0;
    REQUIRE(nib_session_get_logits(session.get(), &logits, &count) == NIB_OK);
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0u);
    std::partial_sort(order.begin(), order.begin() + 3, order.end(),
                      [&](std::uint32_t a, std::uint32_t b) { return logits[a] > logits[b]; });
    said[there].assign(order.begin(), order.begin() + 3);
  }
  CHECK(said[0] == said[1]);
}
