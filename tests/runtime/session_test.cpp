// Sessions on the shipped model: what a host may count on.
#include "support/tales.hpp"

#include <cstring>
#include <numeric>
#include <thread>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::vector<Token> generated(Session& session, std::uint32_t count) {
  const std::size_t before = session.tokens().size();
  auto result = session.generate({.max_tokens = count});
  REQUIRE_MESSAGE(result.ok(), result.status().message());
  return {session.tokens().begin() + static_cast<std::ptrdiff_t>(before), session.tokens().end()};
}

TEST_CASE("slow: what is opened spends what was planned, and no more") {
  auto runtime = make_runtime();
  for (const std::uint32_t context : {64u, 1000u, 5000u}) {
    const SessionOptions options{.context = context, .sampler = {.greedy = true}};
    const Plan plan = make_plan(*runtime, kTales, {}, options, 2).take();
    CHECK(plan.summary.fits);
    auto model = Model::open(runtime, plan).take();
    auto first = start(model, options), second = start(model, options);
    CHECK(Session::create(model, options).status().code() == Code::budget);
    REQUIRE(first->append(random_tokens(context - 20, 1)).ok());
    generated(*first, 10);
    REQUIRE(first->rewind(10).ok());
    REQUIRE(first->append(random_tokens(context - 30, 2)).ok());
    const Memory& memory = model->memory();
    CHECK(memory.peak(Purpose::weights) == plan.bytes(Purpose::weights));
    CHECK(memory.peak(Purpose::kv_cache) == plan.bytes(Purpose::kv_cache));
    CHECK(memory.peak(Purpose::activations) == plan.bytes(Purpose::activations));
    CHECK(memory.peak(Purpose::staging) == plan.bytes(Purpose::staging));
    CHECK(memory.in_use(Purpose::staging) == 0);
    std::uint64_t sum = 0;
    for (const PlanItem& item : plan.items) sum += item.bytes;
    CHECK(sum == plan.summary.host_bytes);
  }
}

TEST_CASE("the longest context is the longest") {
  auto runtime = make_runtime();
  const std::uint64_t budget = 120u << 20;
  const Plan plan = make_plan(*runtime, kTales, {.host_budget = budget}).take();
  const std::uint32_t longest = plan.summary.longest_context;
  REQUIRE(longest > 4096);
  CHECK(make_plan(*runtime, kTales, {.host_budget = budget}, {.context = longest}).take().summary.fits);
  CHECK_FALSE(
      make_plan(*runtime, kTales, {.host_budget = budget}, {.context = longest + 64}).take().summary.fits);
  const auto refused = Model::open(runtime, kTales, {.host_budget = 1 << 20});
  CHECK(refused.status().code() == Code::budget);
  CHECK(refused.status().message().find("1048576") != std::string::npos);
}

TEST_CASE("slow: 2,500 tokens: the same bits for every chunk, thread count, backend, rewind and neighbour") {
  const auto prompt = random_tokens(2500, 3);
  const SessionOptions options{.context = 3000, .sampler = {.greedy = true}};
  std::vector<float> expected;
  auto check = [&](const char* what, std::span<const float> logits) {
    CAPTURE(what);
    if (expected.empty()) expected = copy(logits);
    CHECK(logits.size() == expected.size());
    CHECK(std::memcmp(logits.data(), expected.data(), logits.size_bytes()) == 0);
  };
  for (const std::uint32_t rows : {300u, 64u, 7u})
    for (const int threads : {1, 3}) {
      auto session = start(open_tales({.prefill_rows = rows}, options, threads), options);
      REQUIRE(session->append(prompt).ok());
      check("chunks and threads", session->logits());
    }
  auto runtime = make_runtime();
  for (const BackendInfo& backend : runtime->backends())
    if (backend.present && backend.name != "scalar") {
      auto session = start(open_tales({.backend = backend.name}, options), options);
      REQUIRE(session->append(prompt).ok());
      check(backend.name.c_str(), session->logits());
      // Back across many windows, something else in between, and forward again.
      for (const std::uint64_t to : {2499u, 2400u, 1500u, 1024u, 1000u, 100u}) {
        REQUIRE(session->rewind(to).ok());
        REQUIRE(session->append(random_tokens(77, 5)).ok());
        REQUIRE(session->rewind(to).ok());
        REQUIRE(session->append(std::span(prompt).subspan(to)).ok());
        check("rewind", session->logits());
      }
      auto resumed = session->resume(prompt);
      CHECK(resumed.ok());
      CHECK(*resumed == 0);
    }
}

TEST_CASE("a batch step gives each session what it would get alone") {
  const SessionOptions options{
      .context = 200, .sampler = {.temperature = 0.9f, .top_p = 0.9f, .seed = 5}, .ignore_model_stops = true};
  auto runtime = make_runtime();
  auto model = Model::open(runtime, make_plan(*runtime, kTales, {}, options, 5).take()).take();
  std::vector<std::vector<Token>> alone;
  for (unsigned i = 0; i < 4; ++i) {
    auto session = start(model, options);
    REQUIRE(session->append(random_tokens(10 + 30 * i, i)).ok());
    alone.push_back(generated(*session, 20));
  }
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<Session*> batch;
  for (unsigned i = 0; i < 4; ++i) {
    batch.push_back(sessions.emplace_back(start(model, options)).get());
    REQUIRE(sessions.back()->append(random_tokens(10 + 30 * i, i)).ok());
  }
  auto empty = start(model, options);
  batch.push_back(empty.get());
  std::vector<StepResult> results(5);
  for (std::size_t step = 0; step < 20; ++step) {
    REQUIRE(batch_step(batch, results).ok());
    for (std::size_t i = 0; i < 4; ++i) CHECK(results[i].id == alone[i][step]);
    CHECK(results[4].status.code() == Code::state);
  }
  batch[1] = batch[0];
  CHECK(batch_step(batch, results).code() == Code::argument);
}

TEST_CASE("append is all or nothing, and a cancelled one leaves the session as it was") {
  auto model = open_tales({.prefill_rows = 32}, {.context = 600});
  auto session = start(model, {.context = 600, .sampler = {.greedy = true}});
  REQUIRE(session->append(random_tokens(300, 1)).ok());
  const auto logits = copy(session->logits());
  Cancel cancel;
  int calls = 0;
  struct Trigger {
    Cancel* cancel;
    int* calls;
  } trigger{&cancel, &calls};
  const ProgressSink progress{[](void* user, const Progress&) {
                                const auto& t = *static_cast<Trigger*>(user);
                                if (++*t.calls == 3) t.cancel->trigger();
                                return 0;
                              },
                              &trigger};
  CHECK(session->append(random_tokens(250, 2), &cancel, progress).code() == Code::stopped);
  CHECK(session->position() == 300);
  CHECK(copy(session->logits()) == logits);
  cancel.reset();
  CHECK(session->append(random_tokens(301, 2)).code() == Code::context_full);
  CHECK(session->append(std::vector<Token>{4096}).code() == Code::argument);
  CHECK(session->position() == 300);
  // It goes on as if nothing had happened.
  const auto continued = generated(*session, 12);
  session.reset();
  session = start(model, {.context = 600, .sampler = {.greedy = true}});
  REQUIRE(session->append(random_tokens(300, 1)).ok());
  CHECK(generated(*session, 12) == continued);
}

}  // namespace
}  // namespace nib::test
