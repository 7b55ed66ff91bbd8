// Logits against those that an independent implementation recorded, for every shape of the checkpoint and
// every backend.
#include "support/goldens.hpp"

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::uint32_t best(std::span<const float> logits) {
  return static_cast<std::uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<std::uint32_t> greedy(ModelRig& rig, std::span<const std::uint32_t> prompt, std::size_t count) {
  auto cache = rig.cache();
  std::vector<float> logits = rig.feed(*cache, prompt);
  std::vector<std::uint32_t> ids;
  while (ids.size() < count) {
    ids.push_back(best(std::span(logits).last(rig.config.vocabulary)));
    logits = rig.feed(*cache, std::span(ids).last(1));
  }
  return ids;
}

bool supported(const GoldenCase& c) {
  for (const char* later : {"bnb", "fp8", "nvfp4"})
    if (c.name.find(later) != std::string::npos) return false;
  return true;
}

TEST_CASE("f32: logits within the recorded tolerance, greedy ids the same") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    if (!supported(c)) continue;
    const Golden golden = c.golden();
    for (const Backend* backend : present_backends()) {
      CAPTURE(c.name);
      CAPTURE(backend->name);
      ModelRig rig(c.path, {.backend = backend, .numerics = Numerics::f32});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      REQUIRE(logits.size() == golden.logits.size());
      CHECK(largest_difference(logits, golden.logits) < c.tolerances.f32);
      CHECK(greedy(rig, golden.input_ids, golden.greedy_ids.size()) == golden.greedy_ids);
    }
  }
}

TEST_CASE("bf16: logits within the recorded tolerance before the first router flip, greedy ids as recorded") {
  NIB_REQUIRE_DATA(data);
  for (const GoldenCase& c : golden_cases(data)) {
    if (!supported(c)) continue;
    const Golden golden = c.golden();
    for (const Backend* backend : present_backends()) {
      CAPTURE(c.name);
      CAPTURE(backend->name);
      ModelRig rig(c.path, {.backend = backend, .numerics = Numerics::bf16});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      const std::size_t compared = c.tolerances.flip * rig.config.vocabulary;
      CHECK(largest_difference(std::span(logits).first(compared), std::span(golden.logits).first(compared)) <
            c.tolerances.bf16);
      const auto ids = greedy(rig, golden.input_ids, c.tolerances.greedy);
      CHECK(std::equal(ids.begin(), ids.end(), golden.greedy_ids.begin()));
    }
  }
}

}  // namespace
}  // namespace nib::test
