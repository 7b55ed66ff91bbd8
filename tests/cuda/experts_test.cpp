// Experts: their products, activations and weighted sums, in all forms of matrices, against double within
// derived bounds, and the same bits for every batch, grid and order of threads.
#include "experts_rig.hpp"

#include <cuda/expert_lists.hpp>

namespace nib::test {
namespace {

// A number, and how far an f32 computation of it may be off.
struct Near {
  double value, bound;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The activation of what is near g and u. Slopes of x sigmoid(a x), of gelu and of its approximation are at
// most 1.13. Of f32 functions: a rounding of the argument of exp or erfc counts as often as their slope says.
Near activated(const ExpertLayer& layer, Near g, Near u) {
  double value = 0, bound = 0, roundings = 12;
  switch (layer.activation) {
    case Activation::clamped_swiglu:
      g.value = std::min(g.value, double{kLimits.limit});
      u.value = std::clamp(u.value, -double{kLimits.limit}, double{kLimits.limit}) + 1;
      u.bound += 0x1p-21;
      [[fallthrough]];
    case Activation::swiglu: {
      const double alpha = layer.activation == Activation::swiglu ? 1 : double{kLimits.alpha};
      const double gate = g.value * sigmoid(alpha * g.value);
      value = gate * u.value;
      bound = 1.13 * g.bound * (std::fabs(u.value) + u.bound) + std::fabs(gate) * u.bound;
      roundings += 2 * std::fabs(alpha * g.value);
      break;
    }
    case Activation::gelu:
      value = u.value * std::erfc(-u.value / std::sqrt(2.0)) / 2;
      bound = 1.13 * u.bound;
      roundings += 4 * u.value * u.value;
      break;
    case Activation::gelu_tanh: {
      const double y = std::sqrt(2 / std::acos(-1.0)) * (u.value + 0.044715 * std::pow(u.value, 3));
      value = u.value * sigmoid(2 * y);
      bound = 1.13 * u.bound;
      roundings += 10 * std::fabs(y);
      break;
    }
  }
  bound += std::fabs(value) * roundings * 0x1p-24 + 0x1p-110;      // e^-88 and what is below is zero
  return {value, bound + (std::fabs(value) + bound) * 0x1.02p-8};  // half a unit of bf16
}

int expert_of(const Choice& choice, std::size_t entry) {
  const auto next =
      std::upper_bound(choice.first.begin(), choice.first.end(), static_cast<std::int32_t>(entry));
  return static_cast<int>(next - choice.first.begin()) - 1;
}

void check_hidden(const ExpertLayer& layer, const Choice& choice, const DeviceInputs& x,
                  const ExpertsResult& result, bool fast = false) {
  for (std::size_t entry = 0; entry < choice.row.size(); ++entry) {
    const int e = expert_of(choice, entry);
    const std::vector<double> inputs = x.exact(choice.row[entry]);
    const EncodedMatrix w = layer.gate_up.encoded[static_cast<std::size_t>(e)].view();
    for (std::int64_t unit = 0; unit < layer.units; ++unit) {
      const auto near = [&](int up) -> Near {
        const ReferenceDot dot = dot_row(w, layer.row_of(unit, up), inputs.data());
        const double sum = dot.value + (layer.has_bias() ? layer.bias_of(e, unit, up) : 0);
        return {sum, 1.001 * sum_bound(dot, layer.gate_up.shape(), fast) + std::fabs(sum) * 0x1p-23};
      };
      const bool has_gate = is_gated(layer.activation);
      const Near wanted = activated(layer, has_gate ? near(0) : Near{}, near(has_gate ? 1 : 0));
      const auto at = static_cast<std::int64_t>(entry) * cuda::bf16_stride(layer.units) + unit;
      const double got = to_float(bf16{result.hidden[static_cast<std::size_t>(at)]});
      if (!(std::fabs(got - wanted.value) <= wanted.bound))
        FAIL_CHECK("entry ", entry, ", unit ", unit, ": ", got, ", wanted ", wanted.value, " within ",
                   wanted.bound);
    }
  }
}

// From what the first product left, which is exact now.
void check_sums(const ExpertLayer& layer, const Choice& choice, const ExpertsResult& result,
                bool fast = false) {
  const std::int64_t stride = row_stride(layer.width), hidden_stride = cuda::bf16_stride(layer.units);
  for (std::int64_t r = 0; r < choice.rows(); ++r)
    for (std::int64_t i = 0; i < layer.width; ++i) {
      double wanted = kBeforeExperts, bound = 0, magnitude = kBeforeExperts;
      float in_order = 0;
      for (int j = 0; j < choice.chosen; ++j) {
        const auto slot = static_cast<std::size_t>(r * choice.chosen + j);
        const std::int64_t entry = choice.entry_of_row[slot];
        const int e = choice.of_row[static_cast<std::size_t>(r)][static_cast<std::size_t>(j)];
        std::vector<double> inputs;
        for (std::int64_t u = 0; u < layer.units; ++u)
          inputs.push_back(
              to_float(bf16{result.hidden[static_cast<std::size_t>(entry * hidden_stride + u)]}));
        const ReferenceDot dot =
            dot_row(layer.down.encoded[static_cast<std::size_t>(e)].view(), i, inputs.data());
        in_order += result.outputs[static_cast<std::size_t>(entry * stride + i)];
        const double weight = choice.weight_of_row[static_cast<std::size_t>(r)][static_cast<std::size_t>(j)];
        const double term = weight * (dot.value + (layer.has_bias() ? layer.down_bias[e * stride + i] : 0));
        wanted += term;
        magnitude += std::fabs(term);
        bound += weight * sum_bound(dot, layer.down.shape(), fast);
      }
      bound += magnitude * (choice.chosen + 4) * 0x1p-24;
      const float got = result.x[static_cast<std::size_t>(r * stride + i)];
      CHECK(got == kBeforeExperts + in_order);
      if (!(std::fabs(got - wanted) <= bound * 1.001))
        FAIL_CHECK("row ", r, ", output ", i, ": ", got, ", wanted ", wanted, " within ", bound);
    }
}

constexpr Activation kActivations[] = {Activation::clamped_swiglu, Activation::swiglu, Activation::gelu,
                                       Activation::gelu_tanh};

TEST_CASE("experts: every form and activation against double") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  constexpr ExpertLayer::Formats kForms[] = {
      {Format::mxfp4, Format::mxfp4},   {Format::bf16, Format::bf16},        {Format::q5_0, Format::q4_1},
      {Format::mxfp4, Format::bf16},    {Format::nf4, Format::mxfp4},        {Format::bf16, Format::f16},
      {Format::q4_0, Format::q8_0},     {Format::q8_0, Format::q4_0},        {Format::int8, Format::fp8_e4m3},
      {Format::fp8_e4m3, Format::int8}, {Format::fp8_e5m2, Format::fp8_e5m2}};
  for (const ExpertLayer::Formats formats : kForms)
    for (const Activation activation : kActivations)
      for (const bool many : {false, true}) {
        const int count = 1 + random.below(6), chosen = 1 + random.below(std::min(count, 4));
        const std::int64_t rows = many ? 9 + random.below(9) : 1 + random.below(8);
        const std::int64_t width = 32 * (1 + random.below(5)), units = 32 * (1 + random.below(5));
        const bool tensor_cores = random.chance(50);
        CAPTURE(format_name(formats.gate_up));
        CAPTURE(format_name(formats.down));
        CAPTURE(static_cast<int>(activation));
        CAPTURE(count);
        CAPTURE(chosen);
        CAPTURE(rows);
        CAPTURE(width);
        CAPTURE(units);
        CAPTURE(tensor_cores);
        const ExpertLayer layer(formats, activation, count, width, units, random.chance(70), random);
        const Choice choice(rows, count, chosen, random);
        const DeviceInputs x(rows, width, random, 0);
        const ExpertsResult result =
            run_experts(layer, choice, x, 0, {&device, 1 + random.below(7), tensor_cores});
        check_hidden(layer, choice, x, result);
        check_sums(layer, choice, result);
      }
}

TEST_CASE("experts: the fast class against double") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  if (!device.has_fast_kernels()) return;
  struct Shape {
    Format format;
    Activation activation;
    int count, chosen;
    std::int64_t rows, width, units;
  };
  // Experts with from none or one to more entries than a kernel has columns; units of more than a block.
  for (const Shape& shape : {Shape{Format::mxfp4, Activation::clamped_swiglu, 24, 2, 64, 96, 64},
                             {Format::mxfp4, Activation::swiglu, 3, 2, 150, 320, 160},
                             {Format::bf16, Activation::gelu, 2, 1, 131, 70, 41},
                             {Format::bf16, Activation::gelu_tanh, 1, 1, 64, 64, 300}}) {
    CAPTURE(format_name(shape.format));
    CAPTURE(static_cast<int>(shape.activation));
    const ExpertLayer layer({shape.format, shape.format}, shape.activation, shape.count, shape.width,
                            shape.units, random.chance(70), random);
    const Choice choice(shape.rows, shape.count, shape.chosen, random);
    const DeviceInputs x(shape.rows, shape.width, random, 0);
    const ExpertsResult result = run_experts(layer, choice, x, 0, {&device, 1 + random.below(7), true, true});
    check_hidden(layer, choice, x, result, true);
    check_sums(layer, choice, result, true);
  }
}

TEST_CASE("experts: units that fill no strip") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const Format format : {Format::bf16, Format::f32})
    for (const Activation activation : kActivations)
      for (const std::int64_t rows : {3, 11}) {
        const std::int64_t width = 1 + random.below(90), units = 1 + random.below(90);
        CAPTURE(format_name(format));
        CAPTURE(static_cast<int>(activation));
        CAPTURE(rows);
        CAPTURE(width);
        CAPTURE(units);
        const ExpertLayer layer({format, format}, activation, 3, width, units, true, random);
        const Choice choice(rows, 3, 2, random);
        const DeviceInputs x(rows, width, random, 0);
        const ExpertsResult result = run_experts(layer, choice, x, 0, {&device, 3, random.chance(50)});
        check_hidden(layer, choice, x, result);
        check_sums(layer, choice, result);
      }
}

TEST_CASE("experts: every row of a prompt gets the bits that it gets alone, for every grid") {
  NIB_RANDOM(random);
  struct Way {
    ExpertLayer::Formats formats;
    bool tensor_cores;
  };
  constexpr Format kM = Format::mxfp4, kB = Format::bf16, kT = Format::q5_0, k4 = Format::q4_0,
                   k8 = Format::q8_0, kI = Format::int8, kF = Format::fp8_e4m3;
  for (const Way way : {Way{{kM, kM}, true},
                        {{kM, kM}, false},
                        {{kB, kB}, true},
                        {{kB, kM}, false},
                        {{kT, kT}, true},
                        {{k4, k8}, true},
                        {{k8, k4}, false},
                        {{kF, kI}, true}}) {
    const int count = 1 + random.below(8), chosen = 1 + random.below(std::min(count, 4));
    const std::int64_t rows = 40, width = 32 * (1 + random.below(10)), units = 32 * (1 + random.below(10));
    CAPTURE(format_name(way.formats.gate_up));
    CAPTURE(way.tensor_cores);
    CAPTURE(count);
    CAPTURE(chosen);
    CAPTURE(width);
    CAPTURE(units);
    const ExpertLayer layer(way.formats, Activation::clamped_swiglu, count, width, units, true, random);
    const Choice choice(rows, count, chosen, random);
    const DeviceInputs x(rows, width, random, 0);
    DeviceUnderTest device(random.seed);
    const ExpertsResult all = run_experts(layer, choice, x, 0, {&device, 3, way.tensor_cores});
    for (std::int64_t first = 0, some = 0; first < rows; first += some) {
      some = std::min<std::int64_t>(1 + random.below(random.chance(80) ? 8 : 20), rows - first);
      DeviceUnderTest other(random.bits());
      const ExpertsResult part = run_experts(layer, choice.part(first, some), x, first,
                                             {&other, 1 + random.below(30), way.tensor_cores});
      CHECK(same_bits(part.x.data(), all.x.data() + first * row_stride(width), some * row_stride(width)));
    }
  }
}

TEST_CASE("experts: what is not taken") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  const ExpertLayer layer({Format::mxfp4, Format::mxfp4}, Activation::swiglu, 3, 64, 32, false, random);
  Choice choice(2, 3, 2, random);
  const DeviceScratch scratch(64);
  const auto status = [&](auto&& change) {
    ExpertsArgs args = arguments_of(layer, choice);
    std::vector<PackedWeight> gate_up = layer.gate_up.on_device, down = layer.down.on_device;
    args.gate_up = gate_up.data();
    args.down = down.data();
    change(args, gate_up, down);
    return TestQueue{&device, 2, true}.run(cuda::experts, scratch.context(), args);
  };
  using Weights = std::vector<PackedWeight>;
  CHECK(status([](ExpertsArgs& args, Weights&, Weights&) { args.rows = 0; }).ok());
  CHECK(status([](ExpertsArgs& args, Weights&, Weights&) { args.up = args.gate_up; }).code() ==
        Code::unsupported);
  for (const int experts : {0, cuda::kMostExperts + 1})
    CHECK(status([=](ExpertsArgs& args, Weights&, Weights&) { args.experts = experts; }).code() ==
          Code::argument);
  for (const int chosen : {0, 4})
    CHECK(status([=](ExpertsArgs& args, Weights&, Weights&) { args.experts_per_token = chosen; }).code() ==
          Code::argument);
  CHECK(status([](ExpertsArgs& args, Weights&, Weights&) { args.rows = -1; }).code() == Code::argument);
  CHECK(status([](ExpertsArgs& args, Weights&, Weights&) { args.width = 33; }).message() ==
        "gate_up: expected 96 x 64, found 64 x 64");
  CHECK(status([](ExpertsArgs&, Weights&, Weights& down) { down[0].k = 64; }).message() ==
        "down: expected 64 x 32, found 64 x 64");
  CHECK(status([](ExpertsArgs&, Weights& gate_up, Weights&) {
          gate_up[2].format = Format::bf16;
        }).message() == "gate_up of expert 2: expected the shape and the format of the first");
  CHECK(status([](ExpertsArgs&, Weights&, Weights& down) { down[2].data += 128; }).message() ==
        "down of expert 2: expected matrices at equal distances");
  CHECK(status([](ExpertsArgs&, Weights& gate_up, Weights&) {
          for (PackedWeight& each : gate_up) each.format = Format::mxfp6_e2m3;
        }).code() == Code::unsupported);
}

}  // namespace
}  // namespace nib::test
