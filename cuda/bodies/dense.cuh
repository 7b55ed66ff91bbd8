// The product of one matrix (multiply.hpp), as stripes.cuh and grouped.cuh take it. Items are its tiles.
#pragma once

#include "../multiply.hpp"
#include "folded_norm.cuh"
#include "grouped.cuh"
#include "head_rows.cuh"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

template <class Tiles>
struct DenseCall {
  Tiles tiles;
  const std::byte* weight;  // its header
  const std::uint16_t* x;
  std::int64_t x_stride;
  int rows;
  const float* bias;
  float* out;
  std::int64_t out_stride;
  bool add;
  FoldedNorm norm;
  FoldedRows next;
  HeadRows heads;

  static DenseCall of(const Multiply& call) {
    return {{call.weight->rows, call.weight->k},
            call.weight->data,
            call.x,
            call.x_stride,
            static_cast<int>(call.rows),
            call.bias,
            call.out,
            call.out_stride,
            call.add,
            call.norm,
            call.next,
            call.heads};
  }
};
template <class Math>
using DenseCallOf = DenseCall<typename Math::Weights::Tiles>;

template <class Tiles>
struct Dense {
  const DenseCall<Tiles>& call;
  RowFactors factors;

  NIB_DEVICE int tiles() const { return static_cast<int>(call.tiles.tiles()); }
  NIB_DEVICE int items() const { return tiles(); }
  NIB_DEVICE int matrices() const { return 1; }
  NIB_DEVICE int columns(int) const { return call.rows; }
  NIB_DEVICE const Tiles& shape() const { return call.tiles; }
  NIB_DEVICE const std::byte* tile(int item) const {
    return call.weight + kDeviceHeaderBytes + item * call.tiles.tile_bytes();
  }
  NIB_DEVICE const std::uint16_t* column(int, int i) const {
    return call.x + (i < call.rows ? i : 0) * call.x_stride;
  }
  NIB_DEVICE void begin(float (&row_factors)[kColumns]) const {
    find_row_factors(call.norm, call.rows, row_factors);
  }
  NIB_DEVICE float factor() const { return *reinterpret_cast<const float*>(call.weight); }
  // What a sum becomes: a number of some column and row of W.
  NIB_DEVICE float number(float sum, float factor, int column, std::int64_t row) const {
    const float product = sum * factor * factors.of(column);
    return call.bias ? product + call.bias[row] : product;
  }
  // The numbers of a tile, bias included; zeros where there are none.
  NIB_DEVICE LaneSums numbers(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const float factor = this->factor();
    const RowsOfTile rows = call.heads.rows(item);
    LaneSums out{};
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = rows.row(row_of_element(lane, i));
      const int column = first_column + column_of_element(lane, i);
      if (row >= call.tiles.rows || column >= call.rows) continue;
      out.at[i] = number(sums.at[i], factor, column, row);
    }
    return out;
  }
  // Writes them, or adds them to what is there. Returns what is there now.
  NIB_DEVICE LaneSums write(int item, int lane, LaneSums numbers, int first_column = 0) const {
    const RowsOfTile rows = call.heads.rows(item);
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = rows.row(row_of_element(lane, i));
      const int column = first_column + column_of_element(lane, i);
      if (row >= call.tiles.rows || column >= call.rows) continue;
      float& to = call.out[column * call.out_stride + row];
      if (call.add) numbers.at[i] = to + numbers.at[i];
      to = numbers.at[i];
    }
    return numbers;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    write(item, lane, numbers(item, lane, sums, first_column), first_column);
  }
};

// In shared memory: the tiles that a block has finished, which follow each other.
struct FinishedTiles {
  std::int32_t first, count;
};

// For up to eight rows, with what comes after it.
template <class Tiles>
struct DenseAndAfter : Dense<Tiles> {
  FinishedTiles& finished;

  NIB_DEVICE void begin(float (&row_factors)[kColumns]) const {
    Dense<Tiles>::begin(row_factors);
    if (thread_index() == 0) finished.count = 0;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums) const {
    const DenseCall<Tiles>& of = this->call;
    const LaneSums numbers = this->numbers(item, lane, sums);
    if (of.heads.kv_rows) return place_heads(of.heads, item, lane, numbers, of.rows, of.out, of.out_stride);
    const LaneSums written = this->write(item, lane, numbers);
    if (of.next.rows) leave_folded(of.next, item, lane, written.at, of.rows);
    if (lane == 0 && finished.count++ == 0) finished.first = item;
  }
};

}  // namespace nib::inline v0::cuda
