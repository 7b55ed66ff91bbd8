#include "row_source.hpp"

#include <nibble/base/machine.hpp>
#include <nibble/base/within_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <utility>

namespace nib::inline v0 {
namespace {

// Values of a piece of the file that is widened while a first-level cache still holds it.
constexpr std::size_t kStoredAtOnce = std::size_t{1} << 13;

// Consecutive rows of one tensor. Plain values, which is what models are mostly quantized from, go without
// the detour of read_values.
Status read_rows(const Checkpoint& checkpoint, const CheckpointTensor& tensor, const Wideners& widen,
                 std::int64_t first, std::int64_t count, std::int64_t columns, float* values,
                 std::vector<std::byte>& stored) {
  const auto total = static_cast<std::size_t>(count * columns);
  const auto begin = static_cast<std::uint64_t>(first * columns);
  if (tensor.format == Format::f32)  // little-endian there, as all machines are that nibble runs on
    return read_plane(checkpoint, tensor.codes, begin * sizeof(float),
                      std::as_writable_bytes(std::span(values, total)));
  const WidenFunction to_floats = tensor.format == Format::bf16  ? widen.bf16
                                  : tensor.format == Format::f16 ? widen.f16
                                                                 : nullptr;
  if (!to_floats)
    return read_values(checkpoint, tensor, static_cast<std::uint64_t>(first), std::span(values, total));
  constexpr std::size_t kEach = 2;
  stored.resize(kStoredAtOnce * kEach);
  for (std::size_t at = 0; at < total; at += kStoredAtOnce) {
    const std::size_t some = std::min(kStoredAtOnce, total - at);
    NIB_TRY(
        read_plane(checkpoint, tensor.codes, (begin + at) * kEach, std::span(stored).first(some * kEach)));
    to_floats(stored.data(), static_cast<std::int64_t>(some), values + at);
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
    case halves: {  // row s * d / 2 + i of a head was row 2 i + s
      const std::int64_t at = row % head_dim, half = head_dim / 2;
      return row - at + 2 * (at % half) + at / half;
    }
    case even:
      return 2 * row;
    case odd:
      return 2 * row + 1;
    case alternating:
      return row / 2;
    case by_parts: {
      const std::int64_t head = row / head_dim % heads, part = row / head_dim / heads;
      return (head * 3 + part) * head_dim + row % head_dim;
    }
    case by_heads: {
      const std::int64_t head = row / head_dim / 3, part = row / head_dim % 3;
      return (part * heads + head) * head_dim + row % head_dim;
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
  std::uint64_t bytes = 0, stored = 0;
  for (const CheckpointTensor* part : parts) {
    bytes += nib::stored_bytes(*part);
    std::uint64_t count = 1;
    for (const std::uint64_t size : part->shape) count *= size;
    stored += count;
  }
  return values() == 0 ? bytes : bytes / std::max<std::uint64_t>(1, stored / values());
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
  const std::int64_t height = plan_.ordered_rows(), matrix = row / height, at = row % height;
  const std::int64_t inside = plan_.order.stored(at);
  const bool alternating = plan_.order.kind == RowOrder::alternating;
  if (plan_.parts.size() > 1 && !alternating) return {plan_.parts[static_cast<std::size_t>(matrix)], inside};
  const CheckpointTensor* part = plan_.parts[alternating ? static_cast<std::size_t>(at % 2) : 0];
  return {part, (plan_.first_matrix + matrix) * plan_.height(part->shape) + inside};
}

RowSource::RowSource(const Checkpoint& checkpoint, const WeightPlan& plan, Pool& pool)
    : checkpoint_(checkpoint), plan_(plan), pool_(pool), widen_(find_wideners(this_machine().features)) {}

Status RowSource::prepare(std::int64_t first_row, std::int64_t count) {
  if (plan_.values_as_rows && vectors_.empty()) return load_vectors();
  if (plan_.turned == Turned::none || count == 0) return {};
  const std::int64_t first = first_row / plan_.matrix_rows();
  const std::int64_t last = (first_row + count - 1) / plan_.matrix_rows();
  std::erase_if(matrices_, [&](const auto& at) { return at.first < first || at.first > last; });
  return within_memory(plan_.name, [&]() -> Status {
    for (std::int64_t matrix = first; matrix <= last; ++matrix) {
      if (matrices_.contains(matrix)) continue;
      NIB_ASSIGN(matrices_[matrix], load_matrix(matrix));
    }
    return {};
  });
}

Status RowSource::read(std::int64_t first_row, std::int64_t count, float* values,
                       std::vector<std::byte>& stored) const {
  if (plan_.turned != Turned::none) {
    read_turned(first_row, count, values);
    return {};
  }
  if (plan_.values_as_rows) {
    for (std::int64_t i = 0; i < count; ++i) {
      const Place at = place(first_row + i);
      values[i] = vectors_.at(at.tensor)[static_cast<std::size_t>(at.row)];
    }
    return {};
  }
  return read_ordered(first_row, count, plan_.columns(), values, stored);
}

Status RowSource::read_ordered(std::int64_t first_row, std::int64_t count, std::int64_t columns,
                               float* values, std::vector<std::byte>& stored) const {
  for (std::int64_t row = 0; row < count;) {
    const Place at = place(first_row + row);
    std::int64_t some = 1;  // rows that follow one another there too
    for (; row + some < count; ++some) {
      const Place next = place(first_row + row + some);
      if (next.tensor != at.tensor || next.row != at.row + some) break;
    }
    NIB_TRY(
        read_rows(checkpoint_, *at.tensor, widen_, at.row, some, columns, values + row * columns, stored));
    row += some;
  }
  return {};
}

Status RowSource::load_vectors() {
  for (const CheckpointTensor* tensor : plan_.parts) {
    std::int64_t all = 1;
    for (const std::uint64_t size : tensor->shape) all *= static_cast<std::int64_t>(size);
    const std::int64_t columns = tensor->shape.empty() ? 1 : static_cast<std::int64_t>(tensor->shape.back());
    const Status read = within_memory(tensor->name, [&]() -> Status {
      std::vector<std::byte> stored;
      std::vector<float>& vector = vectors_[tensor];
      vector.resize(static_cast<std::size_t>(all));
      if (all == 0) return {};
      return read_rows(checkpoint_, *tensor, widen_, 0, all / columns, columns, vector.data(), stored);
    });
    if (!read.ok()) return read;
  }
  return {};
}

void RowSource::read_turned(std::int64_t first_row, std::int64_t count, float* values) const {
  const std::int64_t height = plan_.matrix_rows(), columns = plan_.columns();
  const bool ordered = plan_.turned == Turned::written;  // load_matrix has done it
  const std::int64_t width = ordered ? height : static_cast<std::int64_t>(plan_.parts[0]->shape.back());
  while (count > 0) {
    constexpr std::int64_t kRows = 16;  // a cache line of what is stored, or two
    const std::int64_t from = first_row % height, some = std::min({count, height - from, kRows});
    const float* matrix = matrices_.at(first_row / height).data();
    std::int64_t stored[kRows];
    for (std::int64_t row = 0; row < some; ++row)
      stored[row] = ordered ? from + row : plan_.order.stored(from + row);
    for (std::int64_t column = 0; column < columns; ++column)
      for (std::int64_t row = 0; row < some; ++row)
        values[row * columns + column] = matrix[column * width + stored[row]];
    first_row += some;
    count -= some;
    values += some * columns;
  }
}

// [columns, width], of which read_turned makes rows of columns: as it is stored, or where what is written is
// turned, in the order of `order`.
Result<std::vector<float>> RowSource::load_matrix(std::int64_t matrix) const {
  const bool ordered = plan_.turned == Turned::written;
  const CheckpointTensor& tensor = *plan_.parts[0];
  const std::int64_t rows = plan_.columns(),
                     width = ordered ? plan_.matrix_rows() : static_cast<std::int64_t>(tensor.shape.back());
  std::vector<float> values(static_cast<std::size_t>(rows * width));
  NIB_TRY(in_parallel(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::byte> stored;
    const std::int64_t first = matrix * rows + begin;
    float* out = values.data() + begin * width;
    return ordered ? read_ordered(first, end - begin, width, out, stored)
                   : read_rows(checkpoint_, tensor, widen_, first, end - begin, width, out, stored);
  }));
  return values;
}

}  // namespace nib::inline v0
