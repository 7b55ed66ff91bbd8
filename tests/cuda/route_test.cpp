// The router: logits near the exact products, then the choice, the weights and the lists of what it chose
// from, by their definitions.
#include "device_rig.hpp"

#include <numeric>

namespace nib::test {
namespace {

struct RouteRig {
  RouteRig(std::int64_t rows_, int experts_, int chosen_, std::int64_t k, Random& random,
           Format format = Format::bf16)
      : rows(rows_),
        experts(experts_),
        chosen(chosen_),
        stride(row_stride(experts)),
        weight(format, 1, experts, k, random),
        x(rows, k, random, 0),
        scratch(k),
        bias(experts) {
    for (int i = 0; i < experts; ++i) bias[i] = random.normal();
  }
  RouteArgs arguments() {
    const auto all = static_cast<std::size_t>(rows * chosen);
    logits.assign(static_cast<std::size_t>(rows * stride), -1);
    for (auto* each : {&weights, &list_weights}) each->assign(all, -1);
    for (auto* each : {&ids, &row, &entry_of_row}) each->assign(all, -1);
    first.assign(static_cast<std::size_t>(experts) + 1, -1);
    RouteArgs args{};
    args.rows = rows;
    args.weight = &weight.shape();
    args.bias = has_bias ? bias.data() : nullptr;
    args.experts = experts;
    args.experts_per_token = chosen;
    args.normed = reinterpret_cast<float*>(x.row(0));
    args.logits = logits.data();
    args.routing = {row.data(),          list_weights.data(), first.data(),
                    entry_of_row.data(), ids.data(),          weights.data()};
    args.weights_of_all = weights_of_all;
    args.width = x.width;
    return args;
  }
  Status run(const TestQueue& queue) {
    const Status status = queue.run(cuda::route, scratch.context(), arguments());
    CHECK(scratch.counters_are_zero());
    return status;
  }
  float logit(std::int64_t r, int e) const { return logits[static_cast<std::size_t>(r * stride + e)]; }

  std::int64_t rows;
  int experts, chosen;
  std::int64_t stride;
  DeviceMatrices weight;
  DeviceInputs x;
  DeviceScratch scratch;
  DeviceBuffer<float> bias;
  bool has_bias = true, weights_of_all = false;
  DeviceVector<float> logits, weights, list_weights;
  DeviceVector<std::int32_t> ids, row, entry_of_row, first;
};

void check_logits(const RouteRig& rig) {
  for (std::int64_t r = 0; r < rig.rows; ++r) {
    const std::vector<double> x = rig.x.exact(r);
    for (int e = 0; e < rig.experts; ++e) {
      const ReferenceDot dot = dot_row(rig.weight.encoded[0].view(), e, x.data());
      const double wanted = dot.value + (rig.has_bias ? rig.bias[e] : 0);
      const double bound = 1.001 * (sum_bound(dot, rig.weight.shape()) + std::fabs(wanted) * 0x1p-24);
      CHECK(std::fabs(rig.logit(r, e) - wanted) <= bound);
    }
  }
}

void check_choice(const RouteRig& rig) {
  for (std::int64_t r = 0; r < rig.rows; ++r) {
    std::vector<int> order(static_cast<std::size_t>(rig.experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return rig.logit(r, a) > rig.logit(r, b); });
    const double largest = rig.logit(r, order[0]);
    double total = 0;
    for (int j = 0; j < (rig.weights_of_all ? rig.experts : rig.chosen); ++j)
      total += std::exp(rig.logit(r, order[static_cast<std::size_t>(j)]) - largest);
    for (int j = 0; j < rig.chosen; ++j) {
      const auto at = static_cast<std::size_t>(r * rig.chosen + j);
      const int id = order[static_cast<std::size_t>(j)];
      CHECK(rig.ids[at] == id);
      // Of both exponentials: two units, and the rounding of the argument; sums and quotient; f32's least
      // normal. Terms of the total are off by as much as they are small.
      const double wanted = std::exp(rig.logit(r, id) - largest) / total, spread = largest - rig.logit(r, id);
      const double additions = rig.weights_of_all ? rig.experts / 32 + 6 : rig.chosen;
      CHECK(std::fabs(rig.weights[at] - wanted) <=
            wanted * (12 + additions + 2 * spread) * 0x1p-24 + 0x1p-126);
    }
  }
}

void check_lists(const RouteRig& rig) {
  int at = 0;
  std::vector<int> entries_of_row(static_cast<std::size_t>(rig.rows));
  for (int e = 0; e < rig.experts; ++e) {
    CHECK(rig.first[static_cast<std::size_t>(e)] == at);
    for (std::int64_t r = 0; r < rig.rows; ++r)
      for (int j = 0; j < rig.chosen; ++j) {
        const auto choice = static_cast<std::size_t>(r * rig.chosen + j);
        if (rig.ids[choice] != e) continue;
        REQUIRE(at < rig.rows * rig.chosen);
        CHECK(rig.row[static_cast<std::size_t>(at)] == r);
        CHECK(
            same_bits(&rig.list_weights[static_cast<std::size_t>(at)], &rig.weights[choice], 1));  // NaN too
        const int place = entries_of_row[static_cast<std::size_t>(r)]++;
        CHECK(rig.entry_of_row[static_cast<std::size_t>(r * rig.chosen + place)] == at);
        ++at;
      }
  }
  CHECK(rig.first.back() == at);
  CHECK(at == rig.rows * rig.chosen);
}

TEST_CASE("route: logits, choice, weights and lists") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  struct Shape {
    std::int64_t rows;
    int experts, chosen;
    std::int64_t k;
  };
  for (const Shape shape : {Shape{1, 32, 4, 64},
                            {8, 128, 4, 288},
                            {1, 1, 1, 8},
                            {3, 7, 7, 40},
                            {20, 256, 16, 24},
                            {5, 33, 2, 520},
                            {2, 32, 4, 2880},
                            {40, 12, 3, 64}})
    for (const Format format : {Format::bf16, Format::f32, Format::f16}) {
      RouteRig rig(shape.rows, shape.experts, shape.chosen, shape.k, random, format);
      rig.has_bias = random.chance(50);
      rig.weights_of_all = random.chance(50);
      CAPTURE(format_name(format));
      CAPTURE(shape.rows);
      CAPTURE(shape.experts);
      const Status status = rig.run({&device, 1 + random.below(6), random.chance(50)});
      CAPTURE(status.message());
      REQUIRE(status.ok());
      check_logits(rig);
      check_choice(rig);
      check_lists(rig);
    }
}

TEST_CASE("route: equal logits go to the lower id, whatever logits are still gives distinct experts") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  for (const std::int64_t rows : {4, 12}) {
    RouteRig rig(rows, 40, 5, 16, random);
    std::fill(rig.weight.encoded[0].codes.begin(), rig.weight.encoded[0].codes.end(), std::byte{});
    rig.weight.pack(random);
    rig.has_bias = false;
    rig.x.row(2)[0] = 0x7fc0;  // NaN times zero in every logit of this row
    rig.x.row(3)[0] = 0x7f80;
    REQUIRE(rig.run({&device, 3, true}).ok());
    for (std::size_t r = 0; r < 4; ++r)
      for (std::size_t j = 0; j < 5; ++j) CHECK(rig.ids[r * 5 + j] == static_cast<int>(j));
    check_lists(rig);
    for (std::size_t j = 0; j < 5; ++j) CHECK(rig.weights[j] == 0.2f);
  }
}

TEST_CASE("route: what is no number is the smallest of logits") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  RouteRig rig(1, 6, 4, 16, random);
  rig.bias[1] = kNoNumber;
  rig.bias[2] = -kNoNumber;
  rig.bias[4] = -std::numeric_limits<float>::infinity();
  REQUIRE(rig.run({&device, 1, true}).ok());
  CHECK(rig.ids[3] == 4);
  for (const int id : rig.ids) CHECK((id != 1 && id != 2));
}

TEST_CASE("route: the same bits for every grid, and of a row whatever is beside it") {
  NIB_RANDOM(random);
  RouteRig rig(12, 64, 4, 320, random);
  DeviceUnderTest first(random.seed);
  REQUIRE(rig.run({&first, 1, true}).ok());
  const auto logits = rig.logits, weights = rig.weights;
  const auto ids = rig.ids;
  for (const int processors : {2, 3, 8, 11})
    for (const std::int64_t rows : {12, 2, 8}) {
      rig.rows = rows;
      DeviceUnderTest device(random.bits());
      REQUIRE(rig.run({&device, processors, true}).ok());
      CHECK(std::equal(rig.logits.begin(), rig.logits.end(), logits.begin()));
      CHECK(std::equal(rig.weights.begin(), rig.weights.end(), weights.begin()));
      CHECK(std::equal(rig.ids.begin(), rig.ids.end(), ids.begin()));
    }
}

TEST_CASE("route: a dense layer needs no lists") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  RouteRig rig(7, 1, 1, 16, random);
  RouteArgs args = rig.arguments();
  args.weight = nullptr;
  args.routing = {};
  CHECK(TestQueue{&device, 2, true}.run(cuda::route, rig.scratch.context(), args).ok());
}

TEST_CASE("route: numbers that it does not take") {
  NIB_RANDOM(random);
  DeviceUnderTest device(2);
  RouteRig rig(1, 32, 4, 64, random);
  const auto code = [&](std::int64_t rows, int experts, int chosen) {
    RouteArgs args = rig.arguments();
    args.rows = rows;
    args.experts = experts;
    args.experts_per_token = chosen;
    return TestQueue{&device, 1, true}.run(cuda::route, rig.scratch.context(), args).code();
  };
  CHECK(code(0, 32, 4) == Code::ok);
  CHECK(code(-1, 32, 4) == Code::argument);
  CHECK(code(1, 31, 4) == Code::argument);
  CHECK(code(1, 32, 0) == Code::argument);
  CHECK(code(1, 32, 33) == Code::argument);
}

}  // namespace
}  // namespace nib::test
