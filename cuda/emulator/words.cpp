#include "words.hpp"

#include "tensor_core.hpp"
#include <nibble/base/float16.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace nib::inline v0::cuda {
namespace {

constexpr int kRows = 16, kColumns = 8, kDepth = kProductDepth;

// bf16 and f32 as doubles and back, whatever this thread does with subnormals: where f32 is normal the
// compiler's conversions are exact, and elsewhere no f32 arithmetic takes place.
constexpr double kLeastNormal = 0x1p-126;

double widen_f32(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (bits & 0x7f80'0000u) return value;
  const double magnitude = static_cast<double>(bits & 0x7f'ffff) * 0x1p-149;
  return bits >> 31 ? -magnitude : magnitude;
}

std::uint16_t narrow_to_bf16(double value) {
  if (std::isnan(value)) return 0x7fff;  // the one NaN that the instruction returns
  if (std::fabs(value) >= kLeastNormal)
    return to_bf16(static_cast<float>(value)).bits;  // f32 holds a product
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  return static_cast<std::uint16_t>(sign | static_cast<unsigned>(std::nearbyint(std::fabs(value) * 0x1p133)));
}

float narrow_towards_zero(double value) {
  const auto bits = std::bit_cast<std::uint64_t>(value);
  if (std::fabs(value) >= kLeastNormal)  // without the 29 digits that f32 lacks; too large becomes infinity
    return static_cast<float>(std::bit_cast<double>(bits & ~std::uint64_t{0x1fff'ffff}));
  const auto units = static_cast<std::uint32_t>(std::fabs(value) * 0x1p149);
  return std::bit_cast<float>(units | (std::signbit(value) ? 0x8000'0000u : 0u));
}

struct Tile {
  const std::uint32_t* a;
  const std::uint32_t* b;
  const float* d;
};

void execute_tile(const void* const* in, void* const* out) {
  double a[kRows][kDepth], b[kColumns][kDepth];
  for (int lane = 0; lane < simt::kWarpLanes; ++lane) {
    const auto& tile = *static_cast<const Tile*>(in[lane]);
    const int group = lane / 4, in_group = lane % 4;
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 2; ++i) {
        const int k = 2 * in_group + half + 8 * i;
        a[group][k] = widen_bf16(tile.a[2 * i] >> 16 * half & 0xffff);
        a[group + 8][k] = widen_bf16(tile.a[2 * i + 1] >> 16 * half & 0xffff);
        b[group][k] = widen_bf16(tile.b[i] >> 16 * half & 0xffff);
      }
  }
  for (int lane = 0; lane < simt::kWarpLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      double products[kDepth];
      for (int k = 0; k < kDepth; ++k) products[k] = a[row][k] * b[column][k];
      static_cast<float*>(out[lane])[i] = add_products(static_cast<const Tile*>(in[lane])->d[i], products);
    }
}

void execute_load(const void* const* in, void* const* out) {
  for (int lane = 0; lane < simt::kWarpLanes; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto* row = static_cast<const std::byte*>(in[8 * matrix + lane / 4]);
      std::memcpy(static_cast<std::uint32_t*>(out[lane]) + matrix, row + 4 * (lane % 4), 4);
    }
}

}  // namespace

double widen_bf16(std::uint32_t bits) { return widen_f32(std::bit_cast<float>(bits << 16)); }

// One sum of sixteen products and what was there before, the way tensor cores have been seen to add: products
// exact, all addends cut (not rounded) to a few digits below the last one of the largest, and the sum cut to
// f32. How many digits more differs between generations (none on Volta, one on Ampere, two or more since);
// one is taken here. So this errs as much as a device may, and its result depends on the order of
// instructions as a device's does, but it is not the result of any device.
float add_products(float before, const double* products) {
  double largest = std::fabs(widen_f32(before)), plain = widen_f32(before);
  for (int k = 0; k < kDepth; ++k) {
    largest = std::max(largest, std::fabs(products[k]));
    plain += products[k];
  }
  if (!std::isfinite(plain)) return static_cast<float>(plain);
  if (largest == 0.0) return 0.0f;
  const int exponent = static_cast<int>(std::bit_cast<std::uint64_t>(largest) >> 52) - 1023;
  const double scale = std::bit_cast<double>(static_cast<std::uint64_t>(1023 + 24 - exponent) << 52);
  auto sum = static_cast<std::int64_t>(widen_f32(before) * scale);
  for (int k = 0; k < kDepth; ++k) sum += static_cast<std::int64_t>(products[k] * scale);
  return narrow_towards_zero(static_cast<double>(sum) / scale);
}

std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b) {
  const std::uint32_t low = narrow_to_bf16(widen_bf16(a & 0xffff) * widen_bf16(b & 0xffff));
  return low | std::uint32_t{narrow_to_bf16(widen_bf16(a >> 16) * widen_bf16(b >> 16))} << 16;
}

std::uint32_t subtract_bf16x2(std::uint32_t a, std::uint32_t b) {
  const auto difference = [](std::uint32_t x, std::uint32_t y) { return widen_bf16(x) - widen_bf16(y); };
  const std::uint32_t low = narrow_to_bf16(difference(a & 0xffff, b & 0xffff));
  return low | std::uint32_t{narrow_to_bf16(difference(a >> 16, b >> 16))} << 16;
}

void multiply_tile(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                   simt::Place where) {
  const Tile tile{a, b, d};
  float result[4];
  simt::Emulator::current().exchange("a multiplication of tiles", execute_tile, &tile, result, where);
  std::memcpy(d, result, sizeof result);
}

void load_matrices(std::uint32_t (&out)[4], const void* row, simt::Place where) {
  simt::Emulator& emulator = simt::Emulator::current();
  if (!emulator.is_shared(row, 16)) emulator.fail("loads a matrix from outside its shared memory", where);
  if (reinterpret_cast<std::uintptr_t>(row) % 16)
    emulator.fail("loads a row of a matrix from an address that is no multiple of 16", where);
  emulator.exchange("a load of matrices", execute_load, row, out, where);
}

}  // namespace nib::inline v0::cuda
