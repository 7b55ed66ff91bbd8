// nib_plan and nib_model: what is refused, what a plan says, text to tokens and back.
#include "support.hpp"

#include <algorithm>
#include <string>
#include <vector>

using namespace nib::test;

namespace {

nib_status open_with(nib_runtime* runtime, const nib_model_options& options, Error& error) {
  nib_model* out = garbage<nib_model>();
  const nib_status status = nib_model_open(runtime, model_path(), NIB_NUL, &options, &out, &error);
  const ModelHandle model(out);
  CHECK((status == NIB_OK) == (out != nullptr));
  CHECK(error.status == status);
  CHECK((status == NIB_OK) == error.text().empty());
  return status;
}

PlanHandle make_plan(nib_runtime* runtime, const nib_model_options* model = nullptr,
                     const nib_session_options* session = nullptr) {
  nib_plan* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_plan_create(runtime, model_path(), NIB_NUL, model, session, &out, &error) == NIB_OK,
                  error.text());
  return PlanHandle(out);
}

nib_plan_summary summary_of(const nib_plan* plan) {
  nib_plan_summary summary = NIB_PLAN_SUMMARY_INIT;
  REQUIRE(nib_plan_get_summary(plan, &summary) == NIB_OK);
  return summary;
}

}  // namespace

TEST_CASE("paths that lead nowhere") {
  const RuntimeHandle runtime = make_runtime(1);
  nib_model* out = garbage<nib_model>();
  Error error;
  const auto open = [&](const char* path, std::size_t size) {
    out = garbage<nib_model>();
    const nib_status status = nib_model_open(runtime.get(), path, size, nullptr, &out, &error);
    CHECK(out == nullptr);
    return status;
  };
  CHECK(open("/nowhere", NIB_NUL) == NIB_E_NOT_FOUND);
  CHECK(open("/nowhere at all", 8) == NIB_E_NOT_FOUND);
  CHECK(!error.says("at all"));  // the size counts
  CHECK(open("", 0) == NIB_E_ARGUMENT);
  CHECK(open(nullptr, 0) == NIB_E_ARGUMENT);
  CHECK(open(nullptr, NIB_NUL) == NIB_E_ARGUMENT);
  CHECK(open("a\0b", 3) == NIB_E_ARGUMENT);
  CHECK(nib_model_open(nullptr, model_path(), NIB_NUL, nullptr, &out, &error) == NIB_E_ARGUMENT);
  CHECK(error.says("runtime"));
  CHECK(nib_model_open(runtime.get(), model_path(), NIB_NUL, nullptr, nullptr, &error) == NIB_E_ARGUMENT);
  nib_plan* plan = garbage<nib_plan>();
  CHECK(nib_plan_create(runtime.get(), "/nowhere", NIB_NUL, nullptr, nullptr, &plan, &error) ==
        NIB_E_NOT_FOUND);
  CHECK(plan == nullptr);
  CHECK(nib_model_open_planned(nullptr, &out, &error) == NIB_E_ARGUMENT);
}

TEST_CASE("options that are refused, by name") {
  const RuntimeHandle runtime = make_runtime(1);
  Error error;
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  const auto refused = [&](nib_status expected, std::string_view part) {
    CHECK(open_with(runtime.get(), options, error) == expected);
    CHECK_MESSAGE(error.says(part), error.text());
    options = NIB_MODEL_OPTIONS_INIT;
  };
  options.flags = 1u << 31;
  refused(NIB_E_VERSION, "flag");
  options.reserved = 2;
  refused(NIB_E_VERSION, "reserved");
  options.backend = "abacus";
  options.backend_size = NIB_NUL;
  refused(NIB_E_NOT_FOUND, "abacus");
  options.backend_size = 6;
  refused(NIB_E_ARGUMENT, "backend");
  options.numerics = 17;
  refused(NIB_E_ARGUMENT, "17");
  options.kv_format = 18;
  refused(NIB_E_ARGUMENT, "18");
  options.sessions = 0xffffffffu;
  refused(NIB_E_ARGUMENT, "sessions");
  options.prefill_rows = 0xffffffffu;
  refused(NIB_E_ARGUMENT, "prefill_rows");
  options.session_context = 0xffffffffu;
  refused(NIB_E_ARGUMENT, "context");
}

TEST_CASE("budgets: one for each device, known devices only, and obeyed") {
  const RuntimeHandle runtime = make_runtime(1);
  Error error;
  nib_budget budgets[2] = {{"host", 4, 1 << 20}, {nullptr, 0, 0}};
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.budgets = budgets;
  options.budget_count = 1;
  CHECK(open_with(runtime.get(), options, error) == NIB_E_ARGUMENT);  // no element size
  options.budget_size = sizeof(nib_budget);
  CHECK(open_with(runtime.get(), options, error) == NIB_E_BUDGET);
  budgets[0].bytes = 0;
  CHECK(open_with(runtime.get(), options, error) == NIB_OK);
  options.budget_count = 2;
  CHECK(open_with(runtime.get(), options, error) == NIB_E_ARGUMENT);  // both name the host
  budgets[1].device = "moon";
  budgets[1].device_size = NIB_NUL;
  CHECK(open_with(runtime.get(), options, error) == NIB_E_NOT_FOUND);
  CHECK(error.says("moon"));
  for (const char* name : {"cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "cuda:99999999999", "cuda"}) {
    CAPTURE(name);
    budgets[1].device = name;
    CHECK(open_with(runtime.get(), options, error) == NIB_E_NOT_FOUND);
    CHECK(error.says(name));
  }
  budgets[1].device = "cuda:1";  // which this model does not use
  CHECK(open_with(runtime.get(), options, error) == NIB_OK);
  budgets[0] = budgets[1];
  CHECK(open_with(runtime.get(), options, error) == NIB_E_ARGUMENT);
  CHECK(error.says("cuda:1"));
  options.budgets = nullptr;
  CHECK(open_with(runtime.get(), options, error) == NIB_E_ARGUMENT);
}

TEST_CASE("a plan adds up, is a ceiling, and opens once") {
  const RuntimeHandle runtime = make_runtime(2);
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.sessions = 2;
  options.session_context = 512;
  const PlanHandle plan = make_plan(runtime.get(), &options);
  const nib_plan_summary summary = summary_of(plan.get());
  CHECK((summary.flags & NIB_PLAN_FITS) != 0);
  CHECK(summary.context == 512);
  CHECK(summary.longest_context >= 512);
  CHECK(summary.decode_bytes > 0);
  CHECK(summary.kv_bytes_per_token == 3 * 2 * 2 * 64 * 2);  // full layers, k and v, heads, dimensions, bf16

  std::uint64_t total = 0, of_purpose[4] = {};
  nib_plan_item item = NIB_PLAN_ITEM_INIT;
  std::uint32_t count = 0;
  nib_status status;
  while ((status = nib_plan_get_item(plan.get(), count, &item)) == NIB_OK) {
    REQUIRE(item.purpose <= NIB_PURPOSE_STAGING);
    CHECK(std::string_view(item.device, item.device_size) == "host");
    CHECK(item.name_size > 0);
    of_purpose[item.purpose] += item.bytes;
    total += item.bytes;
    ++count;
  }
  CHECK(status == NIB_END);
  CHECK(total == summary.host_bytes);
  CHECK(of_purpose[NIB_PURPOSE_WEIGHTS] > 10'000'000);
  CHECK(of_purpose[NIB_PURPOSE_KV_CACHE] > 0);

  // Half the sessions, half the cache; session options have the last word on the context.
  nib_model_options one = options;
  one.sessions = 1;
  nib_session_options shorter = NIB_SESSION_OPTIONS_INIT;
  shorter.context = 256;
  const PlanHandle smaller = make_plan(runtime.get(), &one, &shorter);
  CHECK(summary_of(smaller.get()).context == 256);
  CHECK(summary_of(smaller.get()).host_bytes < summary.host_bytes);

  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open_planned(plan.get(), &out, &error) == NIB_OK, error.text());
  const ModelHandle model(out);
  CHECK(nib_model_open_planned(plan.get(), &out, &error) == NIB_E_STATE);
  CHECK(out == nullptr);
  const SessionHandle a = make_session(model.get()), b = make_session(model.get());
  append(a.get(), encode(model.get(), "One"));
  append(b.get(), encode(model.get(), "Two"));
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  CHECK(info.host_bytes <= summary.host_bytes);
  CHECK(info.host_bytes >= of_purpose[NIB_PURPOSE_WEIGHTS]);
}

TEST_CASE("a plan that does not fit says so, and how much would") {
  const RuntimeHandle runtime = make_runtime(1);
  const nib_plan_summary roomy = summary_of(make_plan(runtime.get()).get());
  nib_budget budget = {nullptr, 0, roomy.host_bytes - 1};
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.budgets = &budget;
  options.budget_count = 1;
  options.budget_size = sizeof budget;
  const PlanHandle plan = make_plan(runtime.get(), &options);
  const nib_plan_summary summary = summary_of(plan.get());
  CHECK((summary.flags & NIB_PLAN_FITS) == 0);
  CHECK(summary.host_budget == budget.bytes);
  CHECK(summary.longest_context < summary.context);
  CHECK(summary.longest_context > 0);
  nib_model* out = garbage<nib_model>();
  CHECK(nib_model_open_planned(plan.get(), &out, nullptr) == NIB_E_BUDGET);
  CHECK(out == nullptr);

  nib_session_options session = NIB_SESSION_OPTIONS_INIT;
  session.context = summary.longest_context;
  CHECK((summary_of(make_plan(runtime.get(), &options, &session).get()).flags & NIB_PLAN_FITS) != 0);
}

TEST_CASE("predictions follow the machine's rates") {
  const RuntimeHandle runtime = make_runtime(1);
  const PlanHandle plan = make_plan(runtime.get());
  const nib_plan_summary summary = summary_of(plan.get());
  nib_machine_rates machine = NIB_MACHINE_RATES_INIT;
  nib_predicted_rates predicted = NIB_PREDICTED_RATES_INIT;
  machine.read_bytes_per_second = 10.0 * static_cast<double>(summary.decode_bytes);
  machine.dot_flops_per_second = 30.0 * static_cast<double>(summary.prefill_flops);
  REQUIRE(nib_plan_predict(plan.get(), &machine, &predicted, nullptr) == NIB_OK);
  CHECK(predicted.decode_tokens_per_second == doctest::Approx(10));
  CHECK(predicted.prefill_tokens_per_second == doctest::Approx(30));
  CHECK(nib_plan_predict(plan.get(), nullptr, &predicted, nullptr) == NIB_E_ARGUMENT);
  CHECK(nib_plan_predict(plan.get(), &machine, nullptr, nullptr) == NIB_E_ARGUMENT);
}

TEST_CASE("a load reports its progress, and stops for it; its plan may then be tried again") {
  struct Watch {
    std::vector<std::uint32_t> stages;
    std::uint64_t done = 0, total = 0;
    bool stop = false;
  } watch;
  const RuntimeHandle runtime = make_runtime(2);
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.on_progress_user = &watch;
  options.on_progress = [](void* user, const nib_progress* progress) -> std::int32_t {
    auto& to = *static_cast<Watch*>(user);
    CHECK(progress->struct_size == sizeof(nib_progress));
    CHECK(progress->done <= progress->total);
    CHECK(progress->name != nullptr);
    if (to.stages.empty() || to.stages.back() != progress->stage) to.stages.push_back(progress->stage);
    to.done = progress->done;
    to.total = progress->total;
    return to.stop;
  };
  nib_cancel* made = nullptr;
  REQUIRE(nib_cancel_create(&made) == NIB_OK);
  options.cancel = made;
  const PlanHandle plan = make_plan(runtime.get(), &options);
  nib_cancel_trigger(made);
  nib_model* out = garbage<nib_model>();
  Error error;
  CHECK(nib_model_open_planned(plan.get(), &out, &error) == NIB_STOPPED);
  CHECK(out == nullptr);
  CHECK(error.status == NIB_STOPPED);
  nib_cancel_reset(made);
  nib_cancel_free(made);  // the plan keeps it
  watch.stop = true;
  CHECK(nib_model_open_planned(plan.get(), &out, &error) == NIB_STOPPED);
  CHECK(out == nullptr);
  watch = {};
  REQUIRE_MESSAGE(nib_model_open_planned(plan.get(), &out, &error) == NIB_OK, error.text());
  nib_model_free(out);
  CHECK(!watch.stages.empty());
  CHECK(watch.total > 10'000'000);
}

TEST_CASE("int8 numerics, and what they may fall back to") {
  const RuntimeHandle runtime = make_runtime(1);
  Error error;
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.numerics = NIB_NUMERICS_INT8;
  for (const std::uint32_t flags : {0u, std::uint32_t{NIB_MODEL_ALLOW_FALLBACK}}) {
    options.flags = flags;
    nib_model* out = nullptr;
    REQUIRE_MESSAGE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                    error.text());
    const ModelHandle model(out);
    nib_model_info info = NIB_MODEL_INFO_INIT;
    REQUIRE(nib_model_get_info(out, &info) == NIB_OK);
    CHECK(info.numerics == NIB_NUMERICS_INT8);
    CHECK(info.kv_format == NIB_KV_BF16);
  }
}

TEST_CASE("what a model is") {
  const RuntimeHandle runtime = make_runtime(1);
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.backend = "scalar";
  options.backend_size = NIB_NUL;
  options.numerics = NIB_NUMERICS_F32;
  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                  error.text());
  const ModelHandle model(out);
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(out, &info) == NIB_OK);
  CHECK(std::string_view(info.path, info.path_size) == model_path());
  CHECK(std::string_view(info.backend, info.backend_size) == "scalar");
  CHECK(info.numerics == NIB_NUMERICS_F32);
  CHECK(info.kv_format == NIB_KV_F32);
  // As its config.json says.
  CHECK(info.layers == 6);
  CHECK(info.hidden == 256);
  CHECK(info.vocabulary == 4096);
  CHECK(info.experts == 16);
  CHECK(info.experts_per_token == 2);
  CHECK(info.flags == (NIB_MODEL_HAS_BOS | NIB_MODEL_HAS_TOKENIZER));
  CHECK(info.bos == 4087);
  CHECK(nib_model_get_info(nullptr, &info) == NIB_E_ARGUMENT);
  CHECK(nib_model_get_info(out, nullptr) == NIB_E_ARGUMENT);
}

TEST_CASE("a vocabulary alone encodes and decodes, and computes nothing") {
  const RuntimeHandle runtime = make_runtime(1);
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.flags = NIB_MODEL_VOCABULARY_ONLY;
  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                  error.text());
  const ModelHandle model(out);
  CHECK(decode(out, encode(out, "A small dog.")) == "A small dog.");
  nib_session* session = garbage<nib_session>();
  CHECK(nib_session_create(out, nullptr, &session, &error) == NIB_E_STATE);
  CHECK(session == nullptr);
  CHECK(error.says("vocabulary"));
}

TEST_CASE("text to tokens and back, into buffers of every size") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  const std::string text = "Once upon a time, there was a dog named Zo\xc3\xab.";
  const std::vector<nib_token> tokens = encode(model.get(), text);
  CHECK(decode(model.get(), tokens) == text);
  CHECK(encode(model.get(), "").empty());

  Error error;
  for (std::size_t capacity = 0; capacity <= tokens.size() + 1; ++capacity) {
    std::vector<nib_token> buffer(tokens.size() + 1, 77);
    std::size_t count = 0;
    const nib_status status =
        nib_model_encode(model.get(), text.c_str(), NIB_NUL, 0, buffer.data(), capacity, &count, &error);
    const bool fits = capacity == 0 || capacity >= tokens.size();
    CHECK(status == (fits ? NIB_OK : NIB_E_SMALL_BUFFER));
    CHECK(count == tokens.size());
    if (capacity < tokens.size())
      CHECK(std::count(buffer.begin(), buffer.end(), 77u) == static_cast<std::ptrdiff_t>(buffer.size()));
    else
      CHECK(std::equal(tokens.begin(), tokens.end(), buffer.begin()));
    CHECK(buffer.back() == 77);
  }
  for (std::size_t capacity = 0; capacity <= text.size() + 1; ++capacity) {
    std::string buffer(text.size() + 1, '#');
    std::size_t size = 0;
    const nib_status status = nib_model_decode(model.get(), tokens.data(), tokens.size(), 0, buffer.data(),
                                               capacity, &size, &error);
    const bool fits = capacity == 0 || capacity >= text.size();
    CHECK(status == (fits ? NIB_OK : NIB_E_SMALL_BUFFER));
    CHECK(size == text.size());
    CHECK(buffer == (capacity < text.size() ? std::string(text.size() + 1, '#') : text + '#'));
  }
}

TEST_CASE("special tokens are recognised and spelled only on request") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  const std::string text = "<|start|>user<|message|>Hello<|end|>";
  const std::vector<nib_token> plain = encode(model.get(), text);
  const std::vector<nib_token> special = encode(model.get(), text, NIB_TEXT_SPECIALS);
  CHECK(special.size() < plain.size());
  CHECK(decode(model.get(), plain) == text);
  CHECK(decode(model.get(), special) == "userHello");
  CHECK(decode(model.get(), special, NIB_TEXT_SPECIALS) == text);

  std::size_t size = 99;
  Error error;
  CHECK(nib_model_encode(model.get(), "a", 1, 2, nullptr, 0, &size, &error) == NIB_E_VERSION);
  CHECK(nib_model_decode(model.get(), plain.data(), 1, 4, nullptr, 0, &size, &error) == NIB_E_VERSION);
  const nib_token unknown = 4096;
  CHECK(nib_model_decode(model.get(), &unknown, 1, 0, nullptr, 0, &size, &error) == NIB_E_ARGUMENT);
  CHECK(error.says("4096"));
  CHECK(nib_model_encode(model.get(), nullptr, 3, 0, nullptr, 0, &size, &error) == NIB_E_ARGUMENT);
  CHECK(nib_model_encode(model.get(), "a", 1, 0, nullptr, 1, &size, &error) == NIB_E_ARGUMENT);
  CHECK(nib_model_encode(model.get(), "a", 1, 0, nullptr, 0, nullptr, &error) == NIB_E_ARGUMENT);
  CHECK(nib_model_decode(model.get(), nullptr, 1, 0, nullptr, 0, &size, &error) == NIB_E_ARGUMENT);
  CHECK(size == 99);
}

TEST_CASE("explain: every item until the end, and nothing written where it may not") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  nib_model_info info = NIB_MODEL_INFO_INIT;
  REQUIRE(nib_model_get_info(model.get(), &info) == NIB_OK);
  std::uint64_t decode = 0, cache = 0;
  std::uint32_t count = 0;
  bool experts = false;
  for (;; ++count) {
    nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
    const nib_status status = nib_model_explain(model.get(), count, &item);
    if (status == NIB_END) break;
    REQUIRE(status == NIB_OK);
    decode += item.decode_bytes;
    if (item.purpose == NIB_PURPOSE_KV_CACHE) cache += item.bytes;
    for (const auto& [text, size] : {std::pair{item.name, item.name_size},
                                     {item.op, item.op_size},
                                     {item.format, item.format_size},
                                     {item.computed, item.computed_size},
                                     {item.kernel, item.kernel_size},
                                     {item.instruction_set, item.instruction_set_size},
                                     {item.device, item.device_size}}) {
      REQUIRE(text);
      CHECK(size > 0);
      CHECK(std::strlen(text) == size);
    }
    CHECK(item.flags == 0);  // every format of this model has kernels of its own
    experts = experts || (std::string(item.format) == "mxfp4" && std::string(item.op) == "experts" &&
                          std::string(item.kernel) == "tiles" && std::string(item.computed) == "bf16");
  }
  CHECK(count > 6 * 10);
  CHECK(experts);
  CHECK(decode == info.decode_bytes);
  CHECK(cache > 0);

  nib_explain_item item;
  std::memset(&item, 7, sizeof item);
  item.struct_size = sizeof item;
  nib_explain_item before = item;
  CHECK(nib_model_explain(model.get(), count, &item) == NIB_END);
  CHECK(nib_model_explain(model.get(), UINT32_MAX, &item) == NIB_END);
  CHECK(nib_model_explain(nullptr, 0, &item) == NIB_E_ARGUMENT);
  CHECK(std::memcmp(&item, &before, sizeof item) == 0);
  CHECK(nib_model_explain(model.get(), 0, nullptr) == NIB_E_ARGUMENT);
  item.struct_size = 32;  // an older program
  before = item;
  CHECK(nib_model_explain(model.get(), 0, &item) == NIB_OK);
  CHECK(item.bytes != before.bytes);
  CHECK(std::memcmp(&item.name, &before.name, sizeof item - 32) == 0);
}
