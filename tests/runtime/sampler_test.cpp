// Sampling: the rules one by one, the distribution against its definition, and that nothing but (seed,
// position) shifts it.
#include "support/backends.hpp"
#include <nibble/runtime/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

Sample draw(std::span<const float> logits, const SamplerOptions& options, std::uint64_t position = 0,
            std::span<const Token> history = {}) {
  std::optional<Sample> first;
  for (const Backend* backend : present_backends()) {
    std::vector<float> values(logits.begin(), logits.end()), weights(logits.size());
    SamplerScratch scratch{.weights = weights};
    auto result = sample(*backend, values, options, position, history, scratch);
    REQUIRE(result.ok());
    CHECK(std::memcmp(values.data(), logits.data(), logits.size_bytes()) == 0);
    if (!first) first = *result;
    CHECK(result->id == first->id);
    CHECK(result->log_probability == first->log_probability);
  }
  return *first;
}

// How often each token comes over many positions.
std::map<Token, double> shares(std::span<const float> logits, const SamplerOptions& options,
                               int draws = 20000) {
  std::map<Token, double> share;
  for (int i = 0; i < draws; ++i)
    share[draw(logits, options, static_cast<std::uint64_t>(i)).id] += 1.0 / draws;
  return share;
}

std::vector<float> random_logits(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST_CASE("greedy takes the largest logit, the lowest id on ties, and passes over what is no number") {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {nan, 1, 3, 3, infinity, -infinity};
  CHECK(draw(logits, {.greedy = true}).id == 2);
  CHECK(draw(logits, {.temperature = 0}).id == 2);
  std::vector<float> none{nan, nan}, weights(2);
  SamplerScratch scratch{.weights = weights};
  CHECK(sample(*cpu_backends().back(), none, {}, 0, {}, scratch).status().code() == Code::internal);
}

TEST_CASE("shares follow softmax at the temperature") {
  const auto logits = random_logits(12, 1);
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit) / temperature);
    auto share = shares(logits, {.temperature = temperature, .seed = 7});
    for (std::size_t id = 0; id < logits.size(); ++id) {
      const double p = std::exp(static_cast<double>(logits[id]) / temperature) / total;
      // Five standard deviations of a share of 20,000 draws.
      CHECK(std::abs(share[static_cast<Token>(id)] - p) < 5 * std::sqrt(p * (1 - p) / 20000) + 1e-9);
    }
    const Sample one = draw(logits, {.temperature = temperature, .seed = 7}, 3);
    CHECK(static_cast<double>(one.log_probability) ==
          doctest::Approx(static_cast<double>(logits[one.id]) / temperature - std::log(total)).epsilon(1e-6));
  }
}

TEST_CASE("top-k, top-p and min-p keep what they say") {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.15f), std::log(0.07f),
                                     std::log(0.03f)};
  const auto kept = [&](const SamplerOptions& options) { return shares(logits, options, 4000).size(); };
  CHECK(kept({.seed = 1}) == 5);
  CHECK(kept({.top_k = 2, .seed = 1}) == 2);
  CHECK(kept({.top_p = 0.5f, .seed = 1}) == 1);
  CHECK(kept({.top_p = 0.7f, .seed = 1}) == 2);
  CHECK(kept({.top_p = 0.91f, .seed = 1}) == 4);
  CHECK(kept({.min_p = 0.2f, .seed = 1}) == 3);
  CHECK(kept({.top_k = 4, .top_p = 0.8f, .min_p = 0.01f, .seed = 1}) == 3);
  auto share = shares(logits, {.top_k = 2, .seed = 2});
  CHECK(share[0] == doctest::Approx(2.0 / 3).epsilon(0.03));
}

// What is drawn from tells how much was kept: its log probability is that of a share of the kept ones.
TEST_CASE("top-p keeps the smallest set of the likeliest that reaches it, of many tokens and few") {
  for (const std::size_t count : {1u, 2u, 300u, 5000u})
    for (const float wanted : {0.01f, 0.5f, 0.9f, 0.99f, 0.99999f, std::nextafter(1.0f, 0.0f)}) {
      CAPTURE(count);
      CAPTURE(wanted);
      const auto logits = random_logits(count, static_cast<unsigned>(count));
      std::vector<double> weights;
      for (const float logit : logits) weights.push_back(std::exp(static_cast<double>(logit)));
      std::sort(weights.rbegin(), weights.rend());
      double total = 0, kept = 0;
      for (const double weight : weights) total += weight;
      for (std::size_t i = 0; i < count && kept < static_cast<double>(wanted) * total; ++i)
        kept += weights[i];
      const Sample one = draw(logits, {.top_p = wanted, .seed = 5}, count);
      CHECK(static_cast<double>(one.log_probability) ==
            doctest::Approx(static_cast<double>(logits[one.id]) - std::log(kept)).epsilon(1e-5));
    }
}

TEST_CASE("the repetition penalty divides positive and multiplies negative logits of what was seen") {
  const std::vector<float> logits = {2.0f, 1.9f, -1.0f};
  const std::vector<Token> history = {0, 0, 2, 9999};
  CHECK(draw(logits, {.greedy = true, .repetition_penalty = 2}, 0, history).id == 1);
  const std::vector<float> negative = {-1.0f, -1.5f};
  CHECK(draw(negative, {.greedy = true, .repetition_penalty = 2}, 0, std::vector<Token>{0}).id == 1);
}

TEST_CASE("of a whole vocabulary: every cut against a sort of all tokens") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const std::size_t count : {255u, 256u, 257u, 5000u, 50001u}) {
    auto logits = random_logits(count, seed);
    for (int i = 0; i < 20; ++i)  // what must not be drawn, and ties
      logits[random() % count] = i % 2 ? std::numeric_limits<float>::infinity() : logits[random() % count];
    std::vector<Token> order;
    for (std::size_t id = 0; id < count; ++id)
      if (std::isfinite(logits[id])) order.push_back(static_cast<Token>(id));
    std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return logits[a] > logits[b]; });
    for (const std::uint32_t top_k : {0u, 1u, 7u, 40u, 3000u}) {
      const float temperature = 0.8f;
      const std::size_t kept = top_k ? std::min<std::size_t>(top_k, order.size()) : order.size();
      double total = 0;
      for (std::size_t i = 0; i < kept; ++i)
        total += std::exp((static_cast<double>(logits[order[i]]) - static_cast<double>(logits[order[0]])) /
                          static_cast<double>(temperature));
      for (std::uint64_t position = 0; position < 20; ++position) {
        const Sample one = draw(logits, {.temperature = temperature, .top_k = top_k, .seed = seed}, position);
        const auto at =
            static_cast<std::size_t>(std::find(order.begin(), order.end(), one.id) - order.begin());
        CHECK(at < kept);
        CHECK(static_cast<double>(one.log_probability) ==
              doctest::Approx((static_cast<double>(logits[one.id]) - static_cast<double>(logits[order[0]])) /
                                  static_cast<double>(temperature) -
                              std::log(total))
                  .epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("the draw depends on seed and position only") {
  const auto logits = random_logits(1000, 2);
  const SamplerOptions options{.temperature = 1.3f, .top_k = 200, .top_p = 0.95f, .seed = 99};
  std::vector<Token> forward, backward;
  for (std::uint64_t i = 0; i < 50; ++i) forward.push_back(draw(logits, options, i).id);
  for (std::uint64_t i = 50; i-- > 0;) backward.insert(backward.begin(), draw(logits, options, i).id);
  CHECK(forward == backward);
  SamplerOptions other = options;
  other.seed = 100;
  std::vector<Token> reseeded;
  for (std::uint64_t i = 0; i < 50; ++i) reseeded.push_back(draw(logits, other, i).id);
  CHECK(forward != reseeded);
}

TEST_CASE("options out of range are refused by name") {
  const auto message = [](const SamplerOptions& options) { return validate(options).message(); };
  CHECK(validate({}).ok());
  CHECK(message({.temperature = -1}).find("temperature") == 0);
  CHECK(message({.temperature = std::numeric_limits<float>::quiet_NaN()}).find("temperature") == 0);
  CHECK(message({.top_p = 0}).find("top_p") == 0);
  CHECK(message({.top_p = 1.5f}).find("top_p") == 0);
  CHECK(message({.min_p = -0.1f}).find("min_p") == 0);
  CHECK(message({.repetition_penalty = 0}).find("repetition_penalty") == 0);
}

}  // namespace
}  // namespace nib::test
