// Models with a part for a device: sums, budgets, refusals, as far as headers tell; and on the emulated
// devices what sessions of theirs do.
#include "support/data.hpp"
#include "support/tales.hpp"
#include <nibble/base/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr std::uint32_t kLayers = 6;

Plan plan_of(const ModelOptions& options, std::uint32_t context = 0, std::uint32_t sessions = 1) {
  auto plan = make_plan(*make_runtime(1), kTales, options, {.context = context}, sessions);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  return plan.take();
}

std::uint64_t sum(const Plan& plan, Place place) {
  std::uint64_t bytes = 0;
  for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::activations, Purpose::staging})
    bytes += plan.bytes(purpose, place);
  return bytes;
}

TEST_CASE("placement: the last layers, the head beyond them, experts apart") {
  CHECK_FALSE(Placement::of_last(kLayers, 0, true).uses_device());
  for (std::uint32_t count = 1; count <= kLayers + 2; ++count) {
    const Placement all = Placement::of_last(kLayers, count, false),
                    some = Placement::of_last(kLayers, count, true);
    CHECK((all.head == Place::device) == (count > kLayers));
    for (std::uint32_t l = 0; l < kLayers; ++l) {
      const Place expected = l + count >= kLayers ? Place::device : Place::host;
      CHECK(all.layer(l).attention == expected);
      CHECK(all.layer(l).experts == expected);
      CHECK(some.layer(l).attention == expected);
      CHECK(some.layer(l).experts == Place::host);
    }
  }
}

TEST_CASE("placement: a plan's items are its sums, in both places") {
  const Plan host = plan_of({}, 1000, 2);
  CHECK(host.summary.device_bytes == 0);
  for (const bool apart : {false, true})
    for (const std::uint32_t count : {1u, 2u, kLayers, kLayers + 1, 99u}) {
      CAPTURE(count);
      const Plan plan = plan_of({.device_layers = count, .host_experts = apart, .device = 1}, 1000, 2);
      CHECK(sum(plan, Place::host) == plan.summary.host_bytes);
      CHECK(sum(plan, Place::device) == plan.summary.device_bytes);
      CHECK(plan.bytes(Purpose::staging, Place::device) == 0);
      CHECK(plan.summary.fits);
      CHECK(plan.summary.parameters == host.summary.parameters);
      CHECK(plan.summary.stored_bytes == host.summary.stored_bytes);
      CHECK(plan.summary.kv_bytes_per_token == host.summary.kv_bytes_per_token);
      CHECK(plan.bytes(Purpose::kv_cache) + plan.bytes(Purpose::kv_cache, Place::device) ==
            host.bytes(Purpose::kv_cache));
      CHECK(plan.predict({.read_bytes_per_second = 1e9, .dot_flops_per_second = 1e9})
                .decode_tokens_per_second == 0);
      for (const PlanItem& item : plan.items) CHECK((item.device == "host" || item.device == "cuda:1"));
    }
}

TEST_CASE("placement: what a model's config alone says is what its files say") {
  const Json config = parse_json(read_text(kTales + "/config.json"), "config.json").take();
  const ModelOptions options{.device_layers = 3};
  const Plan files = plan_of(options),
             alone = make_plan_of_config(*make_runtime(1), config, "c", options).take();
  CHECK(alone.summary.host_bytes == files.summary.host_bytes);
  CHECK(alone.summary.device_bytes == files.summary.device_bytes);
}

TEST_CASE("placement: the longest context is the longest in both places") {
  const auto check = [](const ModelOptions& options) {
    const std::uint32_t longest = plan_of(options, 1000).summary.longest_context;
    CAPTURE(longest);
    REQUIRE(longest > 1000);
    REQUIRE(longest < 131072);
    CHECK(plan_of(options, longest).summary.fits);
    CHECK_FALSE(plan_of(options, longest + 64).summary.fits);
  };
  ModelOptions options{.host_budget = 64u << 20, .device_layers = 2, .device_budget = 1u << 30};
  check(options);  // the host is what ends it
  options.host_budget = 1u << 30;
  for (std::uint64_t budget = 64u << 20; budget < (64u << 20) + 16000; budget += 1777) {
    CAPTURE(budget);
    options.device_budget = budget;
    check(options);  // the device
  }
}

TEST_CASE("placement: too little for the device is told before it is asked") {
  ModelOptions options{.device_layers = 2};
  const std::uint64_t needs = plan_of(options).summary.device_bytes;
  options.device_budget = needs;
  CHECK(plan_of(options).summary.fits);
  options.device_budget = needs - 1;
  const Plan plan = plan_of(options);
  CHECK_FALSE(plan.summary.fits);
  CHECK(plan.summary.longest_context < plan.summary.context);
  const auto opened = Model::open(make_runtime(1), plan);  // whose library does not exist
  CHECK(opened.status().code() == Code::budget);
  CHECK(opened.status().message().find(std::to_string(needs)) != std::string::npos);
  options = {.device_budget = 1};  // and no layer there
  CHECK(plan_of(options).summary.fits);
}

void check_refused(const ModelOptions& options, Code code, std::string_view says) {
  const auto plan = make_plan(*make_runtime(1), kTales, options);
  CAPTURE(plan.status().message());
  CHECK(plan.status().code() == code);
  CHECK(plan.status().message().find(kTales) == 0);
  CHECK(plan.status().message().find(says) != std::string::npos);
}

TEST_CASE("placement: what cannot be planned") {
  check_refused({.numerics = Numerics::f32, .device_layers = 1}, Code::unsupported, "f32 numerics");
  check_refused({.numerics = Numerics::int8, .allow_fallback = true, .device_layers = 1}, Code::unsupported,
                "int8 numerics");
  Placement five;
  five.layers.resize(kLayers - 1, {Place::device, Place::device});
  check_refused({.placement = five}, Code::argument, "placement is of 5 layers, the model has 6");
  five.layers.resize(kLayers + 1);
  check_refused({.placement = five}, Code::argument, "placement is of 7 layers, the model has 6");
  Placement head;
  head.head = Place::device;  // alone
  CHECK(plan_of({.placement = head}).summary.device_bytes > 0);
}

TEST_CASE("placement: why a device cannot be had") {
  const auto open = [](const char* library, int device = 0) {
    auto runtime = Runtime::create({.threads = 1, .cuda_library = library}).take();
    const auto model = Model::open(runtime, kTales, {.device_layers = 1, .device = device});
    CAPTURE(model.status().message());
    CHECK(model.status().message().find(kTales) == 0);
    return model.status().code();
  };
  CHECK(open("/no/such/library.so") == Code::not_found);
  CHECK(open(NIBBLE_FAKE_absent) == Code::unsupported);
  CHECK(open(NIBBLE_FAKE_failing) == Code::device);
  CHECK(open(NIBBLE_FAKE_version) == Code::version);
  CHECK(open(NIBBLE_FAKE_full) == Code::device_memory);
  CHECK(open(NIBBLE_FAKE_full, 2) == Code::not_found);
  CHECK(open(NIBBLE_FAKE_full, -1) == Code::not_found);
}

std::shared_ptr<Runtime> emulated() {
  return Runtime::create({.threads = 2, .cuda_library = NIBBLE_EMULATED}).take();
}

std::shared_ptr<Model> open_there(const ModelOptions& options, const SessionOptions& session = {}) {
  auto model = Model::open(emulated(), kTales, options, session);
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return model.take();
}

// Draws `count` tokens: whatever is not the processor's choice was nearly a tie there.
void check_follows(Session& session, Session& processor, int count) {
  for (int i = 0; i < count; ++i) {
    const std::span<const float> logits = processor.logits();
    REQUIRE(!logits.empty());
    const auto theirs = static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    const auto ours = session.step();
    REQUIRE_MESSAGE(ours.ok(), ours.status().message());
    if (ours->id != theirs) {
      CHECK(logits[theirs] - logits[ours->id] < 0.2f);
      return;
    }
    REQUIRE(processor.append(std::span(&theirs, 1)).ok());
  }
}

TEST_CASE("slow: placement: sessions on a device tell the processor's story, within what was planned") {
  const std::vector<Token> prompt = {433, 2, 97, 1203, 51, 8};
  const SessionOptions wish{.context = 200, .sampler = {.greedy = true}, .ignore_model_stops = true};
  const auto here = open_tales({}, wish);
  for (const int device : {0, 1})
    for (const bool apart : {false, true})
      for (const std::uint32_t layers : {2u, kLayers + 1}) {
        const ModelOptions options{.device_layers = layers, .host_experts = apart, .device = device};
        const auto model = open_there(options, wish);
        CHECK(model->info().device.find("emulated") == 0);
        const auto session = start(model, wish), processor = start(here, wish);
        REQUIRE(session->append(prompt).ok());
        REQUIRE(processor->append(prompt).ok());
        check_follows(*session, *processor, device == 0 ? 24 : 4);
        const Plan plan = make_plan(*model->runtime(), kTales, options, wish).take();
        for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::activations}) {
          CHECK(model->device_memory()->peak(purpose) == plan.bytes(purpose, Place::device));
          CHECK(model->memory().peak(purpose) <= plan.bytes(purpose));
        }
      }
}

TEST_CASE(
    "placement: a step of many sessions on a device, and one that goes back, have the bits of one alone") {
  const SessionOptions wish{.context = 200, .sampler = {.greedy = true}, .ignore_model_stops = true};
  auto plan = make_plan(*emulated(), kTales, {.device_layers = 99}, wish, 3);
  REQUIRE(plan.ok());
  auto opened = Model::open(emulated(), *plan);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  const auto model = opened.take();
  const auto alone = start(model, wish), first = start(model, wish), second = start(model, wish);
  const std::vector<Token> prompt = {10, 20, 30, 40, 50, 60, 70};
  for (const auto* session : {&alone, &first}) REQUIRE((*session)->append(prompt).ok());
  REQUIRE(second->append(std::vector<Token>{5, 4}).ok());
  Session* const both[] = {second.get(), first.get()};
  for (int i = 0; i < 4; ++i) {
    StepResult results[2];
    REQUIRE(batch_step(both, results).ok());
    const auto step = alone->step();
    REQUIRE(step.ok());
    CHECK(results[1].id == step->id);
    CHECK(results[1].log_probability == step->log_probability);
  }
  REQUIRE(first->rewind(3).ok());
  REQUIRE(first->append(std::span(prompt).subspan(3)).ok());
  REQUIRE(alone->rewind(7).ok());
  CHECK(first->step()->log_probability == alone->step()->log_probability);
}

// One session draws where its logits are; the other one is given the same tokens, so that each draw of its
// own is from logits that were fetched.
TEST_CASE("placement: a step draws from logits on the device what it would draw from them here") {
  const SamplerOptions samplers[] = {{.greedy = true, .repetition_penalty = 1.3f},
                                     {.temperature = 1.2f, .repetition_penalty = 1.2f, .seed = 1},
                                     {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .seed = 2},
                                     {.temperature = 1.5f, .min_p = 0.02f, .seed = 3},
                                     {.temperature = 3.0f, .top_p = 0.99f, .seed = 4}};
  for (const int device : {0, 1}) {
    SessionOptions wish{.context = 100, .ignore_model_stops = true};
    Placement head;  // alone, for it is what this is about
    head.head = Place::device;
    const ModelOptions options{.placement = head, .device = device};
    const auto plan = make_plan(*emulated(), kTales, options, wish, 2);
    REQUIRE(plan.ok());
    const auto model = Model::open(emulated(), *plan).take();
    for (const SamplerOptions& sampler : samplers) {
      CAPTURE(sampler.seed);
      wish.sampler = sampler;
      const auto there = start(model, wish), here = start(model, wish);
      const std::vector<Token> prompt = {433, 2, 97, 1203, 51, 8};
      for (const auto* session : {&there, &here}) REQUIRE((*session)->append(prompt).ok());
      for (int i = 0; i < (device == 0 ? 4 : 2); ++i) {
        REQUIRE(here->logits().size() == model->info().vocabulary);
        const auto ours = there->step(), theirs = here->step();
        REQUIRE_MESSAGE(ours.ok(), ours.status().message());
        REQUIRE(theirs.ok());
        CHECK(ours->id == theirs->id);
        CHECK(ours->log_probability == theirs->log_probability);
        const Token drawn[] = {theirs->id};
        REQUIRE(here->rewind(theirs->position).ok());
        REQUIRE(here->append(drawn).ok());
      }
      // Going back to where logits were fetched once: those are still there, or are computed again.
      REQUIRE(there->rewind(prompt.size()).ok());
      REQUIRE(here->rewind(prompt.size()).ok());
      const auto ours = there->step(), theirs = here->step();
      REQUIRE(ours.ok());
      REQUIRE(theirs.ok());
      CHECK(ours->id == theirs->id);
      CHECK(ours->log_probability == theirs->log_probability);
    }
    for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::activations}) {
      CHECK(model->device_memory()->peak(purpose) == plan->bytes(purpose, Place::device));
      CHECK(model->memory().peak(purpose) <= plan->bytes(purpose));
    }
  }
}

TEST_CASE("placement: a step of many sessions on a device draws for each as it wants it") {
  const SamplerOptions samplers[] = {{.greedy = true},
                                     {.temperature = 1.2f, .repetition_penalty = 1.2f, .seed = 1},
                                     {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .seed = 2}};
  Placement head;
  head.head = Place::device;
  SessionOptions wish{.context = 100, .ignore_model_stops = true};
  const auto plan = make_plan(*emulated(), kTales, {.placement = head}, wish, 6);
  REQUIRE(plan.ok());
  const auto model = Model::open(emulated(), *plan).take();
  std::vector<std::unique_ptr<Session>> alone, together;
  std::vector<Session*> batch;
  for (const SamplerOptions& sampler : samplers) {
    wish.sampler = sampler;
    for (auto* sessions : {&alone, &together}) {
      sessions->push_back(start(model, wish));
      REQUIRE(sessions->back()->append(std::vector<Token>{433, 2, 97, 1203, 51, 8}).ok());
    }
    batch.push_back(together.back().get());
  }
  for (int i = 0; i < 4; ++i) {
    std::vector<StepResult> results(batch.size());
    std::swap(batch[0], batch[1]);  // rows are whoever's
    REQUIRE(batch_step(batch, results).ok());
    for (std::size_t s = 0; s < alone.size(); ++s) {
      const auto step = alone[s]->step();
      REQUIRE(step.ok());
      const std::size_t at =
          static_cast<std::size_t>(std::find(batch.begin(), batch.end(), together[s].get()) - batch.begin());
      CHECK(results[at].id == step->id);
      CHECK(results[at].log_probability == step->log_probability);
    }
  }
}

// What were left on the device a leak checker finds: the emulated one's memory is the host's.
TEST_CASE("placement: loading that is stopped half way says so, and the model opens afterwards") {
  const auto runtime = emulated();
  const auto stop_late = [](void*, const Progress& progress) {
    return progress.done * 2 > progress.total ? 1 : 0;
  };
  const auto model = Model::open(runtime, kTales, {.device_layers = 99, .progress = {stop_late, nullptr}});
  CHECK(model.status().code() == Code::stopped);
  CHECK(Model::open(runtime, kTales, {.device_layers = 99}).ok());
}

}  // namespace
}  // namespace nib::test
