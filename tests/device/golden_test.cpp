// Logits of models on an emulated device, against those that an independent implementation recorded.
#include "device_rig.hpp"
#include "support/goldens.hpp"
#include "support/route_recorder.hpp"

#include <doctest/doctest.h>

namespace nib::test {
namespace {

const Backend& host_backend() { return *present_backends().front(); }

// As for the processor (tests/model/golden_test.cpp): every position before the first choice of experts that
// rounding flips, there, here or in the reference; and the median everywhere.
// That the recorded ids are the best under rounding, too, was seen where the processor rounds. A device
// rounds x * w in place of the norm (cuda/folded_norm.hpp), as closely and elsewhere: there an id may be
// exchanged for another where the two are nearer to one another than both logits may be off; until a choice
// of experts flips in the continuation.
void check_greedy(ModelRig& rig, KvCache& cache, std::vector<float> logits, const Golden& golden,
                  const Tolerances& tolerances, const std::vector<std::vector<std::int32_t>>& unrounded) {
  const auto& choices = DeviceRouteRecorder::choices();
  std::size_t compared = choices.size();
  for (std::size_t step = 0; step < tolerances.greedy; ++step) {
    const auto last = std::span(logits).last(rig.config.vocabulary);
    const std::uint32_t id = golden.greedy_ids[step];
    CAPTURE(step);
    CHECK(last[best(last)] - last[id] < 2 * tolerances.bf16);
    logits = rig.feed(cache, std::span(&id, 1));
    for (; compared < choices.size(); ++compared)
      if (choices[compared] != unrounded[compared]) return;
  }
}

TEST_CASE(
    "slow: whole models on the device: logits within the recorded bf16 tolerance, greedy ids as recorded but "
    "for ties") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    const Golden golden = c.golden();
    const auto rows = static_cast<std::int64_t>(golden.input_ids.size());
    std::vector<std::vector<std::int32_t>> unrounded;
    {
      const RouteRecorder recorder(host_backend());
      ModelRig rig(c.path, {.backend = &recorder.backend(), .numerics = Numerics::f32, .rows = rows});
      auto cache = rig.cache();
      rig.feed(*cache, golden.input_ids);
      for (std::size_t step = 0; step < c.tolerances.greedy; ++step)
        rig.feed(*cache, std::span(golden.greedy_ids).subspan(step, 1));
      unrounded = RouteRecorder::choices();
    }
    struct Way {
      int device;
      Placement (*placement)(const ModelConfig&);
    };
    std::vector<Way> ways;
    for (const int device : devices()) ways.push_back({device, all_there});
    if (rows >= kFastRows) ways.push_back({0, fast_there});
    for (const auto& [device, placement] : ways) {
      CAPTURE(c.name);
      CAPTURE(device);
      CAPTURE((placement == fast_there));
      const DeviceRouteRecorder recorder;
      ModelRig rig(c.path, {.backend = &host_backend(),
                            .numerics = Numerics::bf16,
                            .rows = rows,
                            .placement = placement,
                            .library = &recorder.library(),
                            .device = device});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      REQUIRE(logits.size() == golden.logits.size());
      const std::size_t ours =
          RouteRecorder::first_difference(unrounded, DeviceRouteRecorder::choices(), golden.input_ids.size());
      const std::size_t vocabulary = golden.logits.size() / golden.input_ids.size();
      const std::size_t compared = std::min(c.tolerances.flip, ours) * vocabulary;
      CHECK(largest_difference(std::span(logits).first(compared), std::span(golden.logits).first(compared)) <
            c.tolerances.bf16);
      CHECK(median_difference(logits, golden.logits, vocabulary) < c.tolerances.bf16_median);
      if (device > 0 || placement == fast_there) continue;  // part of the time, for the same steps
      check_greedy(rig, *cache, logits, golden, c.tolerances, unrounded);
    }
  }
}

}  // namespace
}  // namespace nib::test
