// MXFP4 times one to eight rows, both arithmetics, on the emulator: near the exact product, and the same bits
// for every number of tokens, every grid and every order in which threads and blocks happen to run.
#include "mxfp4_rig.hpp"

#include <cstring>
#include <limits>

#include <cuda/bodies/stripes.cuh>
#include <cuda/gemv_mxfp4.hpp>

namespace nib::test {
namespace {

using namespace cuda;

struct Product {
  std::vector<float> out;  // [tokens][rows]
};

Product multiply(RandomMxfp4& w, RandomInputs& x, int first_token, int tokens, Arithmetic arithmetic,
                 int blocks, simt::Emulator& emulator) {
  const std::int64_t stride = w.tiles.rows + 3;
  DeviceBuffer<float> out(tokens * stride, -1),
      scratch(gemv_scratch(w.tiles, blocks), std::numeric_limits<float>::quiet_NaN());
  DeviceBuffer<std::int32_t> counters(blocks);
  const GemvMxfp4 call{.shape = w.tiles,
                       .weights = w.packed.data(),
                       .factor = std::ldexp(1.0f, w.lowered_by),
                       .x = x.row(first_token),
                       .x_stride = x.stride,
                       .tokens = tokens,
                       .out = out.data(),
                       .out_stride = stride,
                       .scratch = scratch.data(),
                       .counters = counters.data()};
  const Status status = gemv_mxfp4(call, arithmetic, blocks, &emulator);
  CAPTURE(status.message());
  REQUIRE(status.ok());
  CHECK(std::all_of(counters.data(), counters.data() + blocks, [](std::int32_t n) { return n == 0; }));
  Product product;
  for (int token = 0; token < tokens; ++token) {
    const float* const row = out.data() + token * stride;
    product.out.insert(product.out.end(), row, row + w.tiles.rows);
    CHECK(std::all_of(row + w.tiles.rows, row + stride, [](float v) { return v == -1; }));
  }
  return product;
}

bool same_bits(const float* a, const float* b, std::int64_t count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

constexpr Arithmetic kBoth[] = {Arithmetic::tensor, Arithmetic::simt};

TEST_CASE("gemv mxfp4: ragged shapes against exact products") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  simt::Emulator emulator(seed);
  struct Shape {
    std::int64_t rows, k;
    int tokens, blocks;
  };
  for (const Shape shape : {Shape{16, 32, 1, 1},
                            {1, 64, 8, 2},
                            {17, 96, 3, 1},
                            {40, 256, 5, 2},
                            {33, 288, 8, 3},
                            {16, 2880, 1, 2},
                            {48, 544, 2, 7},
                            {64, 1056, 4, 5},
                            {5, 4128, 7, 3}})
    for (const Arithmetic arithmetic : kBoth) {
      CAPTURE(shape.rows);
      CAPTURE(shape.k);
      CAPTURE(shape.tokens);
      CAPTURE((arithmetic == Arithmetic::tensor));
      RandomMxfp4 w(shape.rows, shape.k, 110, 127, random);
      RandomInputs x(shape.tokens, shape.k, random);
      const Product product = multiply(w, x, 0, shape.tokens, arithmetic, shape.blocks, emulator);
      const EncodedMatrix encoded = w.encoded();
      for (int token = 0; token < shape.tokens; ++token) {
        const std::vector<double> inputs = x.row_values(token, shape.k);
        for (std::int64_t row = 0; row < shape.rows; ++row) {
          const ReferenceDot wanted = dot_row(encoded, row, inputs.data());
          const double got = product.out[static_cast<std::size_t>(token * shape.rows + row)];
          const double error = std::fabs(got - wanted.value);
          if (!(error <= product_bound(wanted, w.tiles.slices())))
            FAIL_CHECK("row ", row, ", token ", token, ": ", got, ", wanted ", wanted.value);
        }
      }
    }
}

TEST_CASE("gemv mxfp4: the same bits for every batch, grid and order of threads") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  RandomMxfp4 w(40, 1376, 100, 127, random);
  RandomInputs x(8, 1376, random);
  for (const Arithmetic arithmetic : kBoth) {
    simt::Emulator first(seed);
    const Product all = multiply(w, x, 0, 8, arithmetic, 1, first);
    for (int tokens = 1; tokens <= 8; ++tokens) {
      simt::Emulator emulator(random());
      const int first_token = static_cast<int>(random() % static_cast<unsigned>(9 - tokens));
      const int blocks = 1 + static_cast<int>(random() % 30);  // up to more than there are slices
      CAPTURE(tokens);
      CAPTURE(first_token);
      CAPTURE(blocks);
      const Product some = multiply(w, x, first_token, tokens, arithmetic, blocks, emulator);
      CHECK(same_bits(some.out.data(), all.out.data() + first_token * w.tiles.rows, tokens * w.tiles.rows));
    }
  }
}

TEST_CASE("gemv mxfp4: no warp is overtaken where it must not be") {
  // Many rounds in few blocks, in each second of which one warp of eight is left behind.
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  RandomMxfp4 w(48, 1376, 100, 127, random);
  RandomInputs x(2, 1376, random);
  for (const Arithmetic arithmetic : kBoth) {
    simt::Emulator emulator(seed);
    const Product once = multiply(w, x, 0, 2, arithmetic, 1, emulator);
    for (int i = 0; i < 60; ++i) {
      const Product again = multiply(w, x, 0, 2, arithmetic, 1 + i % 2, emulator);
      REQUIRE(same_bits(again.out.data(), once.out.data(), 2 * w.tiles.rows));
    }
  }
}

TEST_CASE("gemv mxfp4: large and small scales, infinities of one token stay there") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  simt::Emulator emulator(seed);
  for (const int least : {4, 130, 200})
    for (const Arithmetic arithmetic : kBoth) {
      RandomMxfp4 w(16, 320, least, least + 30, random);
      RandomInputs x(2, 320, random);
      for (std::int64_t i = 0; i < 320; ++i) x.row(0)[i] = to_bf16(static_cast<float>(i % 7) * 0x1p-10f).bits;
      x.row(1)[9] = 0x7f80;
      const Product product = multiply(w, x, 0, 2, arithmetic, 2, emulator);
      const std::vector<double> inputs = x.row_values(0, 320);
      for (std::int64_t row = 0; row < 16; ++row) {
        const ReferenceDot wanted = dot_row(w.encoded(), row, inputs.data());
        // Sums below the least normal f32 may lose what f32 cannot hold there.
        const double bound = product_bound(wanted, 2) + 400 * 0x1p-149;
        const double got = product.out[static_cast<std::size_t>(row)];
        if (std::fabs(wanted.value) < 0x1p127) CHECK(std::fabs(got - wanted.value) <= bound);
        CHECK(!std::isfinite(product.out[static_cast<std::size_t>(16 + row)]));
      }
    }
}

TEST_CASE("gemv mxfp4: numbers of tokens that it does not take") {
  simt::Emulator emulator(1);
  GemvMxfp4 call{};
  call.shape = {16, 32};
  for (const int tokens : {0, 9, -1}) {
    call.tokens = tokens;
    CHECK(gemv_mxfp4(call, Arithmetic::tensor, 1, &emulator).code() == Code::argument);
  }
}

TEST_CASE("stripes: every unit in one of them, and of equal length but for one") {
  for (const int units : {1, 2, 7, 100, 17280, 552'000})
    for (const int blocks : {1, 2, 3, 132, 264, 1000}) {
      int at = 0;
      for (int block = 0; block < blocks; ++block) {
        const int begin = stripe_begin(units, block, blocks), end = stripe_begin(units, block + 1, blocks);
        CHECK(begin == at);
        CHECK((end - begin == units / blocks || end - begin == units / blocks + 1));
        if (end > begin) {
          CHECK(stripe_of(units, begin, blocks) == block);
          CHECK(stripe_of(units, end - 1, blocks) == block);
        }
        at = end;
      }
      CHECK(at == units);
    }
}

}  // namespace
}  // namespace nib::test
