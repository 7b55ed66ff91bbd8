// The bit equality that takes minutes where an instruction set is slow or emulated; labelled `slow` in CTest.
#include "support/data.hpp"
#include "support/model_rig.hpp"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Where the large test data is not, a newcomer waits for the result, and the first three windows have to do.
TEST_CASE("slow: tales, 2,500 tokens: every logit of every position has the same bits on every backend") {
  const std::string folder = NIBBLE_TALES;
  std::mt19937 random(8);
  std::vector<std::uint32_t> prompt(data_root().empty() ? 400 : 2500);
  for (std::uint32_t& id : prompt) id = static_cast<std::uint32_t>(random() % 4000);
  for (const Numerics numerics : {Numerics::bf16, Numerics::f32}) {
    CAPTURE(std::string(numerics_name(numerics)));
    std::vector<float> expected;
    for (const Backend* backend : present_backends()) {
      CAPTURE(std::string(backend->name));
      // The scalar backend multiplies by the same function under both, and is a hundred times as slow: of it
      // the first thousand tokens, which are four chunks of attention and several windows.
      const bool scalar = backend == cpu_backends().back();
      if (numerics == Numerics::f32 && scalar) continue;
      ModelRig rig(folder, {.backend = backend, .numerics = numerics, .threads = 2, .rows = 300});
      auto cache = rig.cache();
      const auto tokens = scalar ? std::min<std::size_t>(prompt.size(), 1000) : prompt.size();
      const auto logits = rig.feed(*cache, std::span(prompt).first(tokens));
      if (expected.empty()) expected = logits;
      REQUIRE(logits.size() == tokens * rig.config.vocabulary);
      REQUIRE(logits.size() <= expected.size());
      CHECK(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace
}  // namespace nib::test
