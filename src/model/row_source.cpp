#include "row_source.hpp"

#include <nibble/base/float16.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/block_format.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>

namespace nib::inline v0 {
namespace {

// Values of a piece of the file that is widened while a first- or second-level cache still holds it.
constexpr std::size_t kStoredAtOnce = std::size_t{1} << 15;

// Plain values, which is what models are mostly quantized from, without the detour of read_values.
template <class Word, class ToFloat>
void widen(const std::byte* stored, std::int64_t count, float* values, ToFloat to) {
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = to(load_little_endian<Word>(stored + i * static_cast<std::int64_t>(sizeof(Word))));
}

// Consecutive rows of one tensor.
Status read_rows(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::int64_t first,
                 std::int64_t count, std::int64_t columns, float* values, std::vector<std::byte>& stored) {
  const auto total = static_cast<std::size_t>(count * columns);
  const std::uint32_t each = tensor.format == Format::f32                                    ? 4
                             : tensor.format == Format::bf16 || tensor.format == Format::f16 ? 2
                                                                                             : 0;
  if (each == 0)
    return read_values(checkpoint, tensor, static_cast<std::uint64_t>(first), std::span(values, total));
  stored.resize(std::min(total, kStoredAtOnce) * each);
  for (std::size_t at = 0; at < total; at += kStoredAtOnce) {
    const std::size_t some = std::min(kStoredAtOnce, total - at);
    NIB_TRY(read_plane(checkpoint, tensor.codes, (static_cast<std::uint64_t>(first * columns) + at) * each,
                       std::span(stored).first(some * each)));
    const auto n = static_cast<std::int64_t>(some);
    float* to = values + at;
    if (tensor.format == Format::f32)
      widen<std::uint32_t>(stored.data(), n, to,
                           [](std::uint32_t word) { return std::bit_cast<float>(word); });
    else if (tensor.format == Format::bf16)
      widen<std::uint16_t>(stored.data(), n, to, [](std::uint16_t word) { return to_float(bf16{word}); });
    else
      widen<std::uint16_t>(stored.data(), n, to, [](std::uint16_t word) { return to_float(f16{word}); });
  }
  return {};
}

}  // namespace

std::int64_t RowOrder::stored(std::int64_t row) const {
  switch (kind) {
    case same:
      break;
    case pairs: {  // row 2 i + s of a head was row s * d / 2 + i
      const std::int64_t at = row % head_dim;
      return row - at + at % 2 * (head_dim / 2) + at / 2;
    }
    case even:
      return 2 * row;
    case odd:
      return 2 * row + 1;
    case by_parts: {
      const std::int64_t head = row / head_dim % heads, part = row / head_dim / heads;
      return (head * 3 + part) * head_dim + row % head_dim;
    }
  }
  return row;
}

std::int64_t WeightPlan::rows() const {
  std::int64_t rows = 1;
  const std::size_t dimensions = shape.size() - (shape.empty() || values_as_rows ? 0 : 1);
  for (std::size_t i = 0; i < dimensions; ++i) rows *= static_cast<std::int64_t>(shape[i]);
  return rows;
}

std::uint64_t WeightPlan::stored_bytes() const {
  std::uint64_t bytes = 0;
  for (const CheckpointTensor* part : parts)
    bytes += part->codes.bytes + part->scales.bytes + part->scaling.nested_scales.bytes;
  return bytes;
}

Status in_parallel(Pool& pool, std::int64_t count,
                   const std::function<Status(std::int64_t begin, std::int64_t end)>& body) {
  std::vector<Status> results(static_cast<std::size_t>(pool.threads()));
  pool.run([&](int index, int threads) {
    const Range range = split(count, index, threads);
    if (range.size() == 0) return;
    Status& result = results[static_cast<std::size_t>(index)];
    result = within_memory("a block of rows", [&] { return body(range.begin, range.end); });
  });
  for (Status& result : results)
    if (!result.ok()) return std::move(result);
  return {};
}

RowSource::Place RowSource::place(std::int64_t row) const {
  const std::int64_t height = plan_.matrix_rows(), inside = plan_.order.stored(row % height);
  if (plan_.parts.size() > 1) return {plan_.parts[static_cast<std::size_t>(row / height)], inside};
  const std::int64_t stored_height = plan_.height(plan_.parts[0]->shape);
  return {plan_.parts[0], row / height * stored_height + inside};
}

Status RowSource::read(std::int64_t first_row, std::int64_t count, float* values) {
  if (plan_.turned) return read_turned(first_row, count, values);
  if (plan_.values_as_rows) return read_vector(first_row, count, values);
  const std::int64_t columns = plan_.columns();
  return in_parallel(pool_, count, [&](std::int64_t begin, std::int64_t end) -> Status {
    std::vector<std::byte> stored;
    for (std::int64_t row = begin; row < end;) {
      const Place at = place(first_row + row);
      std::int64_t some = 1;  // rows that follow one another there too
      for (; row + some < end; ++some) {
        const Place next = place(first_row + row + some);
        if (next.tensor != at.tensor || next.row != at.row + some) break;
      }
      NIB_TRY(read_rows(checkpoint_, *at.tensor, at.row, some, columns, values + row * columns, stored));
      row += some;
    }
    return {};
  });
}

Status RowSource::read_vector(std::int64_t first_row, std::int64_t count, float* values) {
  const CheckpointTensor& tensor = *plan_.parts[0];
  if (at_hand_ < 0) {
    std::int64_t all = 1;
    for (const std::uint64_t size : tensor.shape) all *= static_cast<std::int64_t>(size);
    const std::int64_t columns = tensor.shape.empty() ? 1 : static_cast<std::int64_t>(tensor.shape.back());
    NIB_TRY(within_memory(tensor.name, [&]() -> Status {
      std::vector<std::byte> stored;
      matrix_.resize(static_cast<std::size_t>(all));
      return all == 0 ? Status()
                      : read_rows(checkpoint_, tensor, 0, all / columns, columns, matrix_.data(), stored);
    }));
    at_hand_ = 0;
  }
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = matrix_[static_cast<std::size_t>(place(first_row + i).row)];
  return {};
}

Status RowSource::read_turned(std::int64_t first_row, std::int64_t count, float* values) {
  const std::int64_t height = plan_.matrix_rows(), columns = plan_.columns();
  const auto stored_columns = static_cast<std::int64_t>(plan_.parts[0]->shape.back());
  while (count > 0) {
    const std::int64_t matrix = first_row / height, from = first_row % height;
    const std::int64_t some = std::min(count, height - from);
    if (matrix != at_hand_) NIB_TRY(load_matrix(matrix));
    const Status turned = in_parallel(pool_, columns, [&](std::int64_t begin, std::int64_t end) -> Status {
      for (std::int64_t column = begin; column < end; ++column)
        for (std::int64_t row = 0; row < some; ++row)
          values[row * columns + column] =
              matrix_[static_cast<std::size_t>(column * stored_columns + plan_.order.stored(from + row))];
      return {};
    });
    if (!turned.ok()) return turned;
    first_row += some;
    count -= some;
    values += some * columns;
  }
  return {};
}

// Stored as [columns, stored columns]; one tensor that is a stack, since those of their own are never turned.
Status RowSource::load_matrix(std::int64_t matrix) {
  const CheckpointTensor& tensor = *plan_.parts[0];
  const std::int64_t rows = plan_.columns(), width = static_cast<std::int64_t>(tensor.shape.back());
  at_hand_ = -1;
  NIB_TRY(within_memory(tensor.name, [&]() -> Status {
    matrix_.resize(static_cast<std::size_t>(rows * width));
    return {};
  }));
  NIB_TRY(in_parallel(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::byte> stored;
    return read_rows(checkpoint_, tensor, matrix * rows + begin, end - begin, width,
                     matrix_.data() + begin * width, stored);
  }));
  at_hand_ = matrix;
  return {};
}

}  // namespace nib::inline v0
