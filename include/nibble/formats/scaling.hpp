// Room formats: how a tensor shares f32 scales among its values, and bitsandbytes' scales that are quantized
// themselves. For the formats whose scales are Scales::shared. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// Which of the f32 scales belongs to value (row, column) of a matrix [rows, k]. One of two kinds:
//
//   tiles   every tile of `rows` x `columns` values has one, tiles in row-major order, the last of a row or
//           column cut short. 0 means all: {0, 0} is one scale for the tensor, {1, 0} one a row, {1, g} one
//           for g inputs of a row, {128, 128} the blocks of FP8 checkpoints
//   run     every `run` values of the flattened matrix have one, whether or not rows end there (bitsandbytes)
struct ScaleSharing {
  std::int64_t rows = 0, columns = 0;
  std::int64_t run = 0;  // 0: tiles

  static constexpr ScaleSharing per_tensor() { return {0, 0, 0}; }
  static constexpr ScaleSharing per_row() { return {1, 0, 0}; }
  static constexpr ScaleSharing per_group(std::int64_t columns) { return {1, columns, 0}; }
  static constexpr ScaleSharing per_tile(std::int64_t rows, std::int64_t columns) {
    return {rows, columns, 0};
  }
  static constexpr ScaleSharing per_run(std::int64_t values) { return {0, 0, values}; }

  // Of value (row, column) in a matrix whose rows have k values.
  constexpr std::int64_t index(std::int64_t row, std::int64_t column, std::int64_t k) const {
    if (run) return (row * k + column) / run;
    const std::int64_t across = columns ? (k + columns - 1) / columns : 1;
    return (rows ? row / rows : 0) * across + (columns ? column / columns : 0);
  }

  // The first column behind `column` whose value may have another scale; k when there is none.
  constexpr std::int64_t end_of_scale(std::int64_t row, std::int64_t column, std::int64_t k) const {
    const std::int64_t step = run ? run : columns;
    if (step == 0) return k;
    const std::int64_t at = run ? row * k + column : column;
    const std::int64_t end = column + step - at % step;
    return end < k ? end : k;
  }

  // Scales of a whole matrix of `height` rows.
  constexpr std::int64_t count(std::int64_t height, std::int64_t k) const {
    return height == 0 || k == 0 ? 0 : index(height - 1, k - 1, k) + 1;
  }

  friend constexpr bool operator==(const ScaleSharing&, const ScaleSharing&) = default;
};

// Scales of bitsandbytes' double quantization, as a checkpoint holds them: scale i is
// map[codes[i]] * absmax[i / group] + offset, in f32.
struct NestedScales {
  const std::byte* codes = nullptr;  // one a scale
  const float* map = nullptr;        // 256 values, of the checkpoint: "nested_quant_map"
  const float* absmax = nullptr;     // one for `group` scales: "nested_absmax"
  float offset = 0;                  // "nested_offset"
  std::int64_t group = 256;

  // Two roundings, as bitsandbytes computes it; never a fused one, which would give other bits.
  constexpr float operator[](std::int64_t i) const {
    const double product = static_cast<double>(map[std::to_integer<std::uint8_t>(codes[i])]) *
                           static_cast<double>(absmax[i / group]);  // exact: 24 + 24 bits
    return static_cast<float>(product) + offset;
  }
};

}  // namespace nib::inline v0
