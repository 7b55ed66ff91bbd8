// The router: logits near the exact products, then the choice, the weights and the lists of what it chose
// from, by their definitions.
#include "route_rig.hpp"

namespace nib::test {
namespace {

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
