// What the bits of a model on a device may depend on: where it is placed, and nothing else.
#include "device_rig.hpp"
#include "support/data.hpp"
#include "support/goldens.hpp"

#include <cstring>
#include <random>
#include <span>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::vector<std::uint32_t> random_prompt(std::size_t length, std::uint32_t vocabulary) {
  std::mt19937 random(4);
  std::vector<std::uint32_t> prompt(length);
  for (std::uint32_t& id : prompt) id = static_cast<std::uint32_t>(random() % vocabulary);
  return prompt;
}

RigOptions options_of(Placement (*placement)(const ModelConfig&), std::int64_t rows) {
  return {.backend = present_backends().front(),
          .numerics = Numerics::bf16,
          .rows = rows,
          .placement = placement,
          .library = &device_library()};
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST_CASE(
    "slow: tales: a row's bits depend on its placement, not on how the prompt is cut, nor on other "
    "sessions") {
  const auto prompt = random_prompt(40, 4000), other = random_prompt(9, 3000);
  for (auto* placement : {all_there, experts_here, zigzag}) {
    ModelRig whole(kTalesFolder, options_of(placement, 64));
    auto cache = whole.cache();
    const std::vector<float> expected = whole.feed(*cache, prompt);
    for (const std::int64_t rows : {1, 7}) {
      CAPTURE(rows);
      ModelRig cut(kTalesFolder, options_of(placement, rows));
      auto of_cut = cut.cache();
      CHECK(same_bits(cut.feed(*of_cut, std::span(prompt).first(20)),
                      std::span(expected).first(20 * static_cast<std::size_t>(cut.config.vocabulary))));
    }
    // A step of two sessions.
    auto first = whole.cache(), second = whole.cache();
    whole.feed(*first, std::span(prompt).first(10));
    whole.feed(*second, other);
    REQUIRE(first->extend(1).ok());
    REQUIRE(second->extend(1).ok());
    std::vector<float> both;
    whole.forward(std::vector<BatchRow>{{second.get(), 17, second->length(), true},
                                        {first.get(), prompt[10], first->length(), true}},
                  both);
    const std::size_t vocabulary = whole.config.vocabulary;
    CHECK(same_bits(std::span(both).subspan(vocabulary),
                    std::span(expected).subspan(10 * vocabulary, vocabulary)));
  }
}

// Whose norm the last layer leaves, and whose the head's own kernel.
TEST_CASE("tales: a row's logits have the same bits whether others want theirs") {
  const auto prompt = random_prompt(12, 4000);
  for (const int device : devices())
    for (const std::size_t rows : {std::size_t{3}, prompt.size()}) {
      CAPTURE(device);
      CAPTURE(rows);
      RigOptions options = options_of(all_there, 64);
      options.device = device;
      ModelRig rig(kTalesFolder, options);
      std::vector<float> all, some;
      for (const bool by_all : {true, false}) {
        auto cache = rig.cache();
        REQUIRE(cache->extend(static_cast<std::int64_t>(rows)).ok());
        std::vector<BatchRow> batch;
        for (std::size_t i = 0; i < rows; ++i)
          batch.push_back({cache.get(), prompt[i], static_cast<std::int64_t>(i), by_all || i % 2 == 0});
        rig.forward(batch, by_all ? all : some);
      }
      const std::size_t vocabulary = rig.config.vocabulary;
      REQUIRE(some.size() == (rows + 1) / 2 * vocabulary);
      for (std::size_t i = 0; i < rows; i += 2)
        CHECK(same_bits(std::span(some).subspan(i / 2 * vocabulary, vocabulary),
                        std::span(all).subspan(i * vocabulary, vocabulary)));
    }
}

TEST_CASE("tales: device and processor agree to a tolerance, and choose the same tokens") {
  const auto prompt = random_prompt(24, 4000);
  ModelRig here(kTalesFolder, {.backend = present_backends().front(), .numerics = Numerics::bf16});
  auto cache = here.cache();
  const std::vector<float> expected = here.feed(*cache, prompt);
  for (auto* placement : {all_there, experts_here, zigzag}) {
    ModelRig there(kTalesFolder, options_of(placement, 64));
    auto of_there = there.cache();
    const std::vector<float> logits = there.feed(*of_there, prompt);
    CHECK(largest_difference(logits, expected) < 0.2);
    for (std::size_t at = 0; at < logits.size(); at += there.config.vocabulary) {
      const auto mine = std::span(logits).subspan(at, there.config.vocabulary);
      const auto theirs = std::span(expected).subspan(at, there.config.vocabulary);
      const std::uint32_t id = best(mine);
      CHECK(theirs[best(theirs)] - theirs[id] < 0.2);  // equal but for what is nearly a tie
    }
  }
}

TEST_CASE(
    "slow: tales: the fast class is for passes of many rows, where a device has it, and only if it is asked "
    "for") {
  const auto prompt = random_prompt(kFastRows + 6, 4000);
  const auto logits_of = [&](Placement (*placement)(const ModelConfig&), std::int64_t rows, int device = 0,
                             std::uint32_t slots = 0) {
    RigOptions options = options_of(placement, rows);
    options.device = device;
    options.expert_slots = slots;
    ModelRig rig(kTalesFolder, options);
    auto cache = rig.cache();
    return rig.feed(*cache, prompt);
  };
  const std::vector<float> usual = logits_of(all_there, 128), fast = logits_of(fast_there, 128);
  CHECK(largest_difference(fast, usual) < 0.2);
  CHECK(same_bits(logits_of(fast_there, kFastRows - 1), usual));
  const auto device = Device::open(device_library(), 0).take();
  CHECK(same_bits(fast, usual) == (device->facts().fast == 0));
  // With experts that take turns.
  CHECK(same_bits(logits_of(fast_there, 128, 0, 6), fast));
  // The same cut once more: a pass of the fast class, then one that is not.
  const std::vector<float> cut = logits_of(fast_there, kFastRows);
  CHECK(same_bits(cut, logits_of(fast_there, kFastRows)));
  if (devices().size() > 1) CHECK(same_bits(logits_of(fast_there, 128, 1), logits_of(all_there, 128, 1)));
}

TEST_CASE("slow: tales: going back across a window and on again gives the same bits") {
  const auto prompt = random_prompt(200, 4000);
  ModelRig rig(kTalesFolder, options_of(all_there, 64));
  auto cache = rig.cache();
  const std::vector<float> expected = rig.feed(*cache, prompt);
  const std::int64_t back = cache->rewind(150);
  CHECK(back <= 150);
  const auto again = rig.feed(*cache, std::span(prompt).subspan(static_cast<std::size_t>(back)));
  CHECK(
      same_bits(again, std::span(expected).subspan(static_cast<std::size_t>(back) * rig.config.vocabulary)));
}

}  // namespace
}  // namespace nib::test
