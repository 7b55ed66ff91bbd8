// The router behind the product that ends with its rows: near the exact numbers; and the same bits as those
// of kernels of their own, and as a prompt's.
#include "fold_rig.hpp"
#include "route_rig.hpp"

#include <vector>

namespace nib::test {
namespace {

// x += O in + bias, its norm, and the router.
struct JoinedRig {
  struct Shape {
    std::int64_t rows, k, hidden;
    int experts, chosen;
  };
  JoinedRig(Format format, Shape shape_, Random& random)
      : shape(shape_),
        projection(format, 1, shape.hidden, shape.k, random),
        in(shape.rows, shape.k, random),
        before(shape.rows, shape.hidden, random),
        after(before),
        router(shape.rows, shape.experts, shape.chosen, shape.hidden, random),
        scratch(std::max(shape.k, shape.hidden), 0, shape.experts),
        bias(shape.hidden) {
    for (std::int64_t i = 0; i < shape.hidden; ++i) bias[i] = random.normal();
  }
  // Some of the rows alone, before anything was done with them.
  JoinedRig part(std::int64_t first, std::int64_t count, Random& random) const {
    JoinedRig out = *this;
    out.shape.rows = out.router.rows = count;
    out.in = DeviceInputs(count, shape.k, random);
    std::copy_n(in.row(first), count * in.stride, out.in.row(0));
    out.before = out.after = before.part(first, count, random);
    return out;
  }

  RouteArgs route_args() {
    RouteArgs args = router.arguments();
    args.normed = reinterpret_cast<float*>(after.normed.data());
    args.norm = after.norm();
    args.squares = after.squares.data();
    return args;
  }
  cuda::Multiply product(const RouteArgs* route) const {
    return {.weight = &projection.shape(),
            .x = in.row(0),
            .x_stride = in.stride,
            .rows = shape.rows,
            .bias = bias.data(),
            .out = after.x.data(),
            .out_stride = after.stride,
            .add = true,
            .next = route ? cuda::FoldedRows::of(after.next(), shape.hidden) : cuda::FoldedRows{},
            .route = route};
  }
  Status run_joined(const TestQueue& queue) {
    const RouteArgs args = route_args();
    const Status status = queue.run(cuda::multiply, scratch.context(), product(&args));
    CHECK(scratch.counters_are_zero());
    return status;
  }
  void run_apart(const TestQueue& queue) {
    REQUIRE(queue.run(cuda::multiply, scratch.context(), product(nullptr)).ok());
    after.fold(queue);
    REQUIRE(queue.run(cuda::route, scratch.context(), route_args()).ok());
  }

  Shape shape;
  DeviceMatrices projection;
  DeviceInputs in;
  FoldRig before, after;
  RouteRig router;
  DeviceScratch scratch;
  DeviceBuffer<float> bias;
};

void check_sums(const JoinedRig& rig) {
  for (std::int64_t r = 0; r < rig.shape.rows; ++r) {
    const std::vector<double> in = rig.in.exact(r);
    for (std::int64_t o = 0; o < rig.shape.hidden; ++o) {
      const ReferenceDot dot = dot_row(rig.projection.encoded[0].view(), o, in.data());
      const double product = dot.value + rig.bias[o], there = rig.before.x[r * rig.before.stride + o];
      const double bound = 1.001 * (sum_bound(dot, rig.projection.shape()) +
                                    (std::fabs(product) * 2 + std::fabs(there)) * 0x1p-24);
      CHECK(std::fabs(rig.after.x[r * rig.after.stride + o] - (there + product)) <= bound);
    }
  }
}

// Of the x that there is: inputs are rounded to 2^-8 of themselves, and once before that; then the sum and
// its factor.
void check_logits_of_norms(const JoinedRig& rig) {
  const FoldRig& rows = rig.after;
  for (std::int64_t r = 0; r < rig.shape.rows; ++r) {
    std::vector<double> inputs;
    for (std::int64_t i = 0; i < rows.width; ++i)
      inputs.push_back(double{rows.x[r * rows.stride + i]} * double{rows.weight[i]});
    const double factor = rows.factor(r);
    for (int e = 0; e < rig.shape.experts; ++e) {
      const ReferenceDot dot = dot_row(rig.router.weight.encoded[0].view(), e, inputs.data());
      const double wanted = dot.value * factor + rig.router.bias[e];
      const double bound = factor * dot.magnitude * (0x1.01p-8 + rows.lost() + 0x1p-23) +
                           factor * 1.01 * sum_bound(dot, rig.router.weight.shape()) +
                           std::fabs(wanted) * 0x1p-23;
      CHECK(std::fabs(rig.router.logit(r, e) - wanted) <= bound);
    }
  }
}

template <class T>
bool begins_with(const T& all, std::size_t at, const T& some) {
  return std::memcmp(all.data() + at, some.data(), some.size() * sizeof some[0]) == 0;
}

TEST_CASE("router behind a product: the numbers, and the bits of a prompt's, for one to eight rows") {
  NIB_RANDOM(random);
  constexpr Format kForms[] = {Format::bf16, Format::mxfp4, Format::q4_0, Format::q8_0, Format::fp8_e4m3};
  int form = random.below(5);
  for (const int experts : {4, 32, 128, 1 + 2 * random.below(40)})
    for (const bool tensor_cores : {true, false})
      for (const std::int64_t hidden : {1 + random.below(63), 64 + random.below(300)}) {
        const Format format = kForms[form++ % 5];
        const int chosen = 1 + random.below(std::min(experts, 6));
        const std::int64_t rows = 36, k = 32 * (1 + random.below(12));
        CAPTURE(format_name(format));
        CAPTURE(experts);
        CAPTURE(tensor_cores);
        CAPTURE(hidden);
        CAPTURE(k);
        const JoinedRig fresh(format, {rows, k, hidden, experts, chosen}, random);
        JoinedRig prompt = fresh;
        DeviceUnderTest device(random.seed);
        prompt.router.weights_of_all = random.chance(50);
        prompt.run_apart({&device, 1 + random.below(7), tensor_cores});
        std::int64_t first = 0;
        for (std::int64_t some = 1; some <= 8; first += some++) {
          CAPTURE(some);
          JoinedRig few = fresh.part(first, some, random);
          few.router.weights_of_all = prompt.router.weights_of_all;
          REQUIRE(cuda::multiply_routes(few.projection.shape(), few.route_args()));
          DeviceUnderTest other(random.bits());
          const Status status = few.run_joined({&other, 1 + random.below(30), tensor_cores});
          CAPTURE(status.message());
          REQUIRE(status.ok());
          check_sums(few);
          check_logits_of_norms(few);
          check_choice(few.router);
          check_lists(few.router);
          CHECK(same_bits(few.after.x.data(), prompt.after.x.data() + first * few.after.stride,
                          some * few.after.stride));
          const auto at = static_cast<std::size_t>(first);
          const auto stride = static_cast<std::size_t>(few.router.stride);
          for (std::size_t r = 0; r < static_cast<std::size_t>(some); ++r)
            CHECK(
                same_bits(&few.router.logits[r * stride], &prompt.router.logits[(at + r) * stride], experts));
          const auto choices = static_cast<std::size_t>(chosen);
          CHECK(begins_with(prompt.router.ids, at * choices, few.router.ids));
          CHECK(begins_with(prompt.router.weights, at * choices, few.router.weights));
          const FoldRig by_itself = few.after.part(0, some, random);
          by_itself.fold({&other, 2, tensor_cores});
          check_same(few.after, by_itself);
        }
      }
}

TEST_CASE("router behind a product: equal logits and what is no number") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  JoinedRig rig(Format::bf16, {3, 64, 100, 40, 5}, random);
  std::fill(rig.router.weight.encoded[0].codes.begin(), rig.router.weight.encoded[0].codes.end(),
            std::byte{});
  rig.router.weight.pack(random);
  rig.router.has_bias = false;
  rig.in.row(1)[0] = 0x7fc0;  // NaN in all of a row
  rig.in.row(2)[0] = 0x7f80;
  REQUIRE(rig.run_joined({&device, 3, true}).ok());
  for (std::size_t i = 0; i < 15; ++i) CHECK(rig.router.ids[i] == static_cast<int>(i % 5));
  check_lists(rig.router);
}

TEST_CASE("router behind a product: what it does not take") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  const auto routes = [&](Format of_product, Format of_router, std::int64_t rows, NormKind kind) {
    JoinedRig rig(of_product, {rows, 64, 32, 8, 2}, random);
    rig.router.weight = DeviceMatrices(of_router, 1, 8, 32, random);
    RouteArgs args = rig.route_args();
    args.norm.kind = kind;
    return cuda::multiply_routes(rig.projection.shape(), args);
  };
  CHECK(routes(Format::bf16, Format::bf16, 8, NormKind::rms));
  CHECK(!routes(Format::bf16, Format::bf16, 9, NormKind::rms));
  CHECK(!routes(Format::bf16, Format::f32, 8, NormKind::rms));
  CHECK(!routes(Format::q5_0, Format::bf16, 8, NormKind::rms));
  CHECK(!routes(Format::bf16, Format::bf16, 8, NormKind::layer));
  JoinedRig rig(Format::bf16, {2, 64, 32, 8, 2}, random);
  RouteArgs args = rig.route_args();
  const auto code = [&](const OpContext& context) {
    return TestQueue{&device, 1, true}.run(cuda::multiply, context, rig.product(&args)).code();
  };
  OpContext small = rig.scratch.context();
  small.tile_floats = kScratchCounters + 63;
  CHECK(code(small) == Code::argument);
  args.rows = 1;
  CHECK(code(rig.scratch.context()) == Code::argument);
  args = rig.route_args();
  args.experts = 7;
  CHECK(code(rig.scratch.context()) == Code::argument);
  rig.router.weight = DeviceMatrices(Format::bf16, 1, 8, 48, random);
  args = rig.route_args();  // which points to it
  CHECK(code(rig.scratch.context()) == Code::argument);
}

}  // namespace
}  // namespace nib::test
