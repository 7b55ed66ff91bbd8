// Norms without a kernel of their own: what is left for them, and products that take it, near their
// definitions; and the same bits whoever leaves it, for every number of rows.
#include "experts_rig.hpp"
#include "fold_rig.hpp"

namespace nib::test {
namespace {

TEST_CASE("folded norms: rows, squares and factors") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const std::int64_t width : {1, 15, 16, 17, 64, 100, 257, 1000, 2880}) {
    CAPTURE(width);
    const FoldRig rig(3, width, random);
    rig.fold({&device, 2, true});
    for (std::int64_t r = 0; r < 3; ++r) {
      for (std::int64_t i = 0; i < rig.normed_stride; ++i)
        REQUIRE(rig.normed[r * rig.normed_stride + i] ==
                (i < width ? to_bf16(rig.x[r * rig.stride + i] * rig.weight[i]).bits : 0));
      const std::int64_t parts = norm_squares(width) - 1;
      for (std::int64_t part = 0; part < parts; ++part) {
        double sum = 0;
        for (std::int64_t i = part * kNormPart; i < std::min((part + 1) * kNormPart, width); ++i)
          sum += double{rig.x[r * rig.stride + i]} * rig.x[r * rig.stride + i];
        CHECK(std::fabs(rig.squares_of(r)[part] - sum) <= sum * 5 * 0x1p-24);
      }
      CHECK(std::fabs(rig.squares_of(r)[parts] - rig.factor(r)) <= rig.factor(r) * rig.lost());
    }
  }
}

TEST_CASE("folded norms: rows that were picked") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  const TestQueue queue{&device, 2, true};
  const FoldRig all(7, 100, random);
  all.fold(queue);
  DeviceBuffer<std::int32_t> picked(3);
  const std::int32_t of_all[] = {6, 0, 3};
  std::copy_n(of_all, 3, picked.data());
  FoldRig some = all.part(0, 3, random);
  REQUIRE(queue.run(cuda::norm_picked, all.x.data(), picked.data(), 3, 100, some.next()).ok());
  for (std::int64_t i = 0; i < 3; ++i) {
    CHECK(same_bits(some.squares_of(i), all.squares_of(of_all[i]), norm_squares(100)));
    CHECK(std::equal(some.normed.data() + i * some.normed_stride,
                     some.normed.data() + (i + 1) * some.normed_stride,
                     all.normed.data() + of_all[i] * all.normed_stride));
  }
}

// W folded(x): [rows][row_stride(weight.rows)].
DeviceBuffer<float> product_of(const DeviceMatrices& w, const FoldRig& rig, const DeviceBuffer<float>& bias,
                               const TestQueue& queue) {
  const PackedWeight& weight = w.shape();
  const DeviceScratch scratch(weight.k);
  DeviceBuffer<float> out(rig.rows * row_stride(weight.rows), kNoNumber);
  const Status status = queue.run(cuda::multiply, scratch.context(),
                                  {.weight = &weight,
                                   .x = rig.normed.data(),
                                   .x_stride = rig.normed_stride,
                                   .rows = rig.rows,
                                   .bias = bias.data(),
                                   .out = out.data(),
                                   .out_stride = row_stride(weight.rows),
                                   .norm = rig.folded()});
  CAPTURE(status.message());
  REQUIRE(status.ok());
  CHECK(scratch.counters_are_zero());
  return out;
}

constexpr Format kForms[] = {Format::mxfp4, Format::bf16, Format::q8_0, Format::q5_0, Format::f32};

TEST_CASE("folded norms: products are those of the norm, the same bits for every number of rows") {
  NIB_RANDOM(random);
  for (const Format format : kForms)
    for (const bool tensor_cores : {true, false}) {
      const std::int64_t k = 32 * (1 + random.below(20)), out_rows = 1 + random.below(50), rows = 20;
      CAPTURE(format_name(format));
      CAPTURE(tensor_cores);
      CAPTURE(k);
      const DeviceMatrices w(format, 1, out_rows, k, random);
      DeviceBuffer<float> bias(out_rows);
      for (std::int64_t i = 0; i < out_rows; ++i) bias[i] = random.normal();
      const FoldRig all(rows, k, random);
      DeviceUnderTest device(random.seed);
      const TestQueue queue{&device, 1 + random.below(7), tensor_cores};
      all.fold(queue);
      const DeviceBuffer<float> together = product_of(w, all, bias, queue);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::vector<double> inputs;
        for (std::int64_t i = 0; i < k; ++i)
          inputs.push_back(double{all.x[r * all.stride + i]} * double{all.weight[i]});
        for (std::int64_t o = 0; o < out_rows; ++o) {
          const ReferenceDot dot = dot_row(w.encoded[0].view(), o, inputs.data());
          const double factor = all.factor(r), wanted = dot.value * factor + bias[o];
          // Inputs are rounded to 2^-8 of themselves, and once before that; then the sum and its factor.
          const double bound = factor * dot.magnitude * (0x1.01p-8 + all.lost() + 0x1p-23) +
                               factor * 1.01 * sum_bound(dot, w.shape()) + std::fabs(wanted) * 0x1p-23;
          const double got = together[r * row_stride(out_rows) + o];
          if (!(std::fabs(got - wanted) <= bound))
            FAIL_CHECK("row ", r, ", output ", o, ": ", got, ", wanted ", wanted, " within ", bound);
        }
      }
      for (std::int64_t first = 0, some = 0; first < rows; first += some) {
        some = std::min<std::int64_t>(1 + random.below(9), rows - first);
        const FoldRig part = all.part(first, some, random);
        DeviceUnderTest other(random.bits());
        const TestQueue others{&other, 1 + random.below(20), tensor_cores};
        part.fold(others);
        if (some <= 8)  // products of few rows know squares alone
          for (std::int64_t r = 0; r < some; ++r) part.squares[(r + 1) * norm_squares(k) - 1] = kNoNumber;
        const DeviceBuffer<float> alone = product_of(w, part, bias, others);
        for (std::int64_t r = 0; r < some; ++r)
          CHECK(same_bits(alone.data() + r * row_stride(out_rows),
                          together.data() + (first + r) * row_stride(out_rows), out_rows));
      }
    }
}

TEST_CASE("folded norms: a product leaves what the kernel of its own does") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const Format format : {Format::mxfp4, Format::bf16, Format::q4_0})
    for (std::int64_t rows = 1; rows <= 8; ++rows) {
      const std::int64_t k = 32 * (1 + random.below(20)), width = 1 + random.below(200);
      CAPTURE(format_name(format));
      CAPTURE(rows);
      CAPTURE(width);
      const DeviceMatrices w(format, 1, width, k, random);
      REQUIRE(cuda::multiply_goes_on(w.shape(), rows));
      CHECK(!cuda::multiply_goes_on(w.shape(), 9));
      const DeviceInputs in(rows, k, random);
      const FoldRig rig(rows, width, random);
      const DeviceScratch scratch(k);
      const TestQueue queue{&device, 1 + random.below(20), random.chance(50)};
      const Status status = queue.run(cuda::multiply, scratch.context(),
                                      {.weight = &w.shape(),
                                       .x = in.row(0),
                                       .x_stride = in.stride,
                                       .rows = rows,
                                       .bias = nullptr,
                                       .out = rig.x.data(),
                                       .out_stride = rig.stride,
                                       .add = true,
                                       .next = cuda::FoldedRows::of(rig.next(), width)});
      CAPTURE(status.message());
      REQUIRE(status.ok());
      const FoldRig by_itself = rig.part(0, rows, random);
      by_itself.fold(queue);
      check_same(rig, by_itself);
    }
}

// A layer of experts between a norm before it and one after it.
FoldRig run_between_norms(const ExpertLayer& layer, Choice choice, const FoldRig& before, FoldRig after,
                          const TestQueue& queue) {
  const std::int64_t entries = choice.rows() * choice.chosen;
  const DeviceScratch scratch(std::max(layer.width, layer.units), entries * cuda::bf16_stride(layer.units));
  const DeviceBuffer<float> outputs(entries * row_stride(layer.width), kNoNumber);
  ExpertsArgs args = arguments_of(layer, choice);
  args.normed = reinterpret_cast<const float*>(before.normed.data());
  args.outputs = outputs.data();
  args.x = after.x.data();
  args.norm = before.norm();
  args.squares = before.squares.data();
  args.next = after.next();
  const Status status = queue.run(cuda::experts, scratch.context(), args);
  CAPTURE(status.message());
  REQUIRE(status.ok());
  CHECK(scratch.counters_are_zero());
  return after;
}

TEST_CASE("folded norms: experts take and leave rows, the same bits for every number of rows") {
  NIB_RANDOM(random);
  constexpr Format kM = Format::mxfp4, kB = Format::bf16, kT = Format::q5_0;
  constexpr ExpertLayer::Formats kLayers[] = {{kM, kM}, {kB, kB}, {kT, kT}, {kB, kT}};
  for (const ExpertLayer::Formats formats : kLayers)
    for (const bool is_dense : {false, true}) {
      const int count = is_dense ? 1 : 2 + random.below(6), chosen = is_dense ? 1 : 2;
      const std::int64_t rows = 20, width = 32 * (1 + random.below(6)), units = 32 * (1 + random.below(6));
      const bool tensor_cores = random.chance(50);
      CAPTURE(format_name(formats.down));
      CAPTURE(tensor_cores);
      CAPTURE(width);
      CAPTURE(units);
      const Activation activation = random.chance(50) ? Activation::swiglu : Activation::gelu;
      const ExpertLayer layer(formats, activation, count, width, units, true, random);
      const Choice choice(rows, count, chosen, random);
      const FoldRig before(rows, width, random), after(rows, width, random);
      DeviceUnderTest device(random.seed);
      const TestQueue queue{&device, 3, tensor_cores};
      before.fold(queue);
      const FoldRig all = run_between_norms(layer, choice, before, after, queue);
      for (std::int64_t first = 0, some = 0; first < rows; first += some) {
        some = std::min<std::int64_t>(1 + random.below(9), rows - first);
        CAPTURE(some);
        const FoldRig in = before.part(first, some, random);
        DeviceUnderTest other(random.bits());
        const TestQueue others{&other, 1 + random.below(20), tensor_cores};
        in.fold(others);
        const FoldRig out =
            run_between_norms(layer, choice.part(first, some), in, after.part(first, some, random), others);
        CHECK(same_bits(out.x.data(), all.x.data() + first * all.stride, some * all.stride));
        const FoldRig by_itself = out.part(0, some, random);
        by_itself.fold(others);
        check_same(out, by_itself);
      }
      // Near what is computed of rows that were normed before: bf16 keeps eight bits of either.
      FoldRig plain = after;
      Choice again = choice;
      FoldRig normed = before;
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < width; ++i)
          normed.normed[r * normed.normed_stride + i] =
              to_bf16(static_cast<float>(before.factor(r) * double{before.x[r * before.stride + i]} *
                                         double{before.weight[i]}))
                  .bits;
      const std::int64_t entries = rows * chosen;
      const DeviceScratch scratch(std::max(width, units), entries * cuda::bf16_stride(units));
      const DeviceBuffer<float> outputs(entries * row_stride(width), kNoNumber);
      ExpertsArgs args = arguments_of(layer, again);
      args.normed = reinterpret_cast<const float*>(normed.normed.data());
      args.outputs = outputs.data();
      args.x = plain.x.data();
      REQUIRE(queue.run(cuda::experts, scratch.context(), args).ok());
      double squares = 0, off = 0;
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < width; ++i) {
          const auto at = r * all.stride + i;
          const double added = double{plain.x[at]} - double{after.x[at]};
          squares += added * added;
          off += std::pow(double{all.x[at]} - double{plain.x[at]}, 2);
        }
      CHECK(off < squares * 0x1p-10);
    }
}

}  // namespace
}  // namespace nib::test
