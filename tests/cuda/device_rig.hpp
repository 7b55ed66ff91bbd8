// What the tests of products on a device share: memory, matrices packed for it, inputs, scratch of the exact
// size, and how far a sum may be from its exact value.
#pragma once

#include "device_under_test.hpp"
#include "kernels/rig.hpp"
#include <nibble/base/float16.hpp>
#include <nibble/kernels/device_layout.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include <cuda/multiply.hpp>
#include <cuda/pack.hpp>
#include <doctest/doctest.h>

namespace nib::test {

inline constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();

// Memory as a device gives it.
template <class T>
struct DeviceBuffer {
  explicit DeviceBuffer(std::int64_t count, T value = {})
      : size(count),
        bytes_(static_cast<std::byte*>(allocate_for_device(
                   round_up(static_cast<std::size_t>(count) * sizeof(T) + 1, std::size_t{256}))),
               &free_of_device) {
    std::fill_n(data(), count, value);
  }
  DeviceBuffer(const DeviceBuffer& other) : DeviceBuffer(other.size) {
    std::copy(other.begin(), other.end(), data());
  }
  DeviceBuffer& operator=(DeviceBuffer other) {
    std::swap(size, other.size);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  T* data() const { return reinterpret_cast<T*>(bytes_.get()); }
  T& operator[](std::int64_t i) const { return data()[i]; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size; }
  std::int64_t size;

 private:
  std::unique_ptr<std::byte, void (*)(void*) noexcept> bytes_;
};

// Matrices of one shape and format, each packed for a device, in some number of parts; behind one another.
struct DeviceMatrices {
  DeviceMatrices(Format format, int count, std::int64_t rows, std::int64_t k, Random& random,
                 DeviceRows order = DeviceRows::consecutive, std::int64_t run = 0,
                 Scales scales = Scales::usual) {
    for (int i = 0; i < count; ++i) encoded.push_back(random_weights(format, rows, k, random, scales, run));
    pack(random, order);
  }
  void pack(Random& random, DeviceRows order = DeviceRows::consecutive) {
    const std::size_t each = device_bytes(Packed(encoded[0]).shape);
    bytes = DeviceBuffer<std::byte>(static_cast<std::int64_t>(each * encoded.size()), std::byte{0xee});
    on_device.clear();
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      const Packed packed(encoded[i]);
      const int parts = 1 + random.below(4);
      for (int part = 0; part < parts; ++part) {
        const Status status = cuda::pack(packed.shape, order, bytes.data() + i * each, part, parts);
        CAPTURE(status.message());
        REQUIRE(status.ok());
      }
      on_device.push_back(packed.shape);
      on_device.back().data = bytes.data() + i * each;
    }
  }
  const PackedWeight& shape() const { return on_device[0]; }

  std::vector<Encoded> encoded;
  DeviceBuffer<std::byte> bytes{0};
  std::vector<PackedWeight> on_device;
};

// x [rows][stride]: zeros beyond k up to a multiple of 64, NaN beyond that.
struct DeviceInputs {
  DeviceInputs(std::int64_t rows, std::int64_t k, Random& random, std::int64_t more_stride = 64)
      : width(k), stride(cuda::bf16_stride(k) + more_stride), values(rows * stride, 0x7fff) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < cuda::bf16_stride(k); ++i)
        row(r)[i] = i < k ? to_bf16(random.normal()).bits : std::uint16_t{0};
  }
  std::uint16_t* row(std::int64_t r) const { return values.data() + r * stride; }
  std::vector<double> exact(std::int64_t r) const {
    std::vector<double> out;
    for (std::int64_t i = 0; i < width; ++i) out.push_back(to_float(bf16{row(r)[i]}));
    return out;
  }
  std::int64_t width, stride;
  DeviceBuffer<std::uint16_t> values;
};

// Scratch as device_scratch_bytes counts it for products of at most `k` inputs, and for a router of so many
// experts behind one of them, and a context that has it.
struct DeviceScratch {
  explicit DeviceScratch(std::int64_t k, std::int64_t hidden_numbers = 0, std::int64_t experts = 0)
      : floats(static_cast<std::int64_t>(device_scratch_bytes(limits(k, experts)) / sizeof(float)),
               kNoNumber),
        hidden(hidden_numbers, 0x7fff) {
    std::memset(floats.data(), 0, kScratchCounters * sizeof(std::int32_t));
  }
  static DeviceLimits limits(std::int64_t k, std::int64_t experts) {
    DeviceLimits limits{};
    limits.hidden = k;
    limits.experts = experts;
    return limits;
  }
  OpContext context() const {
    OpContext out{};
    out.expert_inputs = reinterpret_cast<std::byte*>(hidden.data());
    out.tiles = floats.data();
    out.tile_floats = floats.size;
    return out;
  }
  // After an op.
  bool counters_are_zero() const {
    const auto* const counters = reinterpret_cast<const std::int32_t*>(floats.data());
    return std::all_of(counters, counters + kScratchCounters, [](std::int32_t n) { return n == 0; });
  }
  DeviceBuffer<float> floats;
  DeviceBuffer<std::uint16_t> hidden;
};

// How far a sum of k products may be from its exact value.
//
// Of forms for tensor cores: sums run through slices, by tensor products of 16 inputs or by four chains. In a
// tensor product each of 17 addends loses less than 2^-24 of the largest, and its sum 2^-23 of itself; all of
// these are at most the magnitude of the slice. In a chain an addition loses 2^-24 of the sum. Then slices
// are added up, and the factor is exact. Of codes with scales the same is said of the inputs that share one;
// these sums times their scales are added up with one rounding each. Chains have weights instead, which a f32
// scale rounds once; and the factor of LLM.int8 is off by one and its product by another. Of tiles: a chain
// of at most 128, the sums of tiles, and what a weight is off, whose formula rounds at most five times. What
// lies below the least normal f32 is lost in all. In the fast class one sum runs through all inputs.
template <class Tiles>
double slice_roundings(const PackedWeight& weight, int products, int scaled_sums) {
  const double chain = Tiles::kSliceDepth / 4 + 2;
  return std::max(products * 19.0 + scaled_sums, chain) + Tiles{weight.rows, weight.k}.slices() + 1;
}
inline double sum_bound(const ReferenceDot& dot, const PackedWeight& weight, bool fast = false) {
  double roundings = 0;
  if (fast)
    roundings = 19.0 * static_cast<double>(ceil_div(weight.k, std::int64_t{16})) + 1;
  else
    switch (device_form(weight)) {
      case DeviceForm::mxfp4:
        roundings = slice_roundings<Mxfp4Tiles>(weight, 16, 0);
        break;
      case DeviceForm::bf16:
        roundings = slice_roundings<Bf16Tiles>(weight, 4, 0);
        break;
      case DeviceForm::q4_0:
        roundings = slice_roundings<Q4Tiles>(weight, 2, 8);
        break;
      case DeviceForm::q8_0:
        roundings = slice_roundings<Q8Tiles>(weight, 2, 4);
        break;
      case DeviceForm::int8:
      case DeviceForm::fp8_e4m3:
      case DeviceForm::fp8_e5m2:
        roundings = slice_roundings<ByteTiles>(weight, 8, 1) + 3;
        break;
      default:
        roundings = 128 + static_cast<double>(ceil_div(weight.k, kTileK)) + 5;
    }
  return roundings * 0x1p-24 * dot.magnitude * 1.001 + static_cast<double>(weight.k) * 0x1p-145;
}

inline bool same_bits(const float* a, const float* b, std::int64_t count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

}  // namespace nib::test
