// A device that fails at one call, or from one call on, or whose caller loses patience, while a model with
// slots for experts is opened, asked and closed: always a status that names what there was no room for,
// nothing left behind, and the same tokens when the device is there again.
#include "faulty_library.hpp"
#include "support/random.hpp"
#include <nibble/runtime/session.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

const std::string kTales = NIBBLE_TALES;  // set by CMake

Faults& faults() {
  static Faults& found = []() -> Faults& {
    void* const handle = dlopen(NIBBLE_FAULTY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    REQUIRE_MESSAGE(handle, dlerror());
    void* const symbol = dlsym(handle, kFaultsSymbol);
    REQUIRE(symbol);
    return *static_cast<Faults*>(symbol);
  }();
  return found;
}

// Calls [first, end) fail, counted from now on.
void fail(std::int64_t first, std::int64_t end) {
  faults().cancel = nullptr;
  faults().calls = 0;
  faults().first = first;
  faults().end = end;
  faults().failed = "";
}
void fail_never() { fail(Faults::kNever, Faults::kNever); }

const SessionOptions kWish{.context = 64, .sampler = {.greedy = true}, .ignore_model_stops = true};

// The last two layers of tales on the device, with slots for four of 16 experts.
Plan plan_of(const std::shared_ptr<Runtime>& runtime) {
  ModelOptions options{.device_layers = 2};
  const Plan whole = make_plan(*runtime, kTales, options, kWish).take();
  std::uint64_t experts = 0;
  for (const PlanItem& item : whole.items)
    if (item.device == "cuda:0" && item.name.starts_with("experts")) experts += item.bytes;
  options.expert_cache_bytes = experts / 4 + 8192;  // and tables
  return make_plan(*runtime, kTales, options, kWish).take();
}

// What a session says.
struct Said {
  std::vector<float> numbers;
  Status status;
};
Said ask(const std::shared_ptr<Model>& model, const Cancel* cancel = nullptr) {
  Said said;
  said.status = [&]() -> Status {
    NIB_ASSIGN(const std::unique_ptr<Session> session, Session::create(model, kWish));
    NIB_TRY(session->append(std::vector<Token>{433, 2, 97}, cancel));
    for (int i = 0; i < 2; ++i) {
      NIB_ASSIGN(const auto step, session->step(cancel));
      said.numbers.push_back(static_cast<float>(step.id));
      said.numbers.push_back(step.log_probability);
    }
    return {};
  }();
  return said;
}

// What failed, by the message.
void check_status(const Status& status) {
  const std::string failed = faults().failed;
  CAPTURE(failed);
  CAPTURE(status.message());
  if (failed.starts_with("allocate")) {
    CHECK(status.code() == Code::memory);
    const bool is_locked = status.message().starts_with("page-locked memory for the experts of " + kTales);
    CHECK(is_locked == (failed == "allocate_locked"));
    CHECK(status.message().find(": cannot allocate ") != std::string::npos);
  } else {
    CHECK(status.code() == Code::device);
    CHECK(status.message().ends_with("the device was lost"));
  }
}

// Every few calls, from a drawn one on: alone, and with all that come after it.
constexpr int kEveryOpening = 3, kEveryAsking = 9;

TEST_CASE("slots: a device that is lost or has no room while a model is opened or asked") {
  NIB_RANDOM(random);
  const auto runtime = Runtime::create({.threads = 2, .cuda_library = NIBBLE_FAULTY}).take();
  const Plan plan = plan_of(runtime);
  fail_never();
  auto opened = Model::open(runtime, plan);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  const std::int64_t to_open = faults().calls;
  std::shared_ptr<Model> model = opened.take();
  fail_never();
  const Said expected = ask(model);
  REQUIRE_MESSAGE(expected.status.ok(), expected.status.message());
  const std::int64_t to_ask = faults().calls;
  MESSAGE(to_open, " calls to open, ", to_ask, " to ask");

  const auto check_next = [&] {
    fail_never();
    const Said again = ask(model);
    CHECK(again.status.ok());
    CHECK(again.numbers == expected.numbers);
  };
  int cancelled = 0;
  for (std::int64_t at = random.below(kEveryAsking); at < to_ask; at += kEveryAsking) {
    CAPTURE(at);
    for (const bool is_lost : {false, true}) {
      CAPTURE(is_lost);
      fail(at, is_lost ? Faults::kNever : at + 1);
      check_status(ask(model).status);
      check_next();
    }
    Cancel cancel;
    fail(at, at + 1);
    faults().cancel = &cancel;
    const Said said = ask(model, &cancel);
    CHECK((said.status.code() == Code::stopped || said.numbers == expected.numbers));  // at its end
    cancelled += !said.status.ok();
    check_next();
  }
  CHECK(cancelled > 0);
  model.reset();
  CHECK(faults().blocks == 0);
  CHECK(faults().queues == 0);

  for (std::int64_t at = random.below(kEveryOpening); at < to_open; at += kEveryOpening) {
    CAPTURE(at);
    fail(at, random.chance(50) ? Faults::kNever : at + 1);
    check_status(Model::open(runtime, plan).status());
    CHECK(faults().blocks == 0);
    CHECK(faults().queues == 0);
  }
  fail_never();
  model = Model::open(runtime, plan).take();
  CHECK(ask(model).numbers == expected.numbers);
}

}  // namespace
}  // namespace nib::test
