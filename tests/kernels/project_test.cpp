// The products with one matrix: project (x += W in + b) and head (logits of picked rows), against double
// within derived bounds, and bit for bit in every way and cut.
#include "layer_rig.hpp"

namespace nib::test {
namespace {

struct ProjectCase {
  Numerics numerics;
  Matrix weight;
  Rows in, x, bias;

  ProjectCase(Numerics n, Format format, std::int64_t rows, std::int64_t width, std::int64_t k,
              Random& random)
      : numerics(n),
        weight(format, width, k, random),
        in(rows, k),
        x(residual_rows(rows, width, random)),
        bias(random_bias(width, random)) {
    in.fill([&] { return random.normal(); });
  }

  Rows run(const Way& way, const Cuts& cuts) const {
    const PackedWeight packed = weight.packed.for_ops(*way.backend, numerics);
    Rows out(x.rows, x.width);
    copy_rows(x, out, 0);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::int64_t rows = cuts[i + 1] - cuts[i];
      const CallSpace space(way, numerics, rows, packed);
      const HostEnvironment host(way.host);
      way.backend->ops.project(space.context, {.in = in.row(cuts[i]),
                                               .rows = rows,
                                               .weight = &packed,
                                               .bias = bias.data(),
                                               .x = out.row(cuts[i])});
    }
    return out;
  }

  void check(Random& random) const {
    CAPTURE(in_words(numerics, weight.encoded.format));
    CAPTURE(in.rows);
    CAPTURE(in.width);
    CAPTURE(x.width);
    const Rows got =
        same_in_all_ways(x.rows, random, [&](const Way& way, const Cuts& cuts) { return run(way, cuts); });
    for (std::int64_t r = 0; r < x.rows; ++r) {
      Values inputs;
      for (const float v : in.span(r)) inputs.push_back(exactly(v));
      inputs = at_product(numerics, weight.encoded.format, inputs);
      for (std::int64_t n = 0; n < x.width; ++n)
        require_near(sum(exactly(x.row(r)[n]), product_row(weight.exact, n, inputs, bias.data())),
                     got.row(r)[n], r, n);
    }
  }
};

struct HeadCase {
  Numerics numerics;
  Matrix weight;
  Rows x, norm_weight;
  std::vector<std::int32_t> picked;
  float epsilon;

  HeadCase(Numerics n, Format format, std::int64_t rows, std::vector<std::int32_t> pick,
           std::int64_t vocabulary, std::int64_t hidden, Random& random)
      : numerics(n),
        weight(format, vocabulary, hidden, random),
        x(residual_rows(rows, hidden, random)),
        norm_weight(norm_weights(hidden, random)),
        picked(std::move(pick)),
        epsilon(random.chance(50) ? 1e-5f : 1e-6f) {}
  std::int64_t count() const { return static_cast<std::int64_t>(picked.size()); }

  Rows run(const Way& way, const Cuts& cuts) const {
    const PackedWeight packed = weight.packed.for_ops(*way.backend, numerics);
    Rows out = unwritten(count(), weight.encoded.rows);
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::int64_t rows = cuts[i + 1] - cuts[i];
      const CallSpace space(way, numerics, rows, packed);
      const Rows normed = unwritten(rows, x.width);
      const HostEnvironment host(way.host);
      way.backend->ops.head(space.context, {.x = x.data(),
                                            .picked = picked.data() + cuts[i],
                                            .count = rows,
                                            .norm = {norm_weight.data(), epsilon},
                                            .weight = &packed,
                                            .normed = normed.data(),
                                            .logits = out.row(cuts[i])});
    }
    return out;
  }

  void check(Random& random) const {
    CAPTURE(in_words(numerics, weight.encoded.format));
    CAPTURE(x.width);
    CAPTURE(weight.encoded.rows);
    const Rows got =
        same_in_all_ways(count(), random, [&](const Way& way, const Cuts& cuts) { return run(way, cuts); });
    for (std::int64_t i = 0; i < count(); ++i) {
      const std::int32_t row = picked[static_cast<std::size_t>(i)];
      const Values inputs =
          at_product(numerics, weight.encoded.format, norm(x.span(row), norm_weight.data(), epsilon));
      for (std::int64_t n = 0; n < weight.encoded.rows; ++n)
        require_near(product_row(weight.exact, n, inputs, nullptr), got.row(i)[n], i, n);
    }
  }
};

constexpr Format kAll[] = {Format::mxfp4, Format::bf16, Format::f16, Format::f32};

TEST_CASE("project: every format, ragged shapes, 1 to 17 rows") {
  NIB_RANDOM(random);
  for (const Format format : kAll)
    for (const Numerics numerics : kAllNumerics) {
      for (const std::int64_t k : {32, 96, 160})
        for (const std::int64_t width : {1, 40, 64, 100, 144})
          ProjectCase(numerics, format, 1 + random.below(17), width, k, random).check(random);
      for (const std::int64_t rows : {4, 5, 6, 7, 17})
        ProjectCase(numerics, format, rows, 80, 96, random).check(random);
      ProjectCase(numerics, format, 1 + random.below(6), 80, 2880, random).check(random);
      if (format != Format::mxfp4)
        ProjectCase(numerics, format, 1 + random.below(17), 72, 100, random).check(random);
    }
}

TEST_CASE("project: inputs around 2^-60, below which bf16 numerics have none") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const ProjectCase c(numerics, Format::bf16, 6, 72, 48, random);
    c.in.fill([&] { return random.spread(-63, -58); });
    c.x.fill([] { return 0.0f; });  // nothing that would hide them
    c.bias.fill([] { return 0.0f; });
    c.check(random);
  }
}

TEST_CASE("project: what one row holds reaches no other") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const ProjectCase c(numerics, Format::mxfp4, 7, 72, 96, random);
    check_poison_stays(c.in, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
    check_poison_stays(c.x, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
  }
}

TEST_CASE("head: picked rows in any order and more than once, ragged shapes") {
  NIB_RANDOM(random);
  for (const Format format : kAll)
    for (const Numerics numerics : kAllNumerics) {
      for (const std::int64_t hidden : {32, 96, 160})
        for (const std::int64_t vocabulary : {1, 50, 201}) {
          const int rows = 1 + random.below(17);
          std::vector<std::int32_t> picked(static_cast<std::size_t>(1 + random.below(9)));
          for (std::int32_t& row : picked) row = random.below(rows);
          HeadCase(numerics, format, rows, picked, vocabulary, hidden, random).check(random);
        }
      HeadCase(numerics, format, 3, {2, 0}, 90, 2880, random).check(random);
    }
}

TEST_CASE("head: what one row holds reaches no other") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const HeadCase c(numerics, Format::bf16, 6, {0, 1, 2, 3, 4, 5}, 72, 104, random);
    check_poison_stays(c.x, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
  }
}

}  // namespace
}  // namespace nib::test
