// experts: gate, up, activation, down and the weighted sum, against double within derived bounds, and bit for
// bit in every way and cut, for batches that fall on the experts in every manner.
#include "layer_rig.hpp"

namespace nib::test {
namespace {

// The experts of one row, as a router may have chosen them: any order, any weights.
struct Choice {
  std::vector<int> ids;
  std::vector<float> weights;
};

Choice random_choice(int experts, int per_token, Random& random) {
  std::vector<int> ids(static_cast<std::size_t>(experts));
  std::iota(ids.begin(), ids.end(), 0);
  for (int i = 0; i < per_token; ++i)
    std::swap(ids[static_cast<std::size_t>(i)], ids[static_cast<std::size_t>(i + random.below(experts - i))]);
  ids.resize(static_cast<std::size_t>(per_token));
  Choice choice{ids, {}};
  for (int i = 0; i < per_token; ++i) choice.weights.push_back(std::abs(random.normal()) + 0.01f);
  return choice;
}

// The lists of ops.hpp for some rows.
struct Lists {
  Lists(int experts, std::span<const Choice> rows) : first{0} {
    std::vector<std::vector<std::int32_t>> of_row(rows.size());
    for (int e = 0; e < experts; ++e) {
      for (std::size_t r = 0; r < rows.size(); ++r)
        for (std::size_t slot = 0; slot < rows[r].ids.size(); ++slot)
          if (rows[r].ids[slot] == e) {
            of_row[r].push_back(static_cast<std::int32_t>(row.size()));
            row.push_back(static_cast<std::int32_t>(r));
            weight.push_back(rows[r].weights[slot]);
          }
      first.push_back(static_cast<std::int32_t>(row.size()));
    }
    for (std::size_t r = 0; r < rows.size(); ++r) {
      entry_of_row.insert(entry_of_row.end(), of_row[r].begin(), of_row[r].end());
      chosen.insert(chosen.end(), rows[r].ids.begin(), rows[r].ids.end());
      chosen_weight.insert(chosen_weight.end(), rows[r].weights.begin(), rows[r].weights.end());
    }
  }
  Routing view() {
    return {row.data(),          weight.data(), first.data(),
            entry_of_row.data(), chosen.data(), chosen_weight.data()};
  }
  std::vector<std::int32_t> row, first, entry_of_row, chosen;
  std::vector<float> weight, chosen_weight;
};

// Gate and up as the op has them: strips of sixteen rows, gate, up, gate, up; zeros past the last unit.
Encoded interleaved(const Encoded& gate, const Encoded& up) {
  const FormatInfo& info = format_info(gate.format);
  const auto groups = static_cast<std::size_t>(gate.k / info.group);
  const auto code_row = groups * info.code_bytes, scale_row = groups * info.scale_bytes;
  const auto padded = static_cast<std::size_t>(row_stride(gate.rows));
  Encoded both{gate.format, static_cast<std::int64_t>(2 * padded), gate.k,
               std::vector<std::byte>(2 * padded * code_row),
               std::vector<std::byte>(2 * padded * scale_row, std::byte{127})};
  for (std::size_t unit = 0; unit < static_cast<std::size_t>(gate.rows); ++unit) {
    const std::size_t to = unit / 16 * 32 + unit % 16;
    std::copy_n(&gate.codes[unit * code_row], code_row, &both.codes[to * code_row]);
    std::copy_n(&up.codes[unit * code_row], code_row, &both.codes[(to + 16) * code_row]);
    if (scale_row == 0) continue;
    std::copy_n(&gate.scales[unit * scale_row], scale_row, &both.scales[to * scale_row]);
    std::copy_n(&up.scales[unit * scale_row], scale_row, &both.scales[(to + 16) * scale_row]);
  }
  return both;
}

struct Expert {
  Encoded gate_codes, up_codes;
  Exact gate, up;
  Packed gate_up, gate_alone, up_alone;
  Matrix down;
  Rows gate_bias, up_bias, down_bias;

  Expert(Format format, std::int64_t hidden, std::int64_t width, Random& random)
      : gate_codes(random_weights(format, width, hidden, random)),
        up_codes(random_weights(format, width, hidden, random)),
        gate(gate_codes),
        up(up_codes),
        gate_up(interleaved(gate_codes, up_codes)),
        gate_alone(gate_codes),
        up_alone(up_codes),
        down(format, hidden, width, random),
        gate_bias(random_bias(width, random)),
        up_bias(random_bias(width, random)),
        down_bias(random_bias(hidden, random)) {}
};

struct ExpertsCase {
  Numerics numerics;
  std::int64_t hidden, width;
  GateLimits gate{1.702f, 7.0f};
  std::vector<Expert> experts;
  std::vector<Choice> choices;  // of each row
  Rows normed, x;

  ExpertsCase(Numerics n, Format format, int count, std::int64_t h, std::int64_t w,
              std::vector<Choice> chosen, Random& random)
      : numerics(n),
        hidden(h),
        width(w),
        choices(std::move(chosen)),
        normed(static_cast<std::int64_t>(choices.size()), h),
        x(residual_rows(normed.rows, h, random)) {
    for (int e = 0; e < count; ++e) experts.emplace_back(format, h, w, random);
    normed.fill([&] { return random.normal(); });
  }
  int per_token() const { return static_cast<int>(choices[0].ids.size()); }

  Rows run(const Way& way, const Cuts& cuts) const {
    std::vector<PackedWeight> gate_up, up, down;
    const bool apart = way.threads >= 3;  // gate and up in a matrix each
    const std::int64_t strips_width = 2 * row_stride(width), out_stride = row_stride(hidden);
    const auto count = static_cast<std::int64_t>(experts.size());
    const Rows gate_up_bias(count, strips_width), down_bias(count, hidden);
    for (std::int64_t e = 0; e < count; ++e) {
      const Expert& expert = experts[static_cast<std::size_t>(e)];
      gate_up.push_back((apart ? expert.gate_alone : expert.gate_up).for_ops(*way.backend, numerics));
      if (apart) up.push_back(expert.up_alone.for_ops(*way.backend, numerics));
      down.push_back(expert.down.packed.for_ops(*way.backend, numerics));
      copy_rows(expert.down_bias, down_bias, e);
      for (std::int64_t unit = 0; unit < width; ++unit) {
        float* at = gate_up_bias.row(e) + unit / 16 * 32 + unit % 16;
        at[0] = expert.gate_bias.data()[unit];
        at[16] = expert.up_bias.data()[unit];
      }
    }
    Rows out(x.rows, hidden);
    copy_rows(x, out, 0);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::int64_t at = cuts[i], rows = cuts[i + 1] - at, entries = rows * per_token();
      Lists lists(static_cast<int>(count),
                  std::span(choices).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(rows)));
      const CallSpace space(way, numerics, rows, CallSpace::packed_bytes(gate_up[0], entries),
                            CallSpace::packed_bytes(down[0], entries));
      const Bytes outputs(static_cast<std::size_t>(entries * out_stride) * 4, 0xff);
      const HostEnvironment host(way.host);
      way.backend->ops.experts(space.context, {.normed = normed.row(at),
                                               .rows = rows,
                                               .experts = static_cast<int>(count),
                                               .experts_per_token = per_token(),
                                               .routing = lists.view(),
                                               .gate_up = gate_up.data(),
                                               .gate_up_bias = gate_up_bias.data(),
                                               .down = down.data(),
                                               .down_bias = down_bias.data(),
                                               .width = width,
                                               .gate = gate,
                                               .outputs = outputs.floats(),
                                               .x = out.row(at),
                                               .up = apart ? up.data() : nullptr});
    }
    return out;
  }

  // min(g, limit) * sigmoid(alpha g) * (clamp(u, limit) + 1). Clamping moves no two numbers apart, g
  // sigmoid(alpha g) by at most 1.1; the exponential is off by 2 ulp and by what its rounded argument loses.
  Approx activated(Approx g, Approx u) const {
    const double limit = static_cast<double>(gate.limit), alpha = static_cast<double>(gate.alpha);
    g.value = std::min(g.value, limit);
    u.value = std::clamp(u.value, -limit, limit);
    const double argument = alpha * g.value, swish = g.value / (1 + std::exp(-argument));
    const double relative = (std::min(std::abs(argument), 90.0) + 4 + 3) * 1.01 * kUnit;
    const Approx left = {swish, 1.1 * g.error + relative * (std::abs(swish) + 1.1 * g.error) + 0x1p-110};
    return product(left, sum(u, {1, 0}));
  }

  Values expect(std::int64_t r) const {
    const Choice& choice = choices[static_cast<std::size_t>(r)];
    Values inputs;
    for (const float v : normed.span(r)) inputs.push_back(exactly(v));
    inputs = at_product(numerics, experts[0].down.encoded.format, inputs);
    std::vector<std::size_t> by_id(choice.ids.size());
    std::iota(by_id.begin(), by_id.end(), std::size_t{0});
    std::sort(by_id.begin(), by_id.end(), [&](auto a, auto b) { return choice.ids[a] < choice.ids[b]; });
    Values total;
    for (const std::size_t slot : by_id) {
      const Expert& expert = experts[static_cast<std::size_t>(choice.ids[slot])];
      Values inner;
      for (std::int64_t i = 0; i < width; ++i)
        inner.push_back(activated(product_row(expert.gate, i, inputs, expert.gate_bias.data()),
                                  product_row(expert.up, i, inputs, expert.up_bias.data())));
      inner = at_product(numerics, experts[0].down.encoded.format, inner);
      for (std::int64_t n = 0; n < hidden; ++n) {
        const Approx y = product(product_row(expert.down.exact, n, inner, expert.down_bias.data()),
                                 exactly(choice.weights[slot]));
        if (slot == by_id[0])
          total.push_back(y);
        else
          total[static_cast<std::size_t>(n)] = sum(total[static_cast<std::size_t>(n)], y);
      }
    }
    for (std::int64_t n = 0; n < hidden; ++n)
      total[static_cast<std::size_t>(n)] = sum(exactly(x.row(r)[n]), total[static_cast<std::size_t>(n)]);
    return total;
  }

  void check(Random& random) const {
    CAPTURE(in_words(numerics, experts[0].down.encoded.format));
    CAPTURE(experts.size());
    CAPTURE(per_token());
    CAPTURE(hidden);
    CAPTURE(width);
    CAPTURE(x.rows);
    const Rows got =
        same_in_all_ways(x.rows, random, [&](const Way& way, const Cuts& cuts) { return run(way, cuts); });
    for (std::int64_t r = 0; r < x.rows; ++r) {
      const Values want = expect(r);
      for (std::int64_t n = 0; n < hidden; ++n)
        require_near(want[static_cast<std::size_t>(n)], got.row(r)[n], r, n);
    }
  }
};

std::vector<Choice> random_choices(int rows, int experts, int per_token, Random& random) {
  std::vector<Choice> choices;
  for (int r = 0; r < rows; ++r) choices.push_back(random_choice(experts, per_token, random));
  return choices;
}

TEST_CASE("experts: every format, ragged shapes, 1 to 17 rows on experts of every number") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics)
    for (const Format format : {Format::mxfp4, Format::bf16, Format::f16, Format::f32})
      for (int i = 0; i < 8; ++i) {
        const int count = 1 + random.below(9), per_token = 1 + random.below(std::min(count, 4));
        const bool grouped = format == Format::mxfp4;
        const std::int64_t hidden = grouped ? 32 * (1 + random.below(5)) : 8 + random.below(150);
        const std::int64_t width = grouped ? 32 * (1 + random.below(5)) : 8 + random.below(150);
        ExpertsCase(numerics, format, count, hidden, width,
                    random_choices(1 + random.below(17), count, per_token, random), random)
            .check(random);
      }
}

TEST_CASE("experts: all rows on one expert, experts without rows, every expert for every row") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    for (const int expert : {0, 3, 6}) {
      std::vector<Choice> one(17, Choice{{expert}, {0.75f}});
      ExpertsCase(numerics, Format::mxfp4, 7, 96, 64, one, random).check(random);
    }
    std::vector<Choice> ends(9, Choice{{6, 0}, {0.25f, 0.5f}});
    ExpertsCase(numerics, Format::mxfp4, 7, 96, 160, ends, random).check(random);
    ExpertsCase(numerics, Format::bf16, 6, 40, 24, random_choices(5, 6, 6, random), random).check(random);
    ExpertsCase(numerics, Format::mxfp4, 32, 32, 32, random_choices(1, 32, 4, random), random).check(random);
    ExpertsCase(numerics, Format::mxfp4, 4, 64, 32, random_choices(40, 4, 2, random), random).check(random);
  }
}

TEST_CASE("experts: the widths of gpt-oss") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    ExpertsCase(numerics, Format::mxfp4, 2, 2880, 32, random_choices(2, 2, 1, random), random).check(random);
    ExpertsCase(numerics, Format::mxfp4, 2, 32, 2880, random_choices(2, 2, 2, random), random).check(random);
  }
}

TEST_CASE("experts: another gate, and gates on both sides of its limits") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics)
    for (const GateLimits gate :
         {GateLimits{1.0f, 0.5f}, GateLimits{3.0f, 100.0f}, GateLimits{1.702f, 7.0f}}) {
      ExpertsCase c(numerics, Format::bf16, 3, 48, 72, random_choices(4, 3, 2, random), random);
      c.gate = gate;
      int i = 0;
      for (Expert& expert : c.experts) {
        // At, below and above the limit; so far below that the sigmoid is zero; where the exponential is
        // clamped.
        constexpr float kEdges[] = {0.0f, 0.4f, 0.6f, 6.9f, 7.1f, -7.1f, -40.0f, -90.0f, 90.0f, -500.0f};
        expert.gate_bias.fill([&] { return kEdges[++i % 10]; });
        expert.up_bias.fill([&] { return kEdges[++i % 7]; });
      }
      c.check(random);
    }
}

TEST_CASE("experts: what one row holds reaches no other") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const ExpertsCase c(numerics, Format::mxfp4, 3, 96, 64, random_choices(9, 3, 2, random), random);
    check_poison_stays(c.normed, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
    check_poison_stays(c.x, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
  }
}

TEST_CASE("experts: what is not a number is not hidden by the limits of the gate") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics)
    for (const bool in_up : {false, true}) {
      ExpertsCase c(numerics, Format::mxfp4, 2, 32, 64, random_choices(3, 2, 1, random), random);
      for (Expert& expert : c.experts)
        (in_up ? expert.up_bias : expert.gate_bias).data()[random.below(64)] =
            std::numeric_limits<float>::quiet_NaN();
      for (const Way& way : ways()) {
        CAPTURE(in_words(way));
        const Rows got = c.run(way, {0, 3});
        for (std::int64_t r = 0; r < 3; ++r)
          for (const float v : got.span(r)) REQUIRE(std::isnan(v));
      }
    }
}

}  // namespace
}  // namespace nib::test
