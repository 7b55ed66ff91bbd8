// MXFP4 experts on the emulator: gate, up, activation, down and the weighted sum, against double within
// derived bounds, and the same bits for every batch, grid and order of threads.
#include "experts_rig.hpp"

namespace nib::test {
namespace {

double clamped_swiglu(double gate, double value) {
  const double g = std::min(gate, double{kLimit}), u = std::clamp(value, -double{kLimit}, double{kLimit});
  return g / (1 + std::exp(-double{kAlpha} * g)) * (u + 1);
}

// The slope of g sigmoid(alpha g) is at most 1.1, and it is at most 7; value + 1 is at most 8. What the
// function itself rounds, ten times 2^-24 of at most 56, and bf16's half unit.
double hidden_bound(double gate_error, double value_error, double wanted) {
  return 1.1 * 8 * gate_error + 7 * value_error + 10 * 56 * 0x1p-24 + std::fabs(wanted) * 0x1.02p-8;
}

void check_hidden(RandomExperts& layer, const RandomChoice& choice, RandomInputs& x,
                  const ExpertsResult& result) {
  for (std::size_t entry = 0; entry < choice.token.size(); ++entry) {
    const auto e = static_cast<std::size_t>(
        std::upper_bound(choice.first.begin(), choice.first.end(), static_cast<int>(entry)) -
        choice.first.begin() - 1);
    const std::vector<double> inputs = x.row_values(choice.token[entry], layer.width);
    for (int unit = 0; unit < layer.units; ++unit) {
      double sums[2], errors[2];
      for (int i = 0; i < 2; ++i) {
        const float bias = layer.gate_up_bias[e * 2 * static_cast<std::size_t>(layer.units) +
                                              static_cast<std::size_t>(2 * unit + i)];
        const ReferenceDot dot = dot_row(layer.gate_up[e].encoded(), 2 * unit + i, inputs.data());
        sums[i] = dot.value + bias;
        errors[i] = product_bound(dot, layer.gate_up_tiles.slices()) + std::fabs(sums[i]) * 0x1p-23;
      }
      const double wanted = clamped_swiglu(sums[0], sums[1]);
      const double got = to_float(bf16{
          result.hidden[entry * static_cast<std::size_t>(layer.units) + static_cast<std::size_t>(unit)]});
      if (!(std::fabs(got - wanted) <= hidden_bound(errors[0], errors[1], wanted)))
        FAIL_CHECK("entry ", entry, ", unit ", unit, ": ", got, ", wanted ", wanted);
    }
  }
}

// From what the first kernel left, which is exact now.
void check_residual(RandomExperts& layer, const RandomChoice& choice, const ExpertsResult& result) {
  for (int t = 0; t < choice.tokens; ++t)
    for (int row = 0; row < layer.width; ++row) {
      double wanted = kResidualBefore, bound = 0, magnitude = kResidualBefore;
      float in_order = 0;
      for (int j = 0; j < choice.chosen; ++j) {
        const auto at = static_cast<std::size_t>(t), slot = static_cast<std::size_t>(j);
        const auto e = static_cast<std::size_t>(choice.of_token[at][slot]);
        const auto entry = static_cast<std::size_t>(
            choice.entry_of_token[at * static_cast<std::size_t>(choice.chosen) + slot]);
        std::vector<double> inputs;
        for (int i = 0; i < layer.units; ++i)
          inputs.push_back(to_float(bf16{
              result.hidden[entry * static_cast<std::size_t>(layer.units) + static_cast<std::size_t>(i)]}));
        const ReferenceDot dot = dot_row(layer.down[e].encoded(), row, inputs.data());
        in_order +=
            result.outputs[entry * static_cast<std::size_t>(layer.width) + static_cast<std::size_t>(row)];
        const double weight = choice.weight_of_token[at][slot];
        const double term =
            weight *
            (dot.value +
             layer.down_bias[e * static_cast<std::size_t>(layer.width) + static_cast<std::size_t>(row)]);
        wanted += term;
        magnitude += std::fabs(term);
        bound += weight * product_bound(dot, layer.down_tiles.slices());
      }
      bound += magnitude * (choice.chosen + 4) * 0x1p-24;
      CHECK(result.residual[static_cast<std::size_t>(t * layer.width + row)] == kResidualBefore + in_order);
      const double got = result.residual[static_cast<std::size_t>(t * layer.width + row)];
      if (!(std::fabs(got - wanted) <= bound * 1.001))
        FAIL_CHECK("token ", t, ", row ", row, ": ", got, ", wanted ", wanted);
    }
}

TEST_CASE("experts mxfp4: ragged shapes against double") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  simt::Emulator emulator(seed);
  struct Shape {
    int experts, width, units, tokens, chosen, blocks;
  };
  for (const Shape shape : {Shape{1, 32, 32, 1, 1, 1},
                            {4, 96, 64, 3, 2, 3},
                            {8, 320, 288, 8, 4, 5},
                            {5, 64, 544, 2, 4, 40},
                            {32, 96, 32, 8, 4, 7}})
    for (const bool tensor_cores : {true, false}) {
      CAPTURE(shape.experts);
      CAPTURE(shape.width);
      CAPTURE(tensor_cores);
      RandomExperts layer(shape.experts, shape.width, shape.units, random);
      RandomChoice choice(shape.tokens, shape.experts, shape.chosen, random);
      RandomInputs x(shape.tokens, shape.width, random);
      const ExpertsResult result = run_experts(layer, choice, x, 0, tensor_cores, shape.blocks, emulator);
      check_hidden(layer, choice, x, result);
      check_residual(layer, choice, result);
    }
}

TEST_CASE("experts mxfp4: the same bits for every batch, grid and order of threads") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  RandomExperts layer(6, 288, 320, random);
  const RandomChoice choice(8, 6, 3, random);
  RandomInputs x(8, 288, random);
  for (const bool tensor_cores : {true, false}) {
    simt::Emulator first(seed);
    RandomChoice all_tokens = choice;
    const ExpertsResult all = run_experts(layer, all_tokens, x, 0, tensor_cores, 1, first);
    for (int i = 0; i < 8; ++i) {
      const int count = 1 + i, from = static_cast<int>(random() % static_cast<unsigned>(9 - count));
      const int blocks = 1 + static_cast<int>(random() % 40);
      CAPTURE(count);
      CAPTURE(from);
      CAPTURE(blocks);
      RandomChoice some = choice;
      some.keep(from, count, 6);
      simt::Emulator emulator(random());
      const ExpertsResult result = run_experts(layer, some, x, from, tensor_cores, blocks, emulator);
      CHECK(std::equal(result.residual.begin(), result.residual.end(),
                       all.residual.begin() + from * layer.width));
    }
  }
}

TEST_CASE("experts mxfp4 grouped: every token of a prompt gets the bits that it gets alone") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  struct Shape {
    int experts, width, units, tokens, chosen, blocks;
  };
  // Experts without tokens, with one more than a block of columns, tiles that do not fill a block of rows.
  for (const Shape shape :
       {Shape{2, 288, 96, 37, 1, 3}, {3, 160, 320, 34, 2, 2}, {8, 32, 32, 5, 2, 1}, {1, 320, 64, 33, 1, 50}})
    for (const bool tensor_cores : {true, false}) {
      CAPTURE(shape.experts);
      CAPTURE(tensor_cores);
      RandomExperts layer(shape.experts, shape.width, shape.units, random);
      const RandomChoice choice(shape.tokens, shape.experts, shape.chosen, random);
      RandomInputs x(shape.tokens, shape.width, random);
      simt::Emulator emulator(seed);
      RandomChoice all_tokens = choice;
      const ExpertsResult all = run_experts(layer, all_tokens, x, 0, tensor_cores, shape.blocks, emulator,
                                            cuda::experts_mxfp4_grouped);
      for (int from = 0; from < shape.tokens;) {
        const int count = std::min(1 + static_cast<int>(random() % 8), shape.tokens - from);
        RandomChoice some = choice;
        some.keep(from, count, shape.experts);
        const ExpertsResult alone =
            run_experts(layer, some, x, from, tensor_cores, 1 + static_cast<int>(random() % 5), emulator);
        CHECK(std::equal(alone.residual.begin(), alone.residual.end(),
                         all.residual.begin() + from * shape.width));
        from += count;
      }
    }
}

TEST_CASE("experts mxfp4: numbers of tokens that are not taken") {
  simt::Emulator emulator(1);
  cuda::ExpertsMxfp4 call{};
  for (const int tokens : {0, 9}) {
    call.tokens = tokens;
    CHECK(cuda::experts_mxfp4(call, true, 1, &emulator).code() == Code::argument);
  }
  call.tokens = 0;
  CHECK(cuda::experts_mxfp4_grouped(call, true, 1, &emulator).code() == Code::argument);
}

}  // namespace
}  // namespace nib::test
