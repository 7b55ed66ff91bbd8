// The n-th allocation fails, for many n, of operator new and of the host's allocator: always a status,
// nothing leaked, and what was there before is as it was.
#include "failing_new.hpp"
#include "support.hpp"

#include <atomic>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

using namespace nib::test;

namespace {

constexpr const char* kPrompt = "A bird sat on the roof and sang";

// Which of `total` allocations to make fail: the first ones, the last ones, and some between.
std::vector<std::int64_t> failures(std::int64_t total, std::int64_t dense = 60, int sparse = 40) {
  std::vector<std::int64_t> all;
  for (std::int64_t n = 0; n < total; ++n)
    if (n < dense || n >= total - dense / 4) all.push_back(n);
  std::mt19937_64 random(std::random_device{}());
  for (int i = 0; i < sparse && total > dense; ++i)
    all.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(total)));
  return all;
}

// Calls `call` once to see how many allocations it makes, then once for each that fails. `call` returns the
// status and undoes what it did when that was NIB_OK.
void walk_new(const std::function<nib_status(Error&)>& call) {
  const auto run = [&](std::int64_t fail_at, std::int64_t& count) {
    Error error;
    const std::int64_t before = blocks_alive();
    nib_status status;
    {
      const FailNew failing(fail_at);
      status = call(error);
      count = failing.count();
    }
    CHECK(error.status == status);
    CHECK_MESSAGE(blocks_alive() == before, "leaked when allocation ", fail_at, " failed");
    return status;
  };
  Error first;
  REQUIRE(call(first) == NIB_OK);  // what is allocated once and kept for the next call is there now
  std::int64_t total = 0, count = 0;
  REQUIRE(run(FailNew::kNever, total) == NIB_OK);
  int refused = 0;
  for (const std::int64_t n : failures(total)) {
    CAPTURE(n);
    const nib_status status = run(n, count);
    // OK as well: an allocation that the library can do without.
    CHECK_MESSAGE((status == NIB_E_MEMORY || status == NIB_OK), nib_status_name(status));
    refused += status == NIB_E_MEMORY;
  }
  MESSAGE(total, " allocations, ", refused, " failures answered");
  if (total > 0) CHECK(refused > 0);
}

// A host allocator whose n-th block is refused.
struct Host {
  std::atomic<std::int64_t> taken{0}, alive{0};
  std::atomic<std::int64_t> fail_at{-1};

  nib_runtime_options options() {
    nib_runtime_options made = NIB_RUNTIME_OPTIONS_INIT;
    made.threads = 2;
    made.allocator_user = this;
    made.allocate = [](void* user, std::size_t bytes, std::size_t alignment) -> void* {
      auto& to = *static_cast<Host*>(user);
      if (to.taken++ == to.fail_at) return nullptr;
      ++to.alive;
      return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    };
    made.release = [](void* user, void* memory, std::size_t) {
      --static_cast<Host*>(user)->alive;
      std::free(memory);
    };
    return made;
  }
  void fail(std::int64_t n) {
    taken = 0;
    fail_at = n;
  }
};

}  // namespace

TEST_CASE("operator new fails: handles without a model") {
  walk_new([](Error& error) {
    nib_runtime* runtime = nullptr;
    nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    const nib_status status = nib_runtime_create(&options, &runtime, &error);
    CHECK((runtime != nullptr) == (status == NIB_OK));
    nib_runtime_free(runtime);
    return status;
  });
  walk_new([](Error& error) {
    nib_cancel* cancel = nullptr;
    error.status = nib_cancel_create(&cancel);
    CHECK((cancel != nullptr) == (error.status == NIB_OK));
    nib_cancel_free(cancel);
    return error.status;
  });
}

TEST_CASE("operator new fails: plan and open") {
  const RuntimeHandle runtime = make_runtime(2);
  walk_new([&](Error& error) {
    nib_plan* plan = garbage<nib_plan>();
    const nib_status status =
        nib_plan_create(runtime.get(), model_path(), NIB_NUL, nullptr, nullptr, &plan, &error);
    CHECK((plan != nullptr) == (status == NIB_OK));
    nib_plan_free(plan);
    return status;
  });
  walk_new([&](Error& error) {
    nib_model* model = garbage<nib_model>();
    const nib_status status = nib_model_open(runtime.get(), model_path(), NIB_NUL, nullptr, &model, &error);
    CHECK((model != nullptr) == (status == NIB_OK));
    nib_model_free(model);
    return status;
  });
}

TEST_CASE("operator new fails: encode, decode, a session's life") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 2, 256);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  walk_new([&](Error& error) {
    std::size_t count = 0;
    return nib_model_encode(model.get(), kPrompt, NIB_NUL, 0, nullptr, 0, &count, &error);
  });
  walk_new([&](Error& error) {
    std::size_t size = 0;
    return nib_model_decode(model.get(), prompt.data(), prompt.size(), 0, nullptr, 0, &size, &error);
  });
  walk_new([&](Error& error) {
    nib_session* session = nullptr;
    const nib_session_options options = greedy();
    nib_status status = nib_session_create(model.get(), &options, &session, &error);
    CHECK((session != nullptr) == (status == NIB_OK));
    if (status == NIB_OK) status = nib_session_append(session, prompt.data(), prompt.size(), &error);
    nib_token id = 0;
    for (int i = 0; i < 3 && status == NIB_OK; ++i) status = nib_session_step(session, &id, &error);
    nib_session* const alone[] = {session};
    nib_step_result result;
    if (status == NIB_OK) status = nib_batch_step(alone, 1, &result, sizeof result, &error);
    nib_generate_options few = NIB_GENERATE_OPTIONS_INIT;
    few.max_tokens = 3;
    if (status == NIB_OK) status = nib_session_generate(session, &few, nullptr, &error);
    nib_session_free(session);
    return status;
  });
}

TEST_CASE("after a failed allocation a session holds what it held, and goes on to the same tokens") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 2, 256);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  const nib_session_options options = greedy();
  std::vector<nib_token> expected;
  std::vector<float> expected_logits;
  nib_token id = 0;
  {
    const SessionHandle session = make_session(model.get(), &options);
    append(session.get(), prompt);
    expected_logits = logits(session.get());
    for (int i = 0; i < 3; ++i) REQUIRE(nib_session_step(session.get(), &id, nullptr) == NIB_OK);
    expected = held(session.get());
  }
  for (std::int64_t n = 0; n < 40; ++n) {
    CAPTURE(n);
    const SessionHandle session = make_session(model.get(), &options);
    append(session.get(), {5, 6});
    REQUIRE(nib_session_rewind(session.get(), 0, nullptr) == NIB_OK);
    // Each call fails once, then succeeds.
    const auto insist = [&](const std::function<nib_status()>& call) {
      const std::vector<nib_token> before = held(session.get());
      nib_status status;
      {
        const FailNew failing(n);
        status = call();
      }
      if (status == NIB_E_MEMORY) {
        CHECK(held(session.get()) == before);
        status = call();
      }
      CHECK(status == NIB_OK);
    };
    insist([&] { return nib_session_append(session.get(), prompt.data(), prompt.size(), nullptr); });
    CHECK(logits(session.get()) == expected_logits);
    insist([&] { return nib_session_step(session.get(), &id, nullptr); });
    insist([&] {
      nib_session* const alone[] = {session.get()};
      nib_step_result result;
      const nib_status status = nib_batch_step(alone, 1, &result, sizeof result, nullptr);
      return status == NIB_OK ? result.status : status;
    });
    const std::vector<nib_token> same = held(session.get());
    insist([&] { return nib_session_resume(session.get(), same.data(), same.size(), nullptr, nullptr); });
    insist([&] { return nib_session_step(session.get(), &id, nullptr); });
    CHECK(held(session.get()) == expected);
  }
}

TEST_CASE("a batch step that runs out of memory has taken no step that it does not report") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 3, 64);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  int refused = 0;
  for (std::int64_t n = 0; n < 40; ++n) {
    CAPTURE(n);
    std::vector<SessionHandle> sessions;
    std::vector<nib_session*> all;
    for (int i = 0; i < 3; ++i) {
      all.push_back(sessions.emplace_back(make_session(model.get())).get());
      append(all.back(), prompt);
    }
    nib_step_result results[3];
    nib_status status;
    {
      const FailNew failing(n);
      status = nib_batch_step(all.data(), all.size(), results, sizeof results[0], nullptr);
    }
    CHECK((status == NIB_OK || status == NIB_E_MEMORY));
    refused += status == NIB_E_MEMORY;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool stepped = status == NIB_OK && results[i].status >= 0;
      CHECK(held(all[i]).size() == prompt.size() + stepped);
    }
  }
  CHECK(refused > 0);
}

TEST_CASE("the host's allocator fails: open, session, append, step") {
  Host host;
  const nib_runtime_options options = host.options();
  nib_runtime* made = nullptr;
  REQUIRE(nib_runtime_create(&options, &made, nullptr) == NIB_OK);
  const RuntimeHandle runtime(made);
  const nib_token prompt[] = {5, 6, 7, 8};
  const auto life = [&](Error& error) {
    nib_model* model = nullptr;
    nib_session* session = nullptr;
    nib_token id = 0;
    nib_status status = nib_model_open(runtime.get(), model_path(), NIB_NUL, nullptr, &model, &error);
    CHECK((model != nullptr) == (status == NIB_OK));
    if (status == NIB_OK) status = nib_session_create(model, nullptr, &session, &error);
    if (status == NIB_OK) status = nib_session_append(session, prompt, 4, &error);
    if (status == NIB_OK) status = nib_session_step(session, &id, &error);
    nib_model_free(model);
    nib_session_free(session);
    return status;
  };
  Error error;
  host.fail(-1);
  REQUIRE_MESSAGE(life(error) == NIB_OK, error.text());
  const std::int64_t total = host.taken;
  CHECK(host.alive == 0);
  for (const std::int64_t n : failures(total, 24, 12)) {
    CAPTURE(n);
    host.fail(n);
    CHECK(life(error) == NIB_E_MEMORY);
    CHECK(!error.text().empty());
    CHECK(host.alive == 0);
  }
  MESSAGE(total, " blocks of the host's memory");
}
