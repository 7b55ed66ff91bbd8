// Threads, callbacks, cancel, fork, and freeing in any order.
#include "support.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

using namespace nib::test;

namespace {

constexpr const char* kPrompt = "One day a girl found";

// Steps on, whatever the model wishes to end.
nib_session_options endless() {
  nib_session_options options = NIB_SESSION_OPTIONS_INIT;
  options.flags = NIB_SESSION_IGNORE_MODEL_STOPS;
  return options;
}

// A session with a prompt, generating with `on_token` as its callback.
nib_status generate(nib_session* session, std::uint32_t max_tokens,
                    std::function<int(const nib_token_event&)> on_token, nib_usage* usage = nullptr,
                    nib_cancel* cancel = nullptr) {
  nib_generate_options options = NIB_GENERATE_OPTIONS_INIT;
  options.max_tokens = max_tokens;
  options.on_token_user = &on_token;
  options.on_token = [](void* user, const nib_token_event* event) -> std::int32_t {
    return (*static_cast<std::function<int(const nib_token_event&)>*>(user))(*event);
  };
  options.cancel = cancel;
  return nib_session_generate(session, &options, usage, nullptr);
}

// Calls every function of a session that is at work, and counts those that do not say BUSY.
int not_busy(nib_session* session) {
  nib_token id = 0;
  const float* values = nullptr;
  const nib_token* tokens = nullptr;
  std::size_t count = 0;
  nib_step_result result;
  const nib_status statuses[] = {
      nib_session_append(session, &id, 1, nullptr),
      nib_session_resume(session, &id, 1, nullptr, nullptr),
      nib_session_step(session, &id, nullptr),
      nib_session_generate(session, nullptr, nullptr, nullptr),
      nib_session_rewind(session, 0, nullptr),
      nib_session_get_logits(session, &values, &count),
      nib_session_get_tokens(session, &tokens, &count),
      nib_session_get_position(session, &count, nullptr),
      nib_batch_step(&session, 1, &result, sizeof result, nullptr),
  };
  return static_cast<int>(std::count_if(std::begin(statuses), std::end(statuses),
                                        [](nib_status status) { return status != NIB_E_BUSY; }));
}

}  // namespace

TEST_CASE("a session at work is BUSY for other threads and for its own callback, and undisturbed") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 2, 128);
  const nib_session_options options = endless();
  const SessionHandle session = make_session(model.get(), &options),
                      other = make_session(model.get(), &options);
  append(session.get(), encode(model.get(), kPrompt));
  append(other.get(), encode(model.get(), kPrompt));

  std::promise<void> started, seen;
  int in_callback = -1;
  std::thread worker([&] {
    CHECK(generate(session.get(), 3, [&](const nib_token_event&) {
            if (in_callback < 0) {
              in_callback = not_busy(session.get());
              started.set_value();
              seen.get_future().wait();
            }
            return 0;
          }) == NIB_OK);
  });
  started.get_future().wait();
  CHECK(not_busy(session.get()) == 0);
  nib_token id = 0;
  CHECK(nib_session_step(other.get(), &id, nullptr) == NIB_OK);  // others go on
  // A batch with a busy session is refused whole, and lets go of those it had claimed.
  nib_session* const both[] = {other.get(), session.get()};
  nib_step_result results[2];
  CHECK(nib_batch_step(both, 2, results, sizeof results[0], nullptr) == NIB_E_BUSY);
  CHECK(nib_session_step(other.get(), &id, nullptr) == NIB_OK);
  seen.set_value();
  worker.join();
  CHECK(in_callback == 0);
  CHECK(held(session.get()).size() == encode(model.get(), kPrompt).size() + 3);
}

TEST_CASE("a callback's wish to stop is obeyed after its token") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 128);
  const nib_session_options options = endless();
  const SessionHandle session = make_session(model.get(), &options);
  append(session.get(), encode(model.get(), kPrompt));
  const std::size_t before = held(session.get()).size();
  nib_usage usage = NIB_USAGE_INIT;
  int calls = 0;
  CHECK(generate(
            session.get(), 50, [&](const nib_token_event&) { return ++calls == 4 ? -7 : 0; }, &usage) ==
        NIB_STOPPED);
  CHECK(calls == 4);
  CHECK(usage.finish == NIB_FINISH_CANCELLED);
  CHECK(usage.tokens == 4);
  CHECK(held(session.get()).size() == before + 4);
  CHECK(generate(session.get(), 2, [](const nib_token_event&) { return 0; }) == NIB_OK);
}

TEST_CASE("a cancel stops a long generate from another thread, and stays until it is reset") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get());
  nib_cancel* made = nullptr;
  REQUIRE(nib_cancel_create(&made) == NIB_OK);
  const CancelHandle cancel(made);
  nib_session_options options = endless();
  const bool by_session = std::random_device{}() % 2;  // the session's own, or the call's
  if (by_session) options.cancel = made;
  const SessionHandle session = make_session(model.get(), &options);
  append(session.get(), encode(model.get(), kPrompt));

  std::promise<void> started;
  std::atomic<bool> told{false};
  std::thread canceller([&] {
    started.get_future().wait();
    nib_cancel_trigger(made);
  });
  nib_usage usage = NIB_USAGE_INIT;
  const auto on_token = [&](const nib_token_event&) {
    if (!told.exchange(true)) started.set_value();
    return 0;
  };
  CHECK(generate(session.get(), 0, on_token, &usage, by_session ? nullptr : made) == NIB_STOPPED);
  canceller.join();
  CHECK(usage.finish == NIB_FINISH_CANCELLED);
  CHECK(usage.tokens >= 1);
  CHECK(usage.tokens < 4000);
  const std::size_t position = held(session.get()).size();
  if (by_session) {
    nib_token id = 77;
    const nib_token more[] = {5, 6};
    CHECK(nib_session_step(session.get(), &id, nullptr) == NIB_STOPPED);
    CHECK(nib_session_append(session.get(), more, 2, nullptr) == NIB_STOPPED);
    CHECK(id == 77);
    CHECK(held(session.get()).size() == position);
  }
  nib_cancel_reset(made);
  CHECK(generate(session.get(), 2, on_token, &usage, by_session ? nullptr : made) == NIB_OK);
  CHECK(held(session.get()).size() == position + 2);
}

TEST_CASE("a progress callback stops a prefill, and the session holds what it held") {
  struct Watch {
    int calls = 0;
    bool stop = true;
  } watch;
  const RuntimeHandle runtime = make_runtime(2);
  nib_model_options model_options = NIB_MODEL_OPTIONS_INIT;
  model_options.prefill_rows = 16;
  nib_model* out = nullptr;
  REQUIRE(nib_model_open(runtime.get(), model_path(), NIB_NUL, &model_options, &out, nullptr) == NIB_OK);
  const ModelHandle model(out);
  nib_session_options options = endless();
  options.on_progress_user = &watch;
  options.on_progress = [](void* user, const nib_progress* progress) -> std::int32_t {
    auto& to = *static_cast<Watch*>(user);
    CHECK(progress->stage == NIB_STAGE_PREFILL);
    CHECK(progress->total == 100);
    return ++to.calls == 2 && to.stop;
  };
  const SessionHandle session = make_session(model.get(), &options);
  append(session.get(), {5, 6, 7});
  const std::vector<nib_token> prompt(100, 9);
  CHECK(nib_session_append(session.get(), prompt.data(), prompt.size(), nullptr) == NIB_STOPPED);
  CHECK(held(session.get()).size() == 3);
  CHECK(watch.calls == 2);
  watch.stop = false;
  append(session.get(), prompt);
  CHECK(watch.calls >= 6);
}

TEST_CASE("handles are freed in any order, and null is accepted") {
  nib_runtime_free(nullptr);
  nib_plan_free(nullptr);
  nib_model_free(nullptr);
  nib_session_free(nullptr);
  nib_cancel_free(nullptr);
  nib_cancel_trigger(nullptr);
  nib_cancel_reset(nullptr);

  std::array<int, 5> order = {0, 1, 2, 3, 4};
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 6; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    CAPTURE(order);
    nib_runtime* runtime = make_runtime(2).release();
    nib_cancel* cancel = nullptr;
    REQUIRE(nib_cancel_create(&cancel) == NIB_OK);
    nib_plan* plan = nullptr;
    REQUIRE(nib_plan_create(runtime, model_path(), NIB_NUL, nullptr, nullptr, &plan, nullptr) == NIB_OK);
    nib_model* model = nullptr;
    REQUIRE(nib_model_open_planned(plan, &model, nullptr) == NIB_OK);
    nib_session_options options = endless();
    options.cancel = cancel;
    nib_session* session = make_session(model, &options).release();
    append(session, encode(model, kPrompt));
    bool session_lives = true;
    for (const int which : order) {
      if (which == 0) nib_runtime_free(runtime);
      if (which == 1) nib_plan_free(plan);
      if (which == 2) nib_model_free(model);
      if (which == 3) nib_cancel_free(cancel);
      if (which == 4) nib_session_free(session);
      session_lives = session_lives && which != 4;
      if (session_lives) CHECK(generate(session, 2, [](const nib_token_event&) { return 0; }) == NIB_OK);
    }
  }
}

TEST_CASE("a session freed while it works is freed when that call ends, which is soon") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 128);
  const nib_session_options options = endless();
  for (const bool from_callback : {true, false}) {
    // One session fits: the second round finds the first one's memory back.
    nib_session* session = make_session(model.get(), &options).release();
    append(session, encode(model.get(), kPrompt));
    int calls = 0;
    std::promise<void> started;
    std::promise<void> freed;
    std::thread other([&] {
      if (from_callback) return;
      started.get_future().wait();
      nib_session_free(session);
      freed.set_value();
    });
    CHECK(generate(session, 100, [&](const nib_token_event&) {
            if (++calls != 3) return 0;
            if (from_callback) {
              nib_session_free(session);
            } else {
              started.set_value();
              freed.get_future().wait();
            }
            return 0;
          }) == NIB_STOPPED);
    other.join();
    CHECK(calls == 3);
  }
  const SessionHandle last = make_session(model.get(), &options);
  append(last.get(), encode(model.get(), kPrompt));
}

TEST_CASE("after a fork the child gets STATE and may free; a runtime of its own works there") {
  nib_runtime* runtime = make_runtime(2).release();
  nib_plan* plan = nullptr;
  REQUIRE(nib_plan_create(runtime, model_path(), NIB_NUL, nullptr, nullptr, &plan, nullptr) == NIB_OK);
  nib_model* model = open_model(runtime).release();
  nib_session* session = make_session(model).release();
  append(session, encode(model, kPrompt));
  nib_cancel* cancel = nullptr;
  REQUIRE(nib_cancel_create(&cancel) == NIB_OK);

  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    nib_error error = NIB_ERROR_INIT;
    nib_backend_info backend = NIB_BACKEND_INFO_INIT;
    nib_plan_summary summary = NIB_PLAN_SUMMARY_INIT;
    nib_model_info info = NIB_MODEL_INFO_INIT;
    nib_model* model_out = nullptr;
    nib_session* session_out = nullptr;
    nib_token id = 0;
    std::size_t count = 0;
    const nib_status statuses[] = {
        nib_runtime_get_backend(runtime, 0, &backend),
        nib_plan_get_summary(plan, &summary),
        nib_model_open_planned(plan, &model_out, &error),
        nib_model_open(runtime, model_path(), NIB_NUL, nullptr, &model_out, &error),
        nib_model_get_info(model, &info),
        nib_model_encode(model, "a", 1, 0, nullptr, 0, &count, &error),
        nib_session_create(model, nullptr, &session_out, &error),
        nib_session_append(session, &id, 1, &error),
        nib_session_step(session, &id, &error),
        nib_session_get_position(session, &count, nullptr),
    };
    int wrong = 0;
    for (const nib_status status : statuses) wrong += status != NIB_E_STATE;
    wrong += std::string_view(error.message).find("fork") == std::string_view::npos;
    nib_cancel_trigger(cancel);
    nib_session_free(session);
    nib_model_free(model);
    nib_plan_free(plan);
    nib_runtime_free(runtime);
    nib_cancel_free(cancel);
    nib_runtime* own = nullptr;
    nib_session* asked = nullptr;
    const nib_status begun[] = {
        nib_runtime_create(nullptr, &own, &error),
        nib_model_open(own, model_path(), NIB_NUL, nullptr, &model_out, &error),
        nib_session_create(model_out, nullptr, &asked, &error),
        nib_session_append(asked, &id, 1, &error),
        nib_session_step(asked, &id, &error),
    };
    for (const nib_status status : begun) wrong += status < 0;
    nib_session_free(asked);
    nib_model_free(model_out);
    nib_runtime_free(own);
    _exit(wrong);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  nib_token id = 0;
  CHECK(nib_session_step(session, &id, nullptr) >= 0);  // the parent is none the worse
  nib_runtime_free(runtime);
  nib_session_free(session);
  nib_plan_free(plan);
  nib_model_free(model);
  nib_cancel_free(cancel);
}
