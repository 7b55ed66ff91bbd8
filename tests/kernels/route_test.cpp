// route: the logits of the router against double; the choice, its weights and its order exactly, from these
// logits; bit for bit in every way and cut.
#include "layer_rig.hpp"

namespace nib::test {
namespace {

struct RouteCase {
  Numerics numerics;
  int experts, per_token;
  Matrix weight;
  Rows x, norm_weight, bias;
  float epsilon;

  RouteCase(Numerics n, Encoded w, int chosen, std::int64_t rows, Random& random)
      : numerics(n),
        experts(static_cast<int>(w.rows)),
        per_token(chosen),
        weight(std::move(w)),
        x(residual_rows(rows, weight.encoded.k, random)),
        norm_weight(norm_weights(weight.encoded.k, random)),
        bias(random_bias(experts, random)),
        epsilon(random.chance(50) ? 1e-5f : 1e-6f) {}
  std::int64_t width() const { return x.width + row_stride(experts) + 2 * per_token; }

  // Per row: what the experts read, the logits to the end of their stride, the chosen ids, their weights.
  Rows run(const Way& way, const Cuts& cuts) const {
    const PackedWeight packed = weight.packed.for_ops(*way.backend, numerics);
    Rows out(x.rows, width());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::int64_t at = cuts[i], rows = cuts[i + 1] - at;
      const CallSpace space(way, numerics, rows, packed);
      const Rows normed = unwritten(rows, x.width), logits = unwritten(rows, experts);
      const auto entries = static_cast<std::size_t>(rows * per_token);
      std::vector<std::int32_t> row(entries, -1), first(static_cast<std::size_t>(experts + 1), -1),
          entry_of_row(entries, -1), chosen(entries, -1);
      std::vector<float> entry_weight(entries, -1.0f), chosen_weight(entries, -1.0f);
      const Routing routing{row.data(),          entry_weight.data(), first.data(),
                            entry_of_row.data(), chosen.data(),       chosen_weight.data()};
      {
        const HostEnvironment host(way.host);
        way.backend->ops.route(space.context, {.x = x.row(at),
                                               .rows = rows,
                                               .norm = {norm_weight.data(), epsilon},
                                               .weight = &packed,
                                               .bias = bias.data(),
                                               .experts = experts,
                                               .experts_per_token = per_token,
                                               .normed = normed.data(),
                                               .logits = logits.data(),
                                               .routing = routing});
      }
      check_lists(routing, rows);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* to = std::copy_n(normed.row(r), x.width, out.row(at + r));
        to = std::copy_n(logits.row(r), logits.stride, to);
        for (int slot = 0; slot < per_token; ++slot)
          *to++ = static_cast<float>(chosen[static_cast<std::size_t>(r * per_token + slot)]);
        std::copy_n(chosen_weight.data() + r * per_token, per_token, to);
      }
    }
    return out;
  }

  // The lists by expert and by row say the same as the choice of each row, in the order of ops.hpp.
  void check_lists(const Routing& routing, std::int64_t rows) const {
    REQUIRE(routing.first[0] == 0);
    REQUIRE(routing.first[experts] == rows * per_token);
    std::vector<int> seen(static_cast<std::size_t>(rows * per_token));
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<std::pair<int, float>> by_id;
      for (int slot = 0; slot < per_token; ++slot)
        by_id.emplace_back(routing.chosen[r * per_token + slot], routing.chosen_weight[r * per_token + slot]);
      std::sort(by_id.begin(), by_id.end(), [](auto& a, auto& b) { return a.first < b.first; });
      for (int slot = 0; slot < per_token; ++slot) {
        const auto& [expert, expert_weight] = by_id[static_cast<std::size_t>(slot)];
        REQUIRE(expert >= 0);
        REQUIRE(expert < experts);
        if (slot > 0) REQUIRE(expert != by_id[static_cast<std::size_t>(slot - 1)].first);
        const std::int32_t entry = routing.entry_of_row[r * per_token + slot];
        REQUIRE(entry >= routing.first[expert]);
        REQUIRE(entry < routing.first[expert + 1]);
        REQUIRE(routing.row[entry] == r);
        REQUIRE(same_numbers({&routing.weight[entry], 1}, {&expert_weight, 1}));
        ++seen[static_cast<std::size_t>(entry)];
      }
    }
    REQUIRE(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
  }

  // The ids of the largest, largest first, the lowest id of equals.
  std::vector<int> largest(auto&& value) const {
    std::vector<int> ids(static_cast<std::size_t>(experts));
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return value(a) > value(b); });
    ids.resize(static_cast<std::size_t>(per_token));
    return ids;
  }

  void check_row(std::int64_t r, const float* got) const {
    const float* logits = got + x.width;
    const float* chosen = logits + row_stride(experts);
    const float* weights = chosen + per_token;
    const Values normed = norm(x.span(r), norm_weight.data(), epsilon);
    for (std::int64_t i = 0; i < x.width; ++i)
      require_near(normed[static_cast<std::size_t>(i)], got[i], r, i);
    const Values inputs = at_product(numerics, weight.encoded.format, normed);
    Values want;
    for (int e = 0; e < experts; ++e) {
      want.push_back(product_row(weight.exact, e, inputs, bias.data()));
      require_near(want.back(), logits[e], r, e);
    }
    REQUIRE(std::all_of(logits + experts, chosen, [](float v) { return v == 0.0f; }));
    // The choice from these logits is exact, and they are near those of double: that chooses otherwise only
    // where two are as good as equal.
    const std::vector<int> by_logits = largest([&](int e) { return logits[e]; });
    for (std::size_t slot = 0; slot < by_logits.size(); ++slot)
      REQUIRE(static_cast<int>(chosen[slot]) == by_logits[slot]);
    // softmax of the chosen: each exp is off by 2 ulp and by what the difference of two logits loses.
    const double most = static_cast<double>(logits[by_logits[0]]);
    double total = 0;
    for (const int id : by_logits) total += std::exp(static_cast<double>(logits[id]) - most);
    double spread = 0;
    for (const int id : by_logits) spread = std::max(spread, most - static_cast<double>(logits[id]));
    const double relative = (2 * (std::min(spread, 88.0) + 4) + per_token + 2) * 1.01 * kUnit;
    for (std::size_t slot = 0; slot < by_logits.size(); ++slot) {
      const double value = std::exp(static_cast<double>(logits[by_logits[slot]]) - most) / total;
      require_near({value, relative * value + 0x1p-125}, weights[slot], r, static_cast<std::int64_t>(slot));
    }
  }

  void check(Random& random) const {
    CAPTURE(in_words(numerics, weight.encoded.format));
    CAPTURE(experts);
    CAPTURE(per_token);
    CAPTURE(x.width);
    CAPTURE(x.rows);
    const Rows got =
        same_in_all_ways(x.rows, random, [&](const Way& way, const Cuts& cuts) { return run(way, cuts); });
    for (std::int64_t r = 0; r < x.rows; ++r) check_row(r, got.row(r));
  }
};

TEST_CASE("route: every number of experts a token, ragged shapes, 1 to 17 rows") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics)
    for (const Format format : {Format::mxfp4, Format::bf16, Format::f16, Format::f32}) {
      for (const std::int64_t hidden : {32, 96, 160}) {
        for (const int experts : {1, 5, 32, 70}) {
          const int per_token = 1 + random.below(std::min(experts, 8));
          RouteCase(numerics, random_weights(format, experts, hidden, random), per_token,
                    1 + random.below(17), random)
              .check(random);
        }
        RouteCase(numerics, random_weights(format, 9, hidden, random), 9, 1 + random.below(17), random)
            .check(random);
      }
      RouteCase(numerics, random_weights(format, 32, 2880, random), 4, 1 + random.below(6), random)
          .check(random);
    }
}

TEST_CASE("route: equal logits, the lowest id wins") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    // Experts of a few kinds only: those of a kind have equal logits, to the bit.
    Encoded w = random_weights(Format::bf16, 24, 96, random);
    std::vector<int> kind;
    for (int e = 0; e < 24; ++e) {
      kind.push_back(random.below(std::min(e + 1, 4)));
      std::copy_n(w.codes.begin() + kind.back() * 192, 192, w.codes.begin() + e * 192);
    }
    RouteCase c(numerics, std::move(w), 1 + random.below(24), 9, random);
    for (int e = 0; e < 24; ++e) c.bias.data()[e] = c.bias.data()[kind[static_cast<std::size_t>(e)]];
    c.check(random);
  }
  // All equal: the first, each with the same share.
  Encoded nothing = random_weights(Format::bf16, 20, 32, random);
  std::fill(nothing.codes.begin(), nothing.codes.end(), std::byte{});
  RouteCase c(Numerics::f32, std::move(nothing), 4, 3, random);
  c.bias.fill([] { return 0.5f; });
  const Rows got = c.run(ways()[0], {0, 3});
  for (std::int64_t r = 0; r < 3; ++r)
    for (int slot = 0; slot < 4; ++slot) {
      CHECK(got.row(r)[32 + 32 + slot] == static_cast<float>(slot));
      CHECK(got.row(r)[32 + 32 + 4 + slot] == 0.25f);
    }
}

TEST_CASE("route: logits so far apart that the lesser ones have no weight") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    RouteCase c(numerics, random_weights(Format::bf16, 16, 32, random), 4, 5, random);
    int e = 0;
    c.bias.fill([&] { return static_cast<float>((e++ * 7) % 16) * 30.0f; });
    c.check(random);
  }
}

TEST_CASE("route: a logit that is not a number is chosen last") {
  NIB_RANDOM(random);
  for (const int per_token : {3, 7}) {
    const RouteCase c(Numerics::f32, random_weights(Format::bf16, 7, 32, random), per_token, 9, random);
    const int bad = random.below(7);
    c.bias.data()[bad] = std::numeric_limits<float>::quiet_NaN();
    for (const Way& way : ways()) {
      CAPTURE(in_words(way));
      const Rows got = c.run(way, {0, 9});
      for (std::int64_t r = 0; r < 9; ++r) {
        const float* logits = got.row(r) + 32;
        const float* chosen = logits + 16;
        const auto smallest_if_bad = [&](int e) {
          return std::isnan(logits[e]) ? -std::numeric_limits<float>::infinity() : logits[e];
        };
        const std::vector<int> want = c.largest(smallest_if_bad);
        REQUIRE(std::isnan(logits[bad]));
        for (int slot = 0; slot < per_token; ++slot) {
          REQUIRE(static_cast<int>(chosen[slot]) == want[static_cast<std::size_t>(slot)]);
          REQUIRE(std::isnan(chosen[per_token + slot]) == (per_token == 7));  // and then stays visible
        }
      }
    }
  }
}

TEST_CASE("route: what one row holds reaches no other, and its choice stays one") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const RouteCase c(numerics, random_weights(Format::bf16, 20, 104, random), 1 + random.below(20), 6,
                      random);
    check_poison_stays(c.x, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
  }
}

}  // namespace
}  // namespace nib::test
