// Models whose experts take turns in slots of a device: the bits of those whose experts all lie there.
#include "device_rig.hpp"
#include "support/data.hpp"
#include "support/goldens.hpp"

#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

RigOptions options_of(std::uint32_t slots, std::int64_t rows, int device = 0) {
  return {.backend = present_backends().front(),
          .numerics = Numerics::bf16,
          .rows = rows,
          .placement = all_there,
          .library = &device_library(),
          .device = device,
          .expert_slots = slots};
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

std::int64_t sum(const std::vector<std::int64_t>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::int64_t{0});
}

// Logits of a prompt in passes of `rows` rows, then of tokens one by one.
std::vector<float> logits_of(ModelRig& rig, std::span<const std::uint32_t> prompt,
                             std::span<const std::uint32_t> after) {
  auto cache = rig.cache();
  std::vector<float> all = rig.feed(*cache, prompt);
  for (const std::uint32_t& token : after) {
    const std::vector<float> next = rig.feed(*cache, {&token, 1});
    all.insert(all.end(), next.begin(), next.end());
  }
  return all;
}

TEST_CASE("slow: slots: models with experts, for every number of slots that a token's experts fit into") {
  NIB_REQUIRE_DATA(data);
  int models = 0;
  for (const GoldenCase& c : golden_cases(data)) {
    const std::vector<std::uint32_t> ids = c.golden().input_ids;
    const std::span prompt = std::span(ids).first(14), after = std::span(ids).subspan(14, 2);
    if (c.name.find('/') != std::string::npos) continue;  // the same numbers in another container
    bool has_experts = false;
    for (const int device : devices()) {
      ModelRig all(c.path, options_of(0, 14, device));
      has_experts = all.config.routed;
      if (!has_experts) break;
      const std::vector<float> expected = logits_of(all, prompt, after);
      CHECK(all.copied().empty());
      const std::uint32_t least = all.config.experts_per_token,
                          most = device == 0 ? all.config.experts - 1 : least;
      for (std::uint32_t slots = least; slots <= most; ++slots) {
        CAPTURE(c.name);
        CAPTURE(device);
        CAPTURE(slots);
        ModelRig some(c.path, options_of(slots, slots % 2 ? 14 : 5, device));
        CHECK(same_bits(logits_of(some, prompt, after), expected));
        CHECK(some.copied().size() == some.config.layers);
        CHECK(sum(some.copied()) > 0);
      }
    }
    models += has_experts;
  }
  CHECK(models >= 5);
}

TEST_CASE("slots: tales: prompts, steps of two sessions, and what they copy") {
  const std::vector<std::uint32_t> prompt = {433, 2, 97, 1203, 51}, other = {9, 8};
  ModelRig all(kTalesFolder, options_of(0, 16)), some(kTalesFolder, options_of(3, 16));
  std::vector<float> logits[2];
  for (const bool has_slots : {false, true}) {
    ModelRig& rig = has_slots ? some : all;
    auto first = rig.cache(), second = rig.cache();
    logits[has_slots] = rig.feed(*first, prompt);
    rig.feed(*second, other);
    REQUIRE(first->extend(1).ok());
    REQUIRE(second->extend(1).ok());
    rig.forward(std::vector<BatchRow>{{second.get(), 17, second->length(), true},
                                      {first.get(), 60, first->length(), true}},
                logits[has_slots]);
  }
  CHECK(same_bits(logits[0], logits[1]));
  // The same token at the same place chooses the same experts: all are there.
  auto again = some.cache();
  some.feed(*again, std::span(prompt).first(1));
  const std::vector<std::int64_t> before = some.copied();
  auto once_more = some.cache();
  some.feed(*once_more, std::span(prompt).first(1));
  CHECK(some.copied() == before);
}

// The library, but for the second call of an op that does nothing and fails.
class FailingExperts {
 public:
  FailingExperts() {
    library_.ops.experts = experts;
    calls_ = 0;
  }
  const DeviceLibrary& library() const { return library_; }

 private:
  static std::int32_t experts(DeviceQueue* queue, const OpContext* context, const ExpertsArgs* args,
                              DeviceMessage* message) {
    if (++calls_ != 2) return device_library().ops.experts(queue, context, args, message);
    return static_cast<std::int32_t>(Code::device);
  }
  DeviceLibrary library_ = device_library();
  static inline int calls_;
};

TEST_CASE("slots: after a pass that failed nobody trusts what is in them") {
  const FailingExperts failing;
  RigOptions options = options_of(4, 8);
  options.library = &failing.library();
  ModelRig rig(kTalesFolder, options);
  auto cache = rig.cache();
  REQUIRE(cache->extend(1).ok());
  CHECK(rig.attempt(std::vector<BatchRow>{{cache.get(), 17, 0, true}}).code() == Code::device);
  for (const std::int64_t copied : rig.copied()) CHECK(copied == 0);
  ModelRig all(kTalesFolder, options_of(0, 8));
  auto of_all = all.cache();
  auto next = rig.cache();
  const std::vector<std::uint32_t> prompt = {17, 4};
  CHECK(same_bits(rig.feed(*next, prompt), all.feed(*of_all, prompt)));
}

}  // namespace
}  // namespace nib::test
