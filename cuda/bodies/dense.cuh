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
  NIB_DEVICE float bias(std::int64_t row) const { return call.bias ? call.bias[row] : 0; }
  // What a sum becomes: a number of some column and row of W.
  NIB_DEVICE float number(float sum, float factor, float of_column, float bias) const {
    const float product = sum * factor * of_column;
    return call.bias ? product + bias : product;
  }

  // A lane's elements of a tile: two rows of W, two columns. What memory has for them is loaded before
  // anything is stored, or each load would wait for the store before it.
  struct Elements {
    std::int64_t row[2];
    int column[2];
    bool has_row[2], has_column[2];
    NIB_DEVICE bool has(int i) const { return has_row[i / 2] && has_column[i % 2]; }
  };
  NIB_DEVICE Elements elements(int item, int lane, int first_column = 0) const {
    const RowsOfTile rows = call.heads.rows(item);
    Elements out;
    NIB_UNROLL
    for (int j = 0; j < 2; ++j) {
      out.row[j] = rows.row(row_of_element(lane, 2 * j));
      out.column[j] = first_column + column_of_element(lane, j);
      out.has_row[j] = out.row[j] < call.tiles.rows;
      out.has_column[j] = out.column[j] < call.rows;
    }
    return out;
  }
  NIB_DEVICE float& place(const Elements& of, int i) const {
    return call.out[of.column[i % 2] * call.out_stride + of.row[i / 2]];
  }
  // What numbers are added to.
  NIB_DEVICE LaneSums there(const Elements& of) const {
    LaneSums out{};
    NIB_UNROLL
    for (int i = 0; i < 4; ++i)
      if (call.add && of.has(i)) out.at[i] = place(of, i);
    return out;
  }
  // The numbers of a tile, bias included; zeros where there are none.
  NIB_DEVICE LaneSums numbers(const Elements& of, const LaneSums& sums) const {
    const float factor = this->factor();
    float biases[2], of_columns[2];
    NIB_UNROLL
    for (int j = 0; j < 2; ++j) {
      biases[j] = of.has_row[j] ? bias(of.row[j]) : 0;
      of_columns[j] = of.has_column[j] ? factors.of(of.column[j]) : 0;
    }
    LaneSums out;
    NIB_UNROLL
    for (int i = 0; i < 4; ++i)
      out.at[i] = of.has(i) ? number(sums.at[i], factor, of_columns[i % 2], biases[i / 2]) : 0;
    return out;
  }
  // Writes them, added to what is there. Returns what is there now.
  NIB_DEVICE LaneSums write(const Elements& of, LaneSums numbers, const LaneSums& there) const {
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (call.add) numbers.at[i] = there.at[i] + numbers.at[i];
      if (of.has(i)) place(of, i) = numbers.at[i];
    }
    return numbers;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    const Elements of = elements(item, lane, first_column);
    const LaneSums there = this->there(of);
    write(of, numbers(of, sums), there);
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
    const auto elements = this->elements(item, lane);
    const FoldWeights weights = fold_weights(of.next, item, lane);
    const LaneSums there = this->there(elements), numbers = this->numbers(elements, sums);
    if (of.heads.kv_rows) return place_heads(of.heads, item, lane, numbers, of.rows, of.out, of.out_stride);
    const LaneSums written = this->write(elements, numbers, there);
    if (of.next.rows) leave_folded(of.next, item, lane, written.at, weights, of.rows);
    if (lane == 0 && finished.count++ == 0) finished.first = item;
  }
};

}  // namespace nib::inline v0::cuda
