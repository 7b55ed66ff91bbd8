// Products in every form of a matrix and both arithmetics: near the exact product, and the same
// bits for every number of rows, every grid and every order in which threads and blocks happen to run.
#include "device_rig.hpp"

#include <cuda/bodies/stripes.cuh>

namespace nib::test {
namespace {

struct Product {
  std::int64_t rows, stride;
  std::vector<float> out;  // [rows][stride]
  const float* row(std::int64_t r) const { return out.data() + r * stride; }
};

struct Epilogue {
  const float* bias = nullptr;
  bool add = false;
};
inline constexpr float kBefore = -1;

// Rows [first, first + rows) of x.
Product multiply(const PackedWeight& weight, const DeviceInputs& x, std::int64_t first, std::int64_t rows,
                 const TestQueue& queue, Epilogue epilogue = {}) {
  const DeviceScratch scratch(weight.k);
  const std::int64_t stride = weight.rows + 3;
  DeviceBuffer<float> out(rows * stride, kBefore);
  const Status status = queue.run(cuda::multiply, scratch.context(),
                                  {.weight = &weight,
                                   .x = x.row(first),
                                   .x_stride = x.stride,
                                   .rows = rows,
                                   .bias = epilogue.bias,
                                   .out = out.data(),
                                   .out_stride = stride,
                                   .add = epilogue.add,
                                   .may_be_fast = queue.fast});
  CAPTURE(status.message());
  REQUIRE(status.ok());
  CHECK(scratch.counters_are_zero());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t i = weight.rows; i < stride; ++i) REQUIRE(out[r * stride + i] == kBefore);
  return {rows, stride, {out.begin(), out.end()}};
}

void check_product(const DeviceMatrices& w, const DeviceInputs& x, std::int64_t rows, bool tensor_cores,
                   Random& random, DeviceUnderTest& device, bool fast = false) {
  const PackedWeight& weight = w.shape();
  CAPTURE(format_name(w.encoded[0].format));
  CAPTURE(weight.rows);
  CAPTURE(weight.k);
  CAPTURE(weight.scale_run);
  CAPTURE(rows);
  CAPTURE(tensor_cores);
  DeviceBuffer<float> bias(weight.rows);
  for (std::int64_t i = 0; i < weight.rows; ++i) bias[i] = random.normal();
  const Epilogue epilogue{random.chance(50) ? bias.data() : nullptr, random.chance(50)};
  const Product product =
      multiply(weight, x, 0, rows, {&device, 1 + random.below(9), tensor_cores, fast}, epilogue);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::vector<double> inputs = x.exact(r);
    for (std::int64_t i = 0; i < weight.rows; ++i) {
      const ReferenceDot dot = dot_row(w.encoded[0].view(), i, inputs.data());
      double wanted = dot.value, bound = sum_bound(dot, weight, fast);
      if (epilogue.bias) bound += std::fabs(wanted += bias[i]) * 0x1p-24;
      if (epilogue.add) bound += std::fabs(wanted += kBefore) * 0x1p-24;
      bound *= 1.001;
      if (!(std::fabs(product.row(r)[i] - wanted) <= bound))
        FAIL_CHECK("row ", i, " of weights, row ", r, " of inputs: ", product.row(r)[i], ", wanted ", wanted,
                   " within ", bound);
    }
  }
}

std::int64_t group_of(Format format) { return std::max<std::int64_t>(1, format_info(format).group); }

TEST_CASE("multiply: every format that has tiles against exact products") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const Format format : stored_formats(true))
    for (const std::int64_t rows : {std::int64_t{1 + random.below(8)}, std::int64_t{9 + random.below(12)}}) {
      const std::int64_t group = group_of(format);
      const std::int64_t k = group * (1 + random.below(static_cast<int>(600 / group)));
      const std::int64_t run = format_info(format).scales == nib::Scales::shared ? random_run(k, random) : 0;
      const DeviceMatrices w(format, 1, 1 + random.below(70), k, random, DeviceRows::consecutive, run);
      const DeviceInputs x(rows, k, random);
      check_product(w, x, rows, random.chance(50), random, device);
    }
}

// One format of each form that has tiles for tensor cores, and both of that of int8.
constexpr Format kForms[] = {Format::mxfp4, Format::bf16,     Format::q4_0,     Format::q8_0,
                             Format::int8,  Format::llm_int8, Format::fp8_e4m3, Format::fp8_e5m2};

// Inputs that share a scale, where the tensor says it, so that the matrix has such tiles.
std::int64_t random_run_of_form(Format format, std::int64_t k, Random& random) {
  if (format_info(format).scales != nib::Scales::shared) return 0;
  const std::int64_t run = 128 * (1 + random.below(3));
  return run > k || random.chance(40) ? k : run;
}

TEST_CASE("multiply: ragged shapes of the forms for tensor cores") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  struct Shape {
    std::int64_t out, k, rows;
  };
  for (const Shape shape : {Shape{16, 32, 1},
                            {1, 64, 8},
                            {17, 96, 3},
                            {33, 288, 8},
                            {16, 2880, 1},
                            {48, 544, 2},
                            {5, 4128, 7},
                            {130, 320, 9},
                            {16, 64, 70},
                            {300, 96, 33}})
    for (const Format format : kForms)
      for (const bool tensor_cores : {true, false}) {
        const bool is_mxfp4 = format == Format::mxfp4;
        const DeviceMatrices w(format, 1, shape.out, shape.k, random, DeviceRows::consecutive,
                               random_run_of_form(format, shape.k, random),
                               is_mxfp4 ? Scales::narrow : Scales::usual);
        check_product(w, DeviceInputs(shape.rows, shape.k, random), shape.rows, tensor_cores, random, device);
      }
}

struct Ways {
  Format format;
  bool tensor_cores;
};
constexpr Ways kWays[] = {{Format::mxfp4, true}, {Format::mxfp4, false},   {Format::bf16, true},
                          {Format::bf16, false}, {Format::q4_0, true},     {Format::q4_0, false},
                          {Format::q8_0, true},  {Format::q8_0, false},    {Format::int8, true},
                          {Format::int8, false}, {Format::fp8_e4m3, true}, {Format::fp8_e5m2, true},
                          {Format::q4_k, true},  {Format::f16, false}};

TEST_CASE("multiply: the same bits for every number of rows, grid and order of threads") {
  NIB_RANDOM(random);
  constexpr std::int64_t kRows = 37;
  for (const Ways way : kWays) {
    CAPTURE(format_name(way.format));
    CAPTURE(way.tensor_cores);
    const std::int64_t k = way.format == Format::q4_k ? 768 : 480 + 32 * random.below(20), out = 40;
    const DeviceMatrices w(way.format, 1, out, k, random, DeviceRows::consecutive,
                           random_run_of_form(way.format, k, random));
    const DeviceInputs x(kRows, k, random);
    DeviceUnderTest device(random.seed);
    const Product all = multiply(w.shape(), x, 0, kRows, {&device, 3, way.tensor_cores});
    for (std::int64_t first = 0, rows = 1; first < kRows; first += rows, rows = 1 + random.below(10)) {
      rows = std::min(rows, kRows - first);
      const int processors = 1 + random.below(30);  // up to more than there are slices
      CAPTURE(first);
      CAPTURE(rows);
      CAPTURE(processors);
      DeviceUnderTest other(random.bits());
      const Product some = multiply(w.shape(), x, first, rows, {&other, processors, way.tensor_cores});
      for (std::int64_t r = 0; r < rows; ++r) CHECK(same_bits(some.row(r), all.row(first + r), out));
    }
  }
}

TEST_CASE("multiply: the fast class against exact products") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  if (!device.has_fast_kernels()) return;
  struct Shape {
    std::int64_t out, k, rows;
  };
  // Tiles that fill no warpgroup, or the block but for one; columns of both kernels; last slices of one
  // block.
  for (const Shape shape : {Shape{16, 64, 64}, {1, 32, 65}, {300, 96, 129}, {255, 288, 64}, {272, 832, 100}})
    for (const Format format : {Format::mxfp4, Format::bf16})
      check_product(DeviceMatrices(format, 1, shape.out, shape.k, random),
                    DeviceInputs(shape.rows, shape.k, random), shape.rows, true, random, device, true);
}

TEST_CASE(
    "multiply: what the fast class is for, and the same bits there for every grid and order of threads") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  if (!device.has_fast_kernels()) return;
  constexpr std::int64_t kRows = kFastRows + 7, kOut = 40;
  for (const Format format : {Format::mxfp4, Format::bf16, Format::q8_0}) {
    CAPTURE(format_name(format));
    const std::int64_t k = 1440;
    const DeviceMatrices w(format, 1, kOut, k, random);
    const DeviceInputs x(kRows, k, random);
    const auto product = [&](std::int64_t rows, bool fast) {
      DeviceUnderTest other(random.bits());
      return multiply(w.shape(), x, 0, rows, {&other, 1 + random.below(5), true, fast}).out;
    };
    const std::vector<float> usual = product(kRows, false);
    CHECK((product(kRows, true) == usual) == (format == Format::q8_0));
    CHECK(product(kRows, true) == product(kRows, true));
    const std::vector<float> few = product(kFastRows - 1, true);
    CHECK(std::equal(few.begin(), few.end(), usual.begin()));
  }
}

TEST_CASE("multiply: a grid as large as scratch has room for, and one that would be larger") {
  NIB_RANDOM(random);
  for (const Format format : {Format::mxfp4, Format::bf16}) {
    const std::int64_t k = 96 * 1024;  // more slices than there are blocks
    const DeviceMatrices w(format, 1, 16, k, random);
    const DeviceInputs x(2, k, random);
    DeviceUnderTest device(random.seed);
    const Product few = multiply(w.shape(), x, 0, 2, {&device, 1, true});
    for (const int processors : {kMostBlocks / 2, 1000}) {
      const Product many = multiply(w.shape(), x, 0, 2, {&device, processors, true});
      for (std::int64_t r = 0; r < 2; ++r) CHECK(same_bits(many.row(r), few.row(r), 16));
    }
  }
}

TEST_CASE("multiply: no warp is overtaken where it must not be") {
  // Many rounds in few blocks, in each second of which one warp of eight is left behind.
  NIB_RANDOM(random);
  for (const Ways way : kWays) {
    CAPTURE(format_name(way.format));
    const std::int64_t k = way.format == Format::q4_k ? 1280 : 1376, out = 48, rows = 2 + 8 * random.below(2);
    const DeviceMatrices w(way.format, 1, out, k, random, DeviceRows::consecutive,
                           random_run_of_form(way.format, k, random));
    const DeviceInputs x(rows, k, random);
    DeviceUnderTest device(random.seed);
    const Product once = multiply(w.shape(), x, 0, rows, {&device, 1, way.tensor_cores});
    for (int i = 0; i < 12; ++i) {
      const Product again = multiply(w.shape(), x, 0, rows, {&device, 1 + i % 2, way.tensor_cores});
      for (std::int64_t r = 0; r < rows; ++r) REQUIRE(same_bits(again.row(r), once.row(r), out));
    }
  }
}

TEST_CASE("multiply: large and small scales of MXFP4; an infinity of one row stays there") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const int least : {4, 130, 200})
    for (const bool tensor_cores : {true, false}) {
      DeviceMatrices w(Format::mxfp4, 1, 16, 320, random);
      for (std::byte& scale : w.encoded[0].scales) scale = static_cast<std::byte>(least + random.below(31));
      w.pack(random);
      const DeviceInputs x(2, 320, random);
      for (std::int64_t i = 0; i < 320; ++i) x.row(0)[i] = to_bf16(static_cast<float>(i % 7) * 0x1p-10f).bits;
      x.row(1)[9] = 0x7f80;
      const Product product = multiply(w.shape(), x, 0, 2, {&device, 2, tensor_cores});
      const std::vector<double> inputs = x.exact(0);
      for (std::int64_t i = 0; i < 16; ++i) {
        const ReferenceDot dot = dot_row(w.encoded[0].view(), i, inputs.data());
        // Sums below the least normal f32 may lose what f32 cannot hold there.
        const double bound = sum_bound(dot, w.shape()) + 400 * 0x1p-149;
        if (std::fabs(dot.value) < 0x1p127) CHECK(std::fabs(product.row(0)[i] - dot.value) <= bound);
        CHECK(!std::isfinite(product.row(1)[i]));
      }
    }
}

TEST_CASE("multiply: a code that is no number makes none of the products of its row, and of no other") {
  NIB_RANDOM(random);
  DeviceUnderTest device(random.seed);
  for (const auto& [format, code] : {std::pair{Format::fp8_e4m3, 0x7f},
                                     {Format::fp8_e4m3, 0xff},
                                     {Format::fp8_e5m2, 0x7c},
                                     {Format::fp8_e5m2, 0xfe}})
    for (const bool tensor_cores : {true, false}) {
      DeviceMatrices w(format, 1, 16, 300, random);
      w.encoded[0].codes[5 * 300 + 140] = static_cast<std::byte>(code);
      w.pack(random);
      const DeviceInputs x(2, 300, random);
      const Product product = multiply(w.shape(), x, 0, 2, {&device, 2, tensor_cores});
      for (std::int64_t r = 0; r < 2; ++r)
        for (std::int64_t i = 0; i < 16; ++i) CHECK(std::isnan(product.row(r)[i]) == (i == 5));
    }
}

TEST_CASE("multiply: what it does not take") {
  NIB_RANDOM(random);
  DeviceUnderTest device(1);
  const TestQueue queue{&device, 4, true};
  const DeviceScratch scratch(64);
  const auto run = [&](Format format, std::int64_t rows, std::int64_t scratch_floats) {
    const PackedWeight weight{format, 16, 256, nullptr, nullptr, 256};
    OpContext context = scratch.context();
    context.tile_floats = scratch_floats;
    return queue.run(cuda::multiply, context,
                     {.weight = &weight,
                      .x = nullptr,
                      .x_stride = 256,
                      .rows = rows,
                      .bias = nullptr,
                      .out = nullptr,
                      .out_stride = 16});
  };
  CHECK(run(Format::bf16, -1, scratch.floats.size).code() == Code::argument);
  CHECK(run(Format::bf16, 0, scratch.floats.size).ok());
  CHECK(run(Format::bf16, 1, kScratchCounters + 128).code() == Code::argument);
  CHECK(run(Format::q2_k, 1, scratch.floats.size).code() == Code::unsupported);
  CHECK(run(Format::q2_k, 1, scratch.floats.size).message() ==
        "the device has no kernel for q2_K of 16 x 256");
}

TEST_CASE("stripes: every unit in one of them, and of equal length but for one") {
  for (const int units : {1, 2, 7, 100, 17280, 552'000})
    for (const int blocks : {1, 2, 3, 132, 264, 1000}) {
      int at = 0;
      for (int block = 0; block < blocks; ++block) {
        const int begin = cuda::stripe_begin(units, block, blocks),
                  end = cuda::stripe_begin(units, block + 1, blocks);
        CHECK(begin == at);
        CHECK((end - begin == units / blocks || end - begin == units / blocks + 1));
        if (end > begin) {
          CHECK(cuda::stripe_of(units, begin, blocks) == block);
          CHECK(cuda::stripe_of(units, end - 1, blocks) == block);
        }
        at = end;
      }
      CHECK(at == units);
    }
}

}  // namespace
}  // namespace nib::test
