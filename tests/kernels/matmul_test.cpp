// Every kernel of every backend, bit for bit: the canonical chain over decoded weights, for every number of
// rows, every cut into strips, ragged shapes, extreme scales and activations that rounding hardly leaves
// alone.
#include "int8_rig.hpp"
#include <nibble/base/float_scope.hpp>

#include <set>

namespace nib::test {
namespace {

constexpr std::int64_t kRows[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 24, 29, 130};

struct Problem {
  Encoded w;
  Packed packed;
  Rows x;
  Problem(Format format, std::int64_t rows, std::int64_t n, std::int64_t k, Random& random, Scales scales,
          auto&& activation, std::int64_t run = 0)
      : w(random_weights(format, n, k, random, scales, run ? run : random_run(k, random))),
        packed(w),
        x(rows, k) {
    x.fill(activation);
  }
};

// Runs a kernel on the first `rows` rows, over strips in cuts of `cut` (within groups of four), and compares.
void check_kernel(const Problem& p, const MatmulKernel& kernel, Numerics numerics, std::int64_t rows,
                  std::int64_t cut, const std::vector<float>& expected) {
  CAPTURE(rows);
  CAPTURE(cut);
  const FloatScope scope;
  const PackedWeight weight = p.packed.with(kernel);
  const Bytes x = pack_activations(kernel, numerics, p.x, 0, rows);
  for (std::int64_t strip = 0; strip < weight.strips();) {
    const std::int64_t end =
        std::min({strip + cut, (strip / kGroupStrips + 1) * kGroupStrips, weight.strips()});
    const std::int64_t columns = (end - strip) * kStripRows, stride = columns + 16;
    const Bytes out(static_cast<std::size_t>(rows * stride) * 4, 0x7b);
    kernel.run({&weight, strip, end, x.data(), static_cast<int>(rows), out.floats(), stride});
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* got = out.floats() + i * stride;
      const std::int64_t first = strip * kStripRows, count = std::min(columns, p.w.rows - first);
      const float* want = expected.data() + i * p.w.rows + first;
      REQUIRE(same_numbers({got, static_cast<std::size_t>(count)}, {want, static_cast<std::size_t>(count)}));
      for (std::int64_t c = count; c < columns; ++c)
        REQUIRE(std::bit_cast<std::uint32_t>(got[c]) == 0);  // no such rows
      for (std::int64_t c = columns; c < stride; ++c)
        REQUIRE(std::bit_cast<std::uint32_t>(got[c]) == 0x7b7b7b7bu);  // not ours
    }
    strip = end;
  }
}

// All kernels that a problem may meet, against the chain; and the chain against sums in double.
void check_problem(const Problem& p, Random& random, std::span<const std::int64_t> row_counts = kRows) {
  for (const Numerics numerics : kAllNumerics) {
    CAPTURE(std::string(numerics_name(numerics)));
    std::vector<float> expected, sums;
    {
      const FloatScope scope;
      if (numerics != Numerics::int8)
        expected = product_canonical(p.w, p.w.decoded(), numerics, p.x);
      else if (is_whole_numbers(p.w.format))
        expected = product_int8(p.w, p.x);
      else
        continue;
      if (numerics == Numerics::bf16 && has_sums(p.w.format)) sums = product_sums(p.w, p.x);
    }
    std::set<const MatmulKernel*> met;  // instruction sets may share them
    for (const Backend* backend : backends_of_kernels()) {
      CAPTURE(std::string(backend->name));
      int kernels = 0;
      for (const MatmulKernel& kernel :
           numerics == Numerics::int8 ? backend->int8_kernels : backend->kernels) {
        if (kernel.weight != (p.packed.shape.tiled() ? p.packed.shape.format : Format::none)) continue;
        CAPTURE(static_cast<int>(kernel.x));
        CHECK((kernel.x == ActivationLayout::bytes) == (numerics == Numerics::int8));
        if (kernel.x == ActivationLayout::pairs && numerics != Numerics::bf16) continue;
        if (kernel.scales < p.packed.findings.scales) continue;
        const bool by_groups = group_dwords(kernel.x) > 0;
        if (by_groups && find_kernel(*backend, p.packed.shape, numerics, kernel.scales) != &kernel)
          continue;  // scales that do not fit its groups
        const bool is_sums = by_groups && numerics == Numerics::bf16;
        CHECK((!is_sums || !sums.empty()));
        ++kernels;
        if (!met.insert(&kernel).second) continue;
        for (const std::int64_t rows : row_counts)
          if (rows <= p.x.rows)
            check_kernel(p, kernel, numerics, rows, 1 + random.below(4), is_sums ? sums : expected);
      }
      CHECK((kernels > 0 || numerics == Numerics::int8));
    }
  }
}

// Lengths of rows that a format can have, around tiles and octets.
std::vector<std::int64_t> lengths(Format format) {
  const std::int64_t group = format_info(format).group;
  if (group == 256) return {256, 768};
  if (group >= 16) return {64, 128, 192, 320};
  return {8, 24, 80, 100, 128, 136};
}

TEST_CASE("matmul: every kernel equals the canonical chain, all row counts and ragged shapes") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    CAPTURE(std::string(format_name(format)));
    const bool many = format == Format::mxfp4 || is_plain(format);
    std::vector<std::int64_t> ks = lengths(format);
    if (format_info(format).group == 32) ks.insert(ks.end(), {32, 96, 160});
    if (format_info(format).group == 16) ks.insert(ks.end(), {16, 48, 144, 208});
    for (const std::int64_t k : ks)
      for (const std::int64_t n : many ? std::vector<std::int64_t>{1, 16, 17, 48, 64, 80, 200}
                                       : std::vector<std::int64_t>{1, 40, 80}) {
        CAPTURE(k);
        CAPTURE(n);
        const Problem p(format, n == 80 ? 130 : 29, n, k, random, Scales::usual,
                        [&] { return random.normal(); });
        CAPTURE(p.w.run);
        check_problem(p, random);
      }
  }
}

TEST_CASE("matmul: formats without tiles, and scales that tiles cannot share, equal the canonical chain") {
  NIB_RANDOM(random);
  constexpr std::int64_t kFewRows[] = {1, 4, 9, 13};
  std::vector<Format> formats = stored_formats(false);
  for (const Format format : stored_formats(true))
    if (format_info(format).scales == nib::Scales::shared) formats.push_back(format);
  for (const Format format : formats)
    for (const std::int64_t k : lengths(format)) {
      CAPTURE(std::string(format_name(format)));
      CAPTURE(k);
      const Problem p(
          format, 13, 40, k, random, Scales::usual, [&] { return random.normal(); },
          random_run(k, random, false));
      CHECK_FALSE(p.packed.shape.tiled());
      check_problem(p, random, kFewRows);
    }
}

TEST_CASE("matmul: the long rows of gpt-oss (22 tiles and half a one) and one that ends inside an octet") {
  NIB_RANDOM(random);
  constexpr std::int64_t kFewRows[] = {1, 3, 4, 13, 25};
  for (const Format format : stored_formats(true)) {
    CAPTURE(std::string(format_name(format)));
    const std::int64_t group = format_info(format).group;
    check_problem(
        {format, 25, 80, group == 256 ? 2816 : 2880, random, Scales::usual, [&] { return random.normal(); }},
        random, kFewRows);
    if (group <= 2)
      check_problem({format, 13, 48, 2882, random, Scales::usual, [&] { return random.normal(); }}, random,
                    kFewRows);
  }
}

TEST_CASE("matmul: extreme and meaningless scales, and activations at the edges of rounding") {
  NIB_RANDOM(random);
  const auto edge = [&] {
    switch (random.below(8)) {
      case 0:
        return random.spread(-62, -58);  // around 2^-60, where bf16 numerics flush
      case 1:
        return random.spread(-149, -126);  // subnormal and nearly so
      case 2:
        return 0.0f;
      case 3:
        return -0.0f;
      case 4:
        return random.spread(-20, 20);
      case 5:
        return std::bit_cast<float>((random.bits() & 0xff00'0000u & 0xbfff'ffffu) | 0x8000u);  // ties of bf16
      default:
        return random.normal();
    }
  };
  for (const Scales scales : {Scales::narrow, Scales::extreme, Scales::wide})
    for (const std::int64_t k : {96, 320}) {
      const Problem p(Format::mxfp4, 29, 48, k, random, scales, edge);
      CHECK(p.packed.findings.scales == (scales == Scales::narrow    ? ScaleRange::narrow
                                         : scales == Scales::extreme ? ScaleRange::usual
                                                                     : ScaleRange::any));
      CHECK_FALSE(p.packed.findings.not_a_number);
      check_problem(p, random);
    }
  for (const Format format : stored_formats(true)) {
    CAPTURE(std::string(format_name(format)));
    const std::int64_t k = format_info(format).group > 2 ? lengths(format).back() : 100;
    for (const Scales scales : {Scales::usual, Scales::wide})
      if (tile_format(format) != Format::mxfp4)
        check_problem({format, 29, 48, k, random, scales, edge}, random);
  }
}

// Where kernels that count sums in units of the scale (Mxfp4Rescaled) begin and cease to be exact: the least
// and the greatest inputs and scales in turn, sums that cancel and sums that only grow.
TEST_CASE("matmul: mxfp4 at the bounds within which sums are rescaled, and just beyond them") {
  NIB_RANDOM(random);
  constexpr std::int64_t kFewRows[] = {1, 2, 3, 4};
  const auto ends = [&](Problem& p) {
    const std::size_t row = p.w.scale_row();
    for (std::size_t i = 0; i < p.w.scales.size(); ++i)  // every other row has the least alone
      p.w.scales[i] = static_cast<std::byte>(i / row % 2 || random.chance(50) ? 90 : 130);
    p.packed = Packed(p.w);
    CHECK(p.packed.findings.scales == ScaleRange::narrow);
  };
  // Products of 2^-96 and weights of the least scale are flushed, in units of the scale not; 2^90 in such
  // units overflows.
  for (const float beyond :
       {0.0f, 0x1p-61f, 0x1p41f, 0x1p-96f, 0x1p90f, std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    CAPTURE(beyond);
    const auto any = [&] { return random.chance(30) ? random.spread(-60, -58) : random.spread(-60, 39); };
    Problem p(Format::mxfp4, 4, 48, 2880, random, Scales::narrow, any);
    for (std::int64_t r = 0; r < 4; ++r) {
      float* x = p.x.row(r);
      // What comes and goes leaves the least bits of what came before.
      for (std::int64_t k = 0; k < 2880; k += 96) x[k + 1] = -x[k];
      if (r % 2 == 0)
        x[random.below(2880)] = beyond;
      else
        for (std::int64_t k = 0; k < 2880; ++k) x[k] = random.chance(50) ? beyond : -beyond;
    }
    check_problem(p, random, kFewRows);
    ends(p);
    check_problem(p, random, kFewRows);
  }
  for (const std::int64_t k : {65536, 65568}) {
    Problem p(Format::mxfp4, 2, 16, k, random, Scales::usual, [] { return 0x1p40f; });
    std::fill(p.w.codes.begin(), p.w.codes.end(), std::byte{0x77});  // 6, all of them
    ends(p);
    check_problem(p, random, kFewRows);
  }
}

// Sums that come to lie beside the least normal number, where rounding decides whether they are flushed.
TEST_CASE("matmul: what rounding makes the least normal number is kept, what lies below is flushed") {
  NIB_RANDOM(random);
  for (const std::int64_t k : {8, 40}) {
    Problem p(Format::f32, 13, 80, k, random, Scales::usual, [] { return 0.0f; });
    for (std::int64_t i = 0; i < k; ++i) {
      const float x = random.spread(-63, -63);
      for (std::int64_t r = 0; r < p.x.rows; ++r) p.x.row(r)[i] = x;
      for (std::int64_t n = 0; n < p.w.rows; ++n) {
        float w = random.chance(70) ? 0.0f : static_cast<float>(0x1p-126 / static_cast<double>(x));
        if (random.chance(20)) w *= -0x1p-25f;
        std::memcpy(p.w.codes.data() + (n * k + i) * 4, &w, 4);
      }
    }
    p.packed = Packed(p.w);
    check_problem(p, random);
  }
}

// One product that underflows to negative zero, then what a tile holds past k: zeros under a negative scale.
TEST_CASE("matmul: a sum of zero is positive, whatever the sign of the last scale") {
  NIB_RANDOM(random);
  for (const Format format : {Format::int8, Format::llm_int8, Format::fp8_e4m3, Format::fp8_e5m2}) {
    CAPTURE(std::string(format_name(format)));
    Problem p(
        format, 13, 16, 12, random, Scales::usual, [] { return 0x1p-60f; }, 12);
    std::fill(p.w.codes.begin(), p.w.codes.end(), std::byte{0});
    for (std::int64_t row = 0; row < p.w.rows; ++row) {
      const float scale = row % 2 ? 0x1p-80f : -0x1p-80f;
      p.w.codes[static_cast<std::size_t>(row * p.w.k)] = std::byte{1};
      std::memcpy(p.w.scales.data() + row * 4, &scale, 4);
    }
    p.packed = Packed(p.w);
    check_problem(p, random);
    const FloatScope scope;
    for (const float sum : product_canonical(p.w, p.w.decoded(), Numerics::f32, p.x))
      CHECK(std::bit_cast<std::uint32_t>(sum) == 0);
  }
}

TEST_CASE("matmul: infinities and NaNs go where they belong and nowhere else") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    CAPTURE(std::string(format_name(format)));
    const int k = format_info(format).group == 256 ? 256 : 64;
    Problem p(format, 13, 32, k, random, Scales::usual, [&] { return random.normal(); });
    p.x.row(3)[random.below(k)] = std::numeric_limits<float>::infinity();
    p.x.row(11)[random.below(k)] = std::numeric_limits<float>::quiet_NaN();
    check_problem(p, random);
  }
}

// gamma(n) of the standard error analysis: n roundings, each at most 2^-24 of what is added so far; one for
// each input, and up to three that make a weight of a level, a scale and a factor.
TEST_CASE("matmul: the canonical chain is as close to the sum in double as f32 allows") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    CAPTURE(std::string(format_name(format)));
    const std::int64_t length = format_info(format).group == 256 ? 2816 : 2880;
    const Problem p(format, 3, 40, length, random, Scales::usual, [&] { return random.normal(); });
    for (const Numerics numerics : {Numerics::bf16, Numerics::f32}) {
      Rows x(p.x.rows, p.x.width);
      for (std::int64_t r = 0; r < x.rows; ++r)
        for (std::int64_t k = 0; k < x.width; ++k)
          x.row(r)[k] = numerics == Numerics::bf16 ? to_float(to_bf16(p.x.row(r)[k])) : p.x.row(r)[k];
      const auto chain = product_canonical(p.w, p.w.decoded(), numerics, p.x);
      const double roundings = static_cast<double>(p.w.k) + 3;
      const double gamma = roundings * 0x1p-24 / (1 - roundings * 0x1p-24);
      for (std::int64_t i = 0; i < x.rows; ++i)
        for (std::int64_t n = 0; n < p.w.rows; ++n) {
          const ReferenceDot exact = dot_row(p.w.view(), n, x.row(i));
          const double error =
              std::abs(static_cast<double>(chain[static_cast<std::size_t>(i * p.w.rows + n)]) - exact.value);
          CHECK(error <= gamma * exact.magnitude + 2 * static_cast<double>(p.w.k) * 0x1p-126);
        }
    }
  }
}

// Sums of 16 bits that wrap must come back: every code the largest or the least that there is, against inputs
// that are all +-127 steps.
TEST_CASE("matmul: int8 sums at their limits") {
  NIB_RANDOM(random);
  constexpr std::int64_t kFewRows[] = {1, 2, 5, 13};
  for (const Format format : stored_formats(true)) {
    if (!is_whole_numbers(format)) continue;
    CAPTURE(std::string(format_name(format)));
    const std::int64_t k = format_info(format).group == 256 ? 512 : 192;
    for (const int pattern : {0x00, 0xff, 0x77, 0x88, 0x7f, 0x80, 0x81, 0x0f, 0xf0})
      for (const int high : {0x00, 0xff}) {
        CAPTURE(pattern);
        CAPTURE(high);
        Problem p(
            format, 13, 32, k, random, Scales::usual, [] { return 0.0f; }, k);
        const auto fields = one_fields(format);
        for (std::size_t at = 0; at < p.w.codes.size(); at += format_info(format).code_bytes)
          for (std::size_t i = 0; i < fields.size(); ++i) {
            // The plane of high bits comes second in q6_k, first in the others that have one.
            const int fill = fields.size() > 1 && i == (format == Format::q6_k ? 1u : 0u) ? high : pattern;
            std::fill_n(p.w.codes.begin() + static_cast<std::ptrdiff_t>(at + fields[i].from),
                        fields[i].to - fields[i].from, static_cast<std::byte>(fill));
          }
        p.packed = Packed(p.w);
        for (std::int64_t r = 0; r < p.x.rows; ++r)
          for (std::int64_t i = 0; i < k; ++i)
            p.x.row(r)[i] = r % 4 == 0   ? 1.0f
                            : r % 4 == 1 ? -1.0f
                            : r % 4 == 2 ? (i % 2 ? 1.0f : -1.0f)
                                         : (i % 8 < 4 ? 1.0f : -1.0f);
        check_problem(p, random, kFewRows);
      }
  }
}

// What rounding to bytes loses: half a scale for each input, and the roundings of a chain over groups.
TEST_CASE("matmul: the chain of int8 is as close to the sum in double as its inputs are") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    if (!is_whole_numbers(format)) continue;
    CAPTURE(std::string(format_name(format)));
    const std::int64_t length = format_info(format).group == 256 ? 2816 : 2880;
    const Problem p(
        format, 3, 40, length, random, Scales::usual,
        [&] { return random.normal() * (random.chance(1) ? 50.0f : 1.0f); }, length);
    const std::vector<float> chain = product_int8(p.w, p.x);
    const CodesAndSteps whole(p.w);
    std::vector<double> row(static_cast<std::size_t>(length));
    for (std::int64_t n = 0; n < p.w.rows; ++n) {
      decode_row(p.w.view(), n, row.data());
      for (std::int64_t i = 0; i < p.x.rows; ++i) {
        double exact = 0, magnitude = 0, lost = 0;
        for (std::int64_t k = 0; k < length; ++k) {
          const auto at = static_cast<std::size_t>(n * length + k);
          const double w = row[static_cast<std::size_t>(k)], x = static_cast<double>(p.x.row(i)[k]);
          const double scale = static_cast<double>(group_int8(p.x.row(i) + k / 32 * 32, 32).scale);
          exact += w * x;
          lost += std::abs(w) * scale * 0.5001;
          // What the parts of a weight may be larger than it, a code times its step and a minimum.
          const double parts = std::abs(whole.codes[at] * static_cast<double>(whole.steps[at])) +
                               (whole.minima.empty() ? 0 : std::abs(static_cast<double>(whole.minima[at])));
          magnitude += parts * (std::abs(x) + scale);
        }
        const double roundings = static_cast<double>(length / 16 * 2 + 8) * 0x1p-24;
        const double got = static_cast<double>(chain[static_cast<std::size_t>(i * p.w.rows + n)]);
        // A product of two scales that is flushed was to meet a sum of up to 2^19.
        const double flushed = static_cast<double>(length / 16) * 0x1p-107;
        CHECK(std::abs(got - exact) <= lost + roundings * magnitude + flushed);
      }
    }
  }
}

// Inputs are rounded to bf16 beforehand, codes and products of a run are exact but for the roundings of its
// sum; then those of the step, and of the chain.
TEST_CASE("matmul: the chain of sums is as close to the sum in double as its roundings are") {
  NIB_RANDOM(random);
  for (const Format format : stored_formats(true)) {
    if (!has_sums(format)) continue;
    CAPTURE(std::string(format_name(format)));
    const std::int64_t length = format_info(format).group == 256 ? 2816 : 2880;
    const Problem p(
        format, 3, 40, length, random, Scales::usual,
        [&] { return activation_bf16(random.normal() * (random.chance(1) ? 50.0f : 1.0f)); }, length);
    const std::vector<float> chain = product_sums(p.w, p.x);
    const CodesAndSteps found(p.w);
    std::vector<double> row(static_cast<std::size_t>(length));
    for (std::int64_t n = 0; n < p.w.rows; ++n) {
      decode_row(p.w.view(), n, row.data());
      for (std::int64_t i = 0; i < p.x.rows; ++i) {
        double exact = 0, magnitude = 0;
        for (std::int64_t k = 0; k < length; ++k) {
          const StepsInt8 steps = found.at(static_cast<std::size_t>(n * length + k));
          const double code = static_cast<double>(found.codes[static_cast<std::size_t>(n * length + k)]);
          const double x = static_cast<double>(p.x.row(i)[k]);
          exact += row[static_cast<std::size_t>(k)] * x;
          magnitude += (std::abs(code * static_cast<double>(steps.step)) +
                        std::abs(static_cast<double>(steps.minimum))) *
                       std::abs(x);
        }
        // A term meets the additions of its run (up to 32), of the runs and minima after it, and the
        // roundings of its step (up to three) and, in the decoded weight, of two more.
        const double roundings = (32 + static_cast<double>(length / 16 * 2) + 5) * 0x1p-24;
        const double got = static_cast<double>(chain[static_cast<std::size_t>(i * p.w.rows + n)]);
        CHECK(std::abs(got - exact) <= roundings * magnitude + static_cast<double>(length) * 0x1p-100);
      }
    }
  }
}

TEST_CASE("kernels: every format has one under all numerics, and scales meet only those that take them") {
  for (const Backend* backend : backends_of_kernels()) {
    CAPTURE(std::string(backend->name));
    for (const FormatInfo& info : kFormats)
      for (const Numerics numerics : kAllNumerics)
        for (const std::int64_t run : {64, 16, 20})
          for (const ScaleRange scales : {ScaleRange::narrow, ScaleRange::usual, ScaleRange::any}) {
            const PackedWeight shape{tile_format(info.format), 16, 256, nullptr, nullptr, run};
            const MatmulKernel* kernel = find_kernel(*backend, shape, numerics, scales);
            if (info.format == Format::none) {
              CHECK(kernel == nullptr);
              continue;
            }
            REQUIRE(kernel);
            CHECK(kernel->weight == (shape.tiled() ? shape.format : Format::none));
            CHECK(kernel->scales >= scales);
            const bool grouped = shape.tiled() && (run == 64 || !tile_info(shape.format).shared);
            const bool bytes = grouped && is_whole_numbers(info.format) && numerics == Numerics::int8;
            const bool sums = grouped && has_sums(info.format) && rounds_to_bf16(numerics) && !bytes;
            CHECK((kernel->x == ActivationLayout::bytes) == bytes);
            CHECK((group_dwords(kernel->x) > 0) == (bytes || sums));
            if ((scales == ScaleRange::any || numerics == Numerics::f32) && !bytes && !sums)
              CHECK(kernel->x == ActivationLayout::floats);
          }
  }
}

}  // namespace
}  // namespace nib::test
