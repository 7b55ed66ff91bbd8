// The router on the emulator: logits near the exact products, then the choice, the weights and the lists of
// what it chose from, by their definitions.
#include "mxfp4_rig.hpp"

#include <cstring>
#include <limits>
#include <numeric>

#include <cuda/experts.hpp>

namespace nib::test {
namespace {

struct RouteRig {
  RouteRig(int tokens_, int experts_, int chosen_, int k_, std::mt19937_64& random)
      : tokens(tokens_),
        experts(experts_),
        chosen(chosen_),
        k(k_),
        weight(experts, k, random),
        x(tokens, k, random) {
    std::normal_distribution<float> normal;
    for (int i = 0; i < experts; ++i) bias.push_back(normal(random));
  }
  Status run(int blocks, simt::Emulator& emulator) {
    const auto all = static_cast<std::size_t>(tokens * chosen);
    logits.assign(static_cast<std::size_t>(tokens * experts), -1);
    weights.assign(all, -1);
    list_weights.assign(all, -1);
    ids.assign(all, -1);
    token.assign(all, -1);
    entry_of_token.assign(all, -1);
    first.assign(static_cast<std::size_t>(experts) + 1, -1);
    active.assign(static_cast<std::size_t>(experts), -1);
    const cuda::Route call{.weight = weight.row(0),
                           .weight_stride = weight.stride,
                           .bias = bias.empty() ? nullptr : bias.data(),
                           .x = x.row(0),
                           .x_stride = x.stride,
                           .tokens = tokens,
                           .experts = experts,
                           .chosen = chosen,
                           .k = k,
                           .logits = logits.data(),
                           .ids = ids.data(),
                           .id_weights = weights.data(),
                           .lists = {first.data(), token.data(), list_weights.data(), entry_of_token.data(),
                                     active.data(), &active_count},
                           .counter = &counter};
    return cuda::route(call, blocks, &emulator);
  }
  float logit(int t, int e) const { return logits[static_cast<std::size_t>(t * experts + e)]; }

  int tokens, experts, chosen, k;
  RandomInputs weight, x;
  std::vector<float> bias, logits, weights, list_weights;
  std::vector<std::int32_t> ids, token, entry_of_token, first, active;
  std::int32_t active_count = -1, counter = 0;
};

void check_logits(RouteRig& rig) {
  for (int t = 0; t < rig.tokens; ++t) {
    const std::vector<double> x = rig.x.row_values(t, rig.k);
    for (int e = 0; e < rig.experts; ++e) {
      const std::vector<double> w = rig.weight.row_values(e, rig.k);
      double sum = rig.bias.empty() ? 0 : rig.bias[static_cast<std::size_t>(e)], magnitude = std::fabs(sum);
      for (std::size_t i = 0; i < w.size(); ++i) {
        sum += w[i] * x[i];
        magnitude += std::fabs(w[i] * x[i]);
      }
      // A lane's chain of ceil(k / 256) times 8, a tree of five, the bias.
      const double bound = ((rig.k + 255) / 256 * 8 + 6) * 0x1p-24 * magnitude;
      CHECK(std::fabs(rig.logit(t, e) - sum) <= bound);
    }
  }
}

void check_choice(const RouteRig& rig) {
  for (int t = 0; t < rig.tokens; ++t) {
    std::vector<int> order(static_cast<std::size_t>(rig.experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return rig.logit(t, a) > rig.logit(t, b); });
    double total = 0;
    for (int j = 0; j < rig.chosen; ++j)
      total += std::exp(double{rig.logit(t, order[static_cast<std::size_t>(j)])});
    for (int j = 0; j < rig.chosen; ++j) {
      const auto at = static_cast<std::size_t>(t * rig.chosen + j);
      const int id = order[static_cast<std::size_t>(j)];
      CHECK(rig.ids[at] == id);
      // Of both exponentials: two units, and the rounding of the argument; sums and quotient; f32's least
      // normal.
      const double wanted = std::exp(double{rig.logit(t, id)}) / total;
      const double spread = rig.logit(t, order[0]) - rig.logit(t, id);
      CHECK(std::fabs(rig.weights[at] - wanted) <=
            wanted * (10 + rig.chosen + 2 * spread) * 0x1p-24 + 0x1p-126);
    }
  }
}

void check_lists(const RouteRig& rig) {
  int at = 0, active = 0;
  std::vector<int> entries_of_token(static_cast<std::size_t>(rig.tokens));
  for (int e = 0; e < rig.experts; ++e) {
    CHECK(rig.first[static_cast<std::size_t>(e)] == at);
    const int before = at;
    for (int t = 0; t < rig.tokens; ++t)
      for (int j = 0; j < rig.chosen; ++j) {
        const auto choice = static_cast<std::size_t>(t * rig.chosen + j);
        if (rig.ids[choice] != e) continue;
        REQUIRE(at < rig.tokens * rig.chosen);
        CHECK(rig.token[static_cast<std::size_t>(at)] == t);
        CHECK(std::memcmp(&rig.list_weights[static_cast<std::size_t>(at)], &rig.weights[choice], 4) ==
              0);  // NaN too
        const int place = entries_of_token[static_cast<std::size_t>(t)]++;
        CHECK(rig.entry_of_token[static_cast<std::size_t>(t * rig.chosen + place)] == at);
        ++at;
      }
    if (at > before) CHECK(rig.active[static_cast<std::size_t>(active++)] == e);
  }
  CHECK(rig.first.back() == at);
  CHECK(at == rig.tokens * rig.chosen);
  CHECK(rig.active_count == active);
  CHECK(rig.counter == 0);
}

TEST_CASE("route: logits, choice, weights and lists") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  simt::Emulator emulator(seed);
  struct Shape {
    int tokens, experts, chosen, k, blocks;
  };
  for (const Shape shape : {Shape{1, 32, 4, 64, 1},
                            {8, 128, 4, 288, 5},
                            {1, 1, 1, 8, 3},
                            {3, 7, 7, 40, 2},
                            {20, 256, 16, 24, 9},
                            {5, 33, 2, 520, 1},
                            {2, 32, 4, 2880, 4}}) {
    RouteRig rig(shape.tokens, shape.experts, shape.chosen, shape.k, random);
    const Status status = rig.run(shape.blocks, emulator);
    CAPTURE(status.message());
    REQUIRE(status.ok());
    check_logits(rig);
    check_choice(rig);
    check_lists(rig);
  }
}

TEST_CASE("route: equal logits go to the lower id, whatever logits are still gives distinct experts") {
  std::mt19937_64 random(1);
  simt::Emulator emulator(1);
  RouteRig rig(4, 40, 5, 16, random);
  for (int e = 0; e < 40; ++e)
    for (int i = 0; i < 16; ++i) rig.weight.row(e)[i] = 0;
  rig.bias.clear();
  rig.x.row(2)[0] = 0x7fc0;  // NaN times zero in every logit of this token
  rig.x.row(3)[0] = 0x7f80;
  REQUIRE(rig.run(3, emulator).ok());
  for (std::size_t t = 0; t < 4; ++t)
    for (std::size_t j = 0; j < 5; ++j) CHECK(rig.ids[t * 5 + j] == static_cast<int>(j));
  check_lists(rig);
  for (std::size_t j = 0; j < 5; ++j) CHECK(rig.weights[j] == 0.2f);
}

TEST_CASE("route: the same bits for every grid, and of a token whatever is beside it") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  RouteRig rig(6, 64, 4, 320, random);
  simt::Emulator first(seed);
  REQUIRE(rig.run(1, first).ok());
  const auto logits = rig.logits, weights = rig.weights;
  for (const int blocks : {2, 3, 8, 11}) {
    simt::Emulator emulator(random());
    REQUIRE(rig.run(blocks, emulator).ok());
    CHECK(rig.logits == logits);
    CHECK(rig.weights == weights);
  }
  rig.tokens = 2;
  REQUIRE(rig.run(2, first).ok());
  CHECK(std::equal(rig.logits.begin(), rig.logits.end(), logits.begin()));
  CHECK(std::equal(rig.weights.begin(), rig.weights.end(), weights.begin()));
}

TEST_CASE("route: numbers that it does not take") {
  std::mt19937_64 random(2);
  simt::Emulator emulator(2);
  const auto code = [&](int tokens, int experts, int chosen) {
    cuda::Route call{};
    call.tokens = tokens;
    call.experts = experts;
    call.chosen = chosen;
    return cuda::route(call, 1, &emulator).code();
  };
  CHECK(code(1, 257, 4) == Code::argument);
  CHECK(code(1, 0, 0) == Code::argument);
  CHECK(code(1, 3, 4) == Code::argument);
  CHECK(code(1, 32, 17) == Code::argument);
  CHECK(code(0, 32, 4) == Code::argument);
}

}  // namespace
}  // namespace nib::test
