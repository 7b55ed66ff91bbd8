// A budget for experts on a device: what is planned, what is refused, and what sessions do with it.
#include "support/data.hpp"
#include "support/tales.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr std::uint32_t kLayers = 6, kExperts = 16, kOfToken = 2;

Result<Plan> plan_with(std::uint64_t cache, std::uint32_t layers = 99, bool host_experts = false) {
  return make_plan(*make_runtime(1), kTales,
                   {.device_layers = layers, .host_experts = host_experts, .expert_cache_bytes = cache});
}
Plan planned(std::uint64_t cache, std::uint32_t layers = 99) {
  auto plan = plan_with(cache, layers);
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  return plan.take();
}

std::uint64_t bytes_of(const Plan& plan, std::string_view part, std::string_view device) {
  std::uint64_t bytes = 0;
  for (const PlanItem& item : plan.items)
    if (item.device == device && item.name.find(part) != std::string::npos) bytes += item.bytes;
  return bytes;
}
std::uint64_t sum(const Plan& plan, Place place) {
  std::uint64_t bytes = 0;
  for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::activations, Purpose::staging})
    bytes += plan.bytes(purpose, place);
  return bytes;
}

// The smallest cache, as the error says.
std::uint64_t smallest(std::uint32_t layers = 99) {
  const Status refused = plan_with(1, layers).status();
  CHECK(refused.code() == Code::budget);
  CHECK(refused.message().starts_with(kTales));
  constexpr std::string_view before = "the smallest that does has ";
  const std::size_t at = refused.message().find(before);
  REQUIRE_MESSAGE(at != std::string::npos, refused.message());
  return std::stoull(refused.message().substr(at + before.size()));
}

TEST_CASE("expert cache: what is planned for every budget from the smallest that works") {
  for (const std::uint32_t layers : {2u, kLayers + 1}) {
    CAPTURE(layers);
    const std::uint64_t least = smallest(layers), all = bytes_of(planned(0, layers), "experts", "cuda:0");
    CHECK(plan_with(least - 1, layers).status().code() == Code::budget);
    CHECK(least > all * kOfToken / kExperts);
    CHECK(least < all * kOfToken / kExperts + kLayers * 1024);  // tables
    std::uint64_t before = 0;
    for (std::uint64_t cache = least; cache < all; cache += all / 40) {
      const Plan plan = planned(cache, layers);
      const std::uint64_t slots = bytes_of(plan, "slots", "cuda:0");  // and their tables
      CHECK(slots <= cache);
      CHECK(slots >= before);
      CHECK(slots + all / kExperts + kLayers * 1024 > cache);  // there is no room for one more in each layer
      CHECK(bytes_of(plan, "page-locked", "host") == all);
      CHECK(sum(plan, Place::host) == plan.summary.host_bytes);
      CHECK(sum(plan, Place::device) == plan.summary.device_bytes);
      const Plan whole = planned(0, layers);
      CHECK(plan.summary.decode_bytes == whole.summary.decode_bytes);
      CHECK(plan.summary.parameters == whole.summary.parameters);
      CHECK(plan.summary.stored_bytes == whole.summary.stored_bytes);
      CHECK(whole.summary.device_bytes - plan.summary.device_bytes == all - slots);
      before = slots;
    }
    for (const std::uint64_t cache : {all, all + 1, UINT64_MAX}) {
      const Plan plan = planned(cache, layers);
      CHECK(bytes_of(plan, "slots", "cuda:0") == 0);
      CHECK(bytes_of(plan, "experts", "cuda:0") == all);
      CHECK(bytes_of(plan, "page-locked", "host") == 0);
    }
    CHECK(planned(least, layers).items.size() > 0);
  }
  const Plan plan = planned(smallest());
  CHECK(std::any_of(plan.items.begin(), plan.items.end(), [](const PlanItem& item) {
    return item.name == "experts (mxfp4), 2 slots for 16 in each layer";
  }));
}

TEST_CASE("expert cache: refused where the device computes no experts") {
  for (const auto& [layers, host_experts] : {std::pair{0u, false}, {99u, true}}) {
    const Status refused = plan_with(1 << 20, layers, host_experts).status();
    CHECK(refused.code() == Code::argument);
    CHECK(refused.message().starts_with(kTales));
    CHECK(refused.message().find("the device computes none") != std::string::npos);
  }
  NIB_REQUIRE_DATA(data);
  const auto dense = make_plan(*make_runtime(1), data + "/models/llama-2",
                               {.device_layers = 99, .expert_cache_bytes = 1 << 20});
  CHECK(dense.status().code() == Code::argument);
  CHECK(dense.status().message().find("none to choose among") != std::string::npos);
}

TEST_CASE("expert cache: no page-locked memory is an error that says so") {
  auto runtime = Runtime::create({.threads = 1, .cuda_library = NIBBLE_FAKE_unlocked}).take();
  const auto model = Model::open(runtime, kTales, {.device_layers = 99, .expert_cache_bytes = smallest()});
  CHECK(model.status().code() == Code::memory);
  CHECK(model.status().message().starts_with("page-locked memory for the experts of " + kTales));
  CHECK(Model::open(runtime, kTales, {.device_layers = 99}).ok());
}

std::shared_ptr<Runtime> emulated() {
  return Runtime::create({.threads = 2, .cuda_library = NIBBLE_EMULATED}).take();
}

TEST_CASE("expert cache: sessions say the same, within what was planned to the byte") {
  const std::vector<Token> prompt = {433, 2, 97, 1203, 51};
  const SessionOptions wish{.context = 64, .sampler = {.greedy = true}, .ignore_model_stops = true};
  std::vector<float> said[2];
  for (const bool has_cache : {false, true}) {
    const ModelOptions options{.device_layers = 99, .expert_cache_bytes = has_cache ? smallest() : 0};
    const auto runtime = emulated();
    auto opened = Model::open(runtime, kTales, options, wish);
    REQUIRE_MESSAGE(opened.ok(), opened.status().message());
    const auto model = opened.take();
    {
      const auto session = start(model, wish);
      REQUIRE(session->append(prompt).ok());
      for (int i = 0; i < 4; ++i) {
        const auto step = session->step();
        REQUIRE(step.ok());
        said[has_cache].push_back(static_cast<float>(step->id));
        said[has_cache].push_back(step->log_probability);
      }
    }
    const Plan plan = make_plan(*runtime, kTales, options, wish).take();
    for (const Purpose purpose : {Purpose::weights, Purpose::kv_cache, Purpose::activations})
      CHECK(model->device_memory()->peak(purpose) == plan.bytes(purpose, Place::device));
    CHECK(model->memory().peak(Purpose::weights) == plan.bytes(Purpose::weights));
    int with_slots = 0;
    for (const ExplainItem& item : model->explain()) {
      const bool is_slotted =
          has_cache && item.op == "experts" && item.name.find("bias") == std::string::npos;
      CHECK(item.slots == (is_slotted ? kOfToken : 0));
      CHECK(item.locked_bytes == (is_slotted ? item.bytes / kOfToken * kExperts : 0));
      with_slots += is_slotted;
    }
    CHECK(with_slots == (has_cache ? 2 * static_cast<int>(kLayers) : 0));
  }
  CHECK(said[0] == said[1]);
}

// What were left in page-locked memory a leak checker finds: the emulated device's is the host's.
TEST_CASE("expert cache: loading that is stopped half way, and a computation that is") {
  const auto runtime = emulated();
  const auto stop_late = [](void*, const Progress& progress) {
    return progress.done * 2 > progress.total ? 1 : 0;
  };
  ModelOptions options{.device_layers = 99, .expert_cache_bytes = smallest()};
  options.progress = {stop_late, nullptr};
  CHECK(Model::open(runtime, kTales, options).status().code() == Code::stopped);
  options.progress = {};
  const auto model = Model::open(runtime, kTales, options).take();
  Cancel cancel;
  std::vector<float> logits[2];
  for (const bool is_cancelled : {false, true}) {
    const auto session = start(model);
    const std::vector<Token> prompt = {433, 2};
    cancel.trigger();
    if (is_cancelled) CHECK(session->append(prompt, &cancel).code() == Code::stopped);
    REQUIRE(session->append(prompt).ok());
    logits[is_cancelled] = {session->logits().begin(), session->logits().end()};
  }
  CHECK(logits[0] == logits[1]);
}

}  // namespace
}  // namespace nib::test
