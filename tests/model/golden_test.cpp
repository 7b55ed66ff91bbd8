// Logits against those that an independent implementation recorded, for every shape of the checkpoint and
// every backend.
#include "support/goldens.hpp"
#include "support/route_recorder.hpp"

#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("f32: logits within the recorded tolerance, greedy ids the same") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    const Golden golden = c.golden();
    for (const Backend* backend : present_backends()) {
      CAPTURE(c.name);
      CAPTURE(std::string(backend->name));
      ModelRig rig(c.path, {.backend = backend, .numerics = Numerics::f32});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      REQUIRE(logits.size() == golden.logits.size());
      CHECK(largest_difference(logits, golden.logits) < c.tolerances.f32);
      CHECK(greedy(rig, golden.input_ids, golden.greedy_ids.size()) == golden.greedy_ids);
    }
  }
}

// A choice between experts that are nearly equal may flip when activations are rounded, here or in the
// reference, and moves a position by much more than rounding does: before the first flip every position is
// held to the tolerance, and the median everywhere.
TEST_CASE(
    "slow: bf16: logits within the recorded tolerance before the first router flip, greedy ids as recorded") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    const Golden golden = c.golden();
    const auto rows = static_cast<std::int64_t>(golden.input_ids.size());
    for (const Backend* backend : present_backends()) {
      CAPTURE(c.name);
      CAPTURE(std::string(backend->name));
      const auto run = [&](Numerics numerics, std::vector<float>& logits) {
        const RouteRecorder recorder(*backend);
        ModelRig rig(c.path, {.backend = &recorder.backend(), .numerics = numerics, .rows = rows});
        auto cache = rig.cache();
        logits = rig.feed(*cache, golden.input_ids);
        return RouteRecorder::choices();
      };
      std::vector<float> logits;
      const auto unrounded = run(Numerics::f32, logits), rounded = run(Numerics::bf16, logits);
      const std::size_t ours = RouteRecorder::first_difference(unrounded, rounded, golden.input_ids.size());
      const std::size_t vocabulary = golden.logits.size() / golden.input_ids.size();
      const std::size_t compared = std::min(c.tolerances.flip, ours) * vocabulary;
      CHECK(largest_difference(std::span(logits).first(compared), std::span(golden.logits).first(compared)) <
            c.tolerances.bf16);
      CHECK(median_difference(logits, golden.logits, vocabulary) < c.tolerances.bf16_median);
      ModelRig rig(c.path, {.backend = backend, .numerics = Numerics::bf16});
      const auto ids = greedy(rig, golden.input_ids, c.tolerances.greedy);
      CHECK(std::equal(ids.begin(), ids.end(), golden.greedy_ids.begin()));
    }
  }
}

}  // namespace
}  // namespace nib::test
