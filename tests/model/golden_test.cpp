// Logits against those that an independent implementation recorded, for every shape of the checkpoint and
// every backend.
#include "support/data.hpp"
#include "support/model_rig.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

struct Case {
  const char* folder;  // of data/models
  const char* shape;   // sub-folder of the checkpoint
  double bf16_tolerance;
  std::size_t first_flip;  // position at which rounding to bf16 flips a router choice
};
// The tolerances are those of data/models/README.md.
constexpr Case kCases[] = {{"gpt-oss-a", "", 0.2, 30},
                           {"gpt-oss-a", "/original", 0.2, 30},
                           {"gpt-oss-b", "", 0.2, 156},
                           {"gpt-oss-bf16", "", 0.2, 40}};
constexpr double kF32Tolerance = 1e-3;

double largest_difference(std::span<const float> a, std::span<const float> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return most;
}

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

TEST_CASE("f32: logits within the recorded tolerance, greedy ids the same") {
  NIB_REQUIRE_DATA(data);
  for (const Backend* backend : present_backends())
    for (const Case& c : kCases) {
      CAPTURE(c.folder);
      CAPTURE(c.shape);
      CAPTURE(backend->name);
      const std::string folder = data + "/models/" + c.folder;
      const Golden golden = Golden::load(folder);
      ModelRig rig(folder + c.shape, {.backend = backend, .numerics = Numerics::f32});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      REQUIRE(logits.size() == golden.logits.size());
      CHECK(largest_difference(logits, golden.logits) < kF32Tolerance);
      CHECK(greedy(rig, golden.input_ids, golden.greedy_ids.size()) == golden.greedy_ids);
    }
}

TEST_CASE("bf16: logits within the recorded tolerance before the first router flip, greedy ids the same") {
  NIB_REQUIRE_DATA(data);
  for (const Backend* backend : present_backends())
    for (const Case& c : kCases) {
      CAPTURE(c.folder);
      CAPTURE(c.shape);
      CAPTURE(backend->name);
      const std::string folder = data + "/models/" + c.folder;
      const Golden golden = Golden::load(folder);
      ModelRig rig(folder + c.shape, {.backend = backend, .numerics = Numerics::bf16});
      auto cache = rig.cache();
      const std::vector<float> logits = rig.feed(*cache, golden.input_ids);
      const std::size_t compared = c.first_flip * rig.config.vocabulary;
      CHECK(largest_difference(std::span(logits).first(compared), std::span(golden.logits).first(compared)) <
            c.bf16_tolerance);
      CHECK(greedy(rig, golden.input_ids, golden.greedy_ids.size()) == golden.greedy_ids);
    }
}

}  // namespace
}  // namespace nib::test
