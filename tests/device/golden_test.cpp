// Logits of models on an emulated device, against those that an independent implementation recorded.
#include "device_rig.hpp"
#include "support/goldens.hpp"
#include "support/route_recorder.hpp"

#include <doctest/doctest.h>

namespace nib::test {
namespace {

const Backend& host_backend() { return *present_backends().front(); }

// As for the processor (tests/model/golden_test.cpp): every position before the first choice of experts that
// rounding flips, there, here or in the reference; and the median everywhere. Greedy ids are recorded with
// gaps to the second best of 0.01 at least.
TEST_CASE(
    "slow: whole models on the device: logits within the recorded bf16 tolerance, greedy ids as recorded") {
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
      unrounded = RouteRecorder::choices();
    }
    for (const int device : devices()) {
      CAPTURE(c.name);
      CAPTURE(device);
      const DeviceRouteRecorder recorder;
      ModelRig rig(c.path, {.backend = &host_backend(),
                            .numerics = Numerics::bf16,
                            .rows = rows,
                            .placement = all_there,
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
      if (device > 0) continue;  // half of the time, for the same steps
      const auto ids = greedy(rig, golden.input_ids, c.tolerances.greedy);
      CHECK(std::equal(ids.begin(), ids.end(), golden.greedy_ids.begin()));
    }
  }
}

}  // namespace
}  // namespace nib::test
