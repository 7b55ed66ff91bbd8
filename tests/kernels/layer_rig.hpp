// What the tests of the ops with matrices share: scratch of the exact sizes of ops.hpp, a batch run in every
// way and every cut, and the steps of a layer in double, each with what its roundings may lose.
#pragma once
#include "int8_rig.hpp"
#include "ops_rig.hpp"
#include <nibble/base/concat.hpp>

#include <numeric>

namespace nib::test {

// A matrix as its file has it, as kernels read it, and as numbers.
struct Matrix {
  explicit Matrix(Encoded w) : encoded(std::move(w)), packed(encoded), exact(encoded) {}
  Matrix(Format format, std::int64_t rows, std::int64_t k, Random& random)
      : Matrix(random_weights(format, rows, k, random)) {}
  Encoded encoded;
  Packed packed;
  Exact exact;
};

// The OpContext of one call, every area as large as ops.hpp asks and no larger; what it holds before is NaN.
struct CallSpace {
  CallSpace(const Way& way, Numerics numerics, std::int64_t rows, std::size_t activation_bytes,
            std::size_t expert_bytes = 0)
      : activations(activation_bytes, 0xff),
        expert_inputs(expert_bytes, 0xff),
        tiles(static_cast<std::size_t>(way.threads * rows * 64) * 4, 0xff),
        context{&team(way.threads),   numerics,       activations.data(),
                expert_inputs.data(), tiles.floats(), rows * 64} {}
  CallSpace(const Way& way, Numerics numerics, std::int64_t rows, const PackedWeight& weight)
      : CallSpace(way, numerics, rows, packed_bytes(weight, rows)) {}
  static std::size_t packed_bytes(const PackedWeight& weight, std::int64_t rows) {
    return static_cast<std::size_t>(rows) * activation_bytes(weight.kernel->x, weight.k_padded());
  }
  Bytes activations, expert_inputs, tiles;
  OpContext context;
};

// Rows of NaN: what an op leaves of them shows.
inline Rows unwritten(std::int64_t count, std::int64_t width) {
  Rows rows(count, width);
  std::memset(rows.bytes.data(), 0xff, rows.bytes.size());
  return rows;
}
inline bool zero_beyond_width(const Rows& rows) {
  for (std::int64_t r = 0; r < rows.rows; ++r)
    for (std::int64_t c = rows.width; c < rows.stride; ++c)
      if (rows.row(r)[c] != 0.0f) return false;
  return true;
}
inline void copy_rows(const Rows& from, const Rows& to, std::int64_t at) {
  std::copy_n(from.data(), from.rows * from.stride, to.row(at));
}

inline std::string in_words(const Way& way) {
  return concat(way.backend->name, ", ", way.threads, " threads, host ", host_name(way.host));
}

inline std::string in_words(Numerics numerics, Format format) {
  return concat(numerics_name(numerics), " numerics, ", format_name(format), " weights");
}

// Where a batch is cut into calls: 0, ..., rows.
using Cuts = std::vector<std::int64_t>;
inline Cuts random_cuts(std::int64_t rows, Random& random) {
  Cuts cuts = {0};
  while (cuts.back() < rows)
    cuts.push_back(cuts.back() + 1 + random.below(static_cast<int>(rows - cuts.back())));
  return cuts;
}

// run(way, cuts) gives what an op says of each row, as numbers. All ways and cuts must give the same bits:
// those that come back.
template <class Run>
Rows same_in_all_ways(std::int64_t rows, Random& random, Run&& run) {
  const std::vector<Way> all = ways();
  Rows expected = run(all[0], Cuts{0, rows});
  REQUIRE(zero_beyond_width(expected));
  Cuts single(static_cast<std::size_t>(rows + 1));
  std::iota(single.begin(), single.end(), 0);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const Way& way = all[i];
    CAPTURE(in_words(way));
    const Rows got = run(way, way.threads == 3   ? single
                              : way.threads == 8 ? random_cuts(rows, random)
                                                 : Cuts{0, rows});
    REQUIRE(same_bits({got.data(), got.bytes.size() / 4}, {expected.data(), expected.bytes.size() / 4}));
  }
  return expected;
}

// NaN, infinities and huge numbers in one row of `x` change no bit of the others.
template <class Run>
void check_poison_stays(const Rows& x, Random& random, Run&& run) {
  const Rows clean = run(ways()[0], Cuts{0, x.rows});
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(), 3e38f}) {
    CAPTURE(poison);
    const std::int64_t victim = random.below(static_cast<int>(x.rows));
    const std::vector<float> before(x.span(victim).begin(), x.span(victim).end());
    if (random.chance(50))
      for (float& value : x.span(victim)) value = poison;
    else
      x.row(victim)[random.below(static_cast<int>(x.width))] = poison;
    for (const Way& way : ways()) {
      CAPTURE(in_words(way));
      const Rows got = run(way, Cuts{0, x.rows});
      for (std::int64_t r = 0; r < x.rows; ++r)
        if (r != victim) REQUIRE(same_bits(got.span(r), clean.span(r)));
    }
    std::copy(before.begin(), before.end(), x.row(victim));
  }
}

// ---- steps in double

using Values = std::vector<Approx>;

inline void require_near(const Approx& want, float got, std::int64_t row, std::int64_t column) {
  if (want.holds(got) && std::isfinite(want.error)) return;
  CAPTURE(row);
  CAPTURE(column);
  CAPTURE(want.value);
  CAPTURE(want.error);
  REQUIRE(want.holds(got));
  REQUIRE(std::isfinite(want.error));
}

// One f32 operation whose exact result is `x`: it rounds, and flushes what is subnormal.
inline Approx rounded(Approx x) {
  return {x.value, x.error + kUnit * (std::abs(x.value) + x.error) + 0x1p-126};
}
inline Approx exactly(float x) { return {static_cast<double>(x), 0}; }
inline Approx sum(Approx a, Approx b) { return rounded({a.value + b.value, a.error + b.error}); }
inline Approx product(Approx a, Approx b) {
  return rounded(
      {a.value * b.value, std::abs(a.value) * b.error + std::abs(b.value) * a.error + a.error * b.error});
}

// x / sqrt(mean(x^2) + epsilon) * weight. The sum of squares loses a unit a step of its sixteen chains and of
// the tree, the root halves that; then mean, epsilon, root, reciprocal and two products round once each.
inline Values norm(std::span<const float> x, const float* weight, float epsilon) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
  const double root = std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(epsilon));
  const double relative = (0.5 * (static_cast<double>(x.size()) / 16 + 1 + 4 + 2) + 4) * 1.01 * kUnit;
  Values out;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double value = static_cast<double>(x[i]) / root * static_cast<double>(weight[i]);
    out.push_back({value, relative * std::abs(value) + 0x1p-125});
  }
  return out;
}

// What a bf16 rounding makes of x: between what it makes of both ends, which mostly is one number.
inline Approx between(float low, float high) {
  const double a = static_cast<double>(low), b = static_cast<double>(high);
  return {(a + b) / 2, (b - a) / 2};
}
inline Approx stored_bf16(const Approx& x) {
  return between(to_float(to_bf16(static_cast<float>(x.value - x.error))),
                 to_float(to_bf16(static_cast<float>(x.value + x.error))));
}

// Activations as a product with weights of this format meets them. Whole numbers are off by half a step, the
// largest of 32 over 127.
inline Values at_product(Numerics numerics, Format format, Values x) {
  if (numerics == Numerics::int8 && is_whole_numbers(format))
    for (std::size_t first = 0; first < x.size(); first += 32) {
      const std::span<Approx> group(x.data() + first, std::min<std::size_t>(32, x.size() - first));
      double largest = 0;
      for (const Approx& v : group) largest = std::max(largest, std::abs(v.value) + v.error);
      for (Approx& v : group) v.error += largest / 127 * 0.5001 + 0x1p-59;
    }
  else if (rounds_to_bf16(numerics))
    for (Approx& v : x)
      v = between(activation_bf16(static_cast<float>(v.value - v.error)),
                  activation_bf16(static_cast<float>(v.value + v.error)));
  return x;
}

// Row `row` of W x + b. A subnormal weight counts as zero.
inline Approx product_row(const Exact& w, std::int64_t row, const Values& x, const float* bias) {
  Approx dot = dot_approx(w.row(row), x.data(), w.k);
  for (const Approx& v : x) dot.error += 0x1p-126 * (std::abs(v.value) + v.error);
  return bias ? sum(dot, exactly(bias[row])) : dot;
}

// Rows of a residual stream: loud and quiet ones (a quiet one shows the epsilon of a norm), some zeros.
inline Rows residual_rows(std::int64_t rows, std::int64_t width, Random& random) {
  Rows x(rows, width);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float loudness = std::ldexp(1.0f, random.below(21) - 14);
    for (float& v : x.span(r)) v = random.chance(2) ? 0.0f : random.normal() * loudness;
  }
  return x;
}
inline Rows norm_weights(std::int64_t width, Random& random) {
  Rows weight(1, width);
  weight.fill([&] { return 1.0f + random.normal() * 0.3f; });
  return weight;
}

}  // namespace nib::test
