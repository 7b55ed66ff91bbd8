// Random MXFP4 matrices and bf16 inputs, packed for a device, and what their products are in double.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <cuda/pack_mxfp4.hpp>
#include <doctest/doctest.h>

namespace nib::test {

// Memory as a device gives it: at a multiple of 16 bytes.
template <class T>
struct DeviceBuffer {
  explicit DeviceBuffer(std::int64_t count, T value = {})
      : store(static_cast<std::size_t>(count) + 64 / sizeof(T) + 1, value), size(count) {}
  T* data() {
    auto address = reinterpret_cast<std::uintptr_t>(store.data());
    return store.data() + ((64 - address % 64) % 64) / sizeof(T);
  }
  std::vector<T> store;
  std::int64_t size;
};

// W [rows, k].
struct RandomMxfp4 {
  RandomMxfp4(std::int64_t rows, std::int64_t k, int least_scale, int most_scale, std::mt19937_64& random)
      : tiles{rows, k},
        codes(static_cast<std::size_t>(rows * k / 2)),
        scales(static_cast<std::size_t>(rows * k / 32)),
        packed(tiles.bytes()) {
    for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
    std::uniform_int_distribution<int> scale(least_scale, most_scale);
    for (std::byte& byte : scales) byte = static_cast<std::byte>(scale(random));
    cuda::ScaleExtent extent;
    extent.see(codes, scales);
    const auto found = extent.lowered_by();
    REQUIRE(found.ok());
    lowered_by = found.value();
    for (std::int64_t tile = 0; tile < tiles.tiles(); ++tile)
      cuda::pack_tile(tiles, cuda::consecutive_rows(tile, rows), codes.data(), scales.data(), lowered_by,
                      packed.data() + tile * tiles.tile_bytes());
  }
  EncodedMatrix encoded() const { return {Format::mxfp4, tiles.rows, tiles.k, codes.data(), scales.data()}; }

  cuda::Mxfp4Tiles tiles;
  std::vector<std::byte> codes, scales;
  DeviceBuffer<std::byte> packed;
  int lowered_by = 0;
};

// x [tokens][stride]: zeros beyond k up to a multiple of 64, NaN beyond that.
struct RandomInputs {
  RandomInputs(int tokens, std::int64_t k, std::mt19937_64& random)
      : stride(round_up(k, std::int64_t{64}) + 8), values(tokens * stride, 0x7fff) {
    std::normal_distribution<float> normal;
    for (int token = 0; token < tokens; ++token)
      for (std::int64_t i = 0; i < stride - 8; ++i)
        row(token)[i] = i < k ? to_bf16(normal(random)).bits : std::uint16_t{0};
  }
  std::uint16_t* row(std::int64_t token) { return values.data() + token * stride; }
  std::vector<double> row_values(std::int64_t token, std::int64_t k) {
    std::vector<double> out;
    for (std::int64_t i = 0; i < k; ++i) out.push_back(to_float(bf16{row(token)[i]}));
    return out;
  }
  std::int64_t stride;
  DeviceBuffer<std::uint16_t> values;
};

// How far a product may be from its exact value. Sums run through slices of 256 inputs, by 16 tensor products
// of 16 inputs each or by four chains of 64: in a tensor product each of 17 addends loses less than 2^-24 of
// the largest, and its sum 2^-23 of itself; all of these are at most the magnitude of the slice. In a chain
// an addition loses 2^-24 of the sum, 66 times. Then slices are added up, and the factor is exact.
inline double product_bound(const ReferenceDot& dot, int slices) {
  return (16 * 19 + slices + 1) * 0x1p-24 * dot.magnitude * 1.001 + 0x1p-140;
}

}  // namespace nib::test
