// The two products of experts, as stripes.cuh and grouped.cuh take them. Items are the tiles of the experts
// that have entries, expert after expert.
#pragma once

#include "activation.cuh"
#include "active.cuh"
#include "folded_norm.cuh"
#include "grouped.cuh"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

// Matrices of experts, one of each or of those that have a slot (ActiveExperts::matrix), and their biases.
template <class Tiles>
struct ExpertMatrices {
  Tiles shape;
  const std::byte* first;  // the header of matrix 0
  std::int64_t distance;   // bytes from one to the next
  const float* bias;       // [experts][bias_stride], or null
  std::int64_t bias_stride;
};

// What both products have in common.
template <class Tiles>
struct OfExperts {
  const ExpertMatrices<Tiles>& of;
  const ActiveExperts& active;

  NIB_DEVICE int tiles() const { return static_cast<int>(of.shape.tiles()); }
  NIB_DEVICE int items() const { return active.count * tiles(); }
  NIB_DEVICE const Tiles& shape() const { return of.shape; }
  NIB_DEVICE int expert(int item) const { return active.id(item / tiles()); }
  NIB_DEVICE int row_tile(int item) const { return item % tiles(); }
  NIB_DEVICE const std::byte* matrix(int item) const {
    return of.first + active.matrix(item / tiles()) * of.distance;
  }
  NIB_DEVICE const std::byte* tile(int item) const {
    return matrix(item) + kDeviceHeaderBytes + row_tile(item) * of.shape.tile_bytes();
  }
  NIB_DEVICE float factor(int item) const { return *reinterpret_cast<const float*>(matrix(item)); }
  NIB_DEVICE float bias(int item, std::int64_t row) const {
    return of.bias ? of.bias[expert(item) * of.bias_stride + row] : 0;
  }

  NIB_DEVICE int matrices() const { return active.count; }
  NIB_DEVICE int columns(int matrix) const { return active.entries(matrix); }
  NIB_DEVICE int first_entry(int item) const { return active.first[item / tiles()]; }
  NIB_DEVICE int entries(int item) const { return columns(item / tiles()); }
  // The entry of column i, or where there are fewer that of the first.
  NIB_DEVICE int entry(int item, int i) const {
    const int matrix = item / tiles(), from = active.first[matrix];
    return i < active.entries(matrix) ? from + i : from;
  }
};

template <class Tiles>
struct GateUpCall {
  ExpertLists lists;
  ExpertMatrices<Tiles> matrices;
  const std::uint16_t* x;
  std::int64_t x_stride;
  int rows;
  FoldedNorm norm;  // of x
  Hidden hidden;
};

// Leaves the activations of units, and zeros beyond them.
template <class Tiles>
struct GateUp : OfExperts<Tiles> {
  using Call = GateUpCall<Tiles>;
  static constexpr bool kChosenJustNow = true;  // experts were, by the kernel before
  const Call& call;
  RowFactors factors;

  NIB_DEVICE GateUp(const Call& by, const ActiveExperts& found, const float* row_factors)
      : OfExperts<Tiles>{by.matrices, found}, call(by), factors(RowFactors::of(by.norm, row_factors)) {}

  NIB_DEVICE const std::uint16_t* column(int item, int i) const {
    return call.x + row(this->entry(item, i)) * call.x_stride;
  }
  NIB_DEVICE void begin(float (&row_factors)[kColumns]) const {
    find_row_factors(call.norm, call.rows, row_factors);
  }
  // By which all numbers of a column are multiplied.
  NIB_DEVICE float column_factor(int item, int column) const {
    return factors.of(row(this->entry(item, column)));
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    finish(item, lane, sums, first_column,
           {column_factor(item, first_column + column_of_element(lane, 0)),
            column_factor(item, first_column + column_of_element(lane, 1))});
  }
  // The same, for whoever has found the factors of the lane's columns.
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column,
                         const float (&factor)[2]) const {
    const int tile = this->row_tile(item), entries = this->entries(item);
    const float of_matrix = this->factor(item);
    if (is_gated(call.hidden.activation)) {
      // A lane's first two elements are the gates of a unit, the others its ups (DeviceRows::gate_up). The
      // bias is in the order of strips: sixteen gates, sixteen ups.
      const int unit = tile * (kTileRows / 2) + row_of_element(lane, 0);
      const std::int64_t gate = unit / kTileRows * 2 * kTileRows + unit % kTileRows;
      NIB_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int column = first_column + column_of_element(lane, i);
        if (unit < call.hidden.units && column < entries)
          store(item, column, unit,
                gated(call.hidden, sums.at[i] * of_matrix * factor[i] + this->bias(item, gate),
                      sums.at[2 + i] * of_matrix * factor[i] + this->bias(item, gate + kTileRows)));
      }
    } else {
      NIB_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int unit = tile * kTileRows + row_of_element(lane, i),
                  column = first_column + column_of_element(lane, i);
        if (unit < call.hidden.units && column < entries)
          store(item, column, unit,
                ungated(call.hidden, sums.at[i] * of_matrix * factor[i % 2] + this->bias(item, unit)));
      }
    }
    if (tile != this->tiles() - 1) return;
    for (int column = first_column; column < first_column + kColumns && column < entries; ++column)
      clear_beyond(call.hidden, this->first_entry(item) + column, lane);
  }

 private:
  NIB_DEVICE int row(int entry) const { return call.lists.row ? call.lists.row[entry] : entry; }
  NIB_DEVICE void store(int item, int column, int unit, float value) const {
    call.hidden.at[(this->first_entry(item) + column) * call.hidden.stride + unit] = round_to_bf16(value);
  }
};

// A row's outputs are added up in increasing order of experts.
struct Combine {
  const std::int32_t* entry_of_row;  // [rows][experts_per_row]; null: entry r is row r's only one
  int rows, experts_per_row;
  const float* outputs;  // [entries][stride], weighted
  float* x;              // [rows][stride]
  std::int64_t stride;

  // Of so many numbers of x, if they are there: adds what the entries of their rows have left for them.
  // Leaves in `numbers` what is there then, or zero. Loads come first, as in Dense.
  template <int kNumbers>
  NIB_DEVICE void add(float (&numbers)[kNumbers], const bool (&has)[kNumbers], const int (&row)[kNumbers],
                      const std::int64_t (&column)[kNumbers]) const {
    constexpr int kAtOnce = 4;  // entries of a row
    float sums[kNumbers] = {};
    NIB_UNROLL
    for (int i = 0; i < kNumbers; ++i) numbers[i] = has[i] ? x[row[i] * stride + column[i]] : 0;
    NIB_ROLLED
    for (int first = 0; first < experts_per_row; first += kAtOnce) {
      int entry[kNumbers][kAtOnce];
      float read[kNumbers][kAtOnce];
      NIB_UNROLL
      for (int i = 0; i < kNumbers; ++i)
        for (int j = 0; j < kAtOnce; ++j)
          entry[i][j] = !has[i] || first + j >= experts_per_row ? -1 : entry_of(row[i], first + j);
      NIB_UNROLL
      for (int i = 0; i < kNumbers; ++i)
        for (int j = 0; j < kAtOnce; ++j)
          read[i][j] = entry[i][j] < 0 ? 0 : outputs[entry[i][j] * stride + column[i]];
      NIB_UNROLL
      for (int i = 0; i < kNumbers; ++i)
        for (int j = 0; j < kAtOnce; ++j) sums[i] += read[i][j];
    }
    NIB_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      numbers[i] += sums[i];
      if (has[i]) x[row[i] * stride + column[i]] = numbers[i];
    }
  }

 private:
  NIB_DEVICE int entry_of(int row, int i) const {
    return entry_of_row ? entry_of_row[std::int64_t{row} * experts_per_row + i] : row;
  }
};

template <class Tiles>
struct DownCall {
  ExpertLists lists;
  ExpertMatrices<Tiles> matrices;
  const float* entry_weight;  // or null: 1
  const std::uint16_t* hidden;
  std::int64_t hidden_stride;
  float* outputs;
  Combine combine;
  std::int32_t* tile_counters;  // [tiles], zero, before and after
  FoldedRows next;
};

// Leaves the weighted outputs of entries.
template <class Tiles>
struct DownOutputs : OfExperts<Tiles> {
  using Call = DownCall<Tiles>;
  static constexpr bool kChosenJustNow = false;  // but before gates and ups
  const Call& call;

  NIB_DEVICE DownOutputs(const Call& by, const ActiveExperts& found, const float*)
      : OfExperts<Tiles>{by.matrices, found}, call(by) {}

  NIB_DEVICE const std::uint16_t* column(int item, int i) const {
    return call.hidden + this->entry(item, i) * call.hidden_stride;
  }
  NIB_DEVICE void begin(float (&)[kColumns]) const {}
  NIB_DEVICE float column_factor(int item, int column) const {
    return call.entry_weight ? call.entry_weight[this->entry(item, column)] : 1;
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column = 0) const {
    finish(item, lane, sums, first_column,
           {column_factor(item, first_column + column_of_element(lane, 0)),
            column_factor(item, first_column + column_of_element(lane, 1))});
  }
  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums, int first_column,
                         const float (&of_column)[2]) const {
    const float factor = this->factor(item);
    const int entries = this->entries(item);
    const std::int64_t first_row = std::int64_t{this->row_tile(item)} * kTileRows;
    float biases[2];
    NIB_UNROLL
    for (int i = 0; i < 2; ++i) {
      const std::int64_t row = first_row + row_of_element(lane, 2 * i);
      biases[i] = row < this->of.shape.rows ? this->bias(item, row) : 0;
    }
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = first_row + row_of_element(lane, i);
      const int column = first_column + column_of_element(lane, i);
      if (row >= this->of.shape.rows || column >= entries) continue;
      const int entry = this->first_entry(item) + column;
      call.outputs[entry * call.combine.stride + row] =
          (sums.at[i] * factor + biases[i / 2]) * of_column[i % 2];
    }
  }
};

// For up to eight rows: the expert that comes last to a tile, of all rounds, adds up what all have left.
template <class Tiles>
struct DownAndAdd : DownOutputs<Tiles> {
  using DownOutputs<Tiles>::DownOutputs;

  NIB_DEVICE void finish(int item, int lane, const LaneSums& sums) const {
    DownOutputs<Tiles>::finish(item, lane, sums);
    const int tile = this->row_tile(item);
    if (!is_last_expert(tile, lane)) return;
    const Combine& combine = this->call.combine;
    const FoldWeights weights = fold_weights(this->call.next, tile, lane);
    bool has[4];
    int row[4];  // of x; the tile's rows are its columns
    std::int64_t column[4];
    NIB_UNROLL
    for (int i = 0; i < 4; ++i) {
      row[i] = column_of_element(lane, i);
      column[i] = std::int64_t{tile} * kTileRows + row_of_element(lane, i);
      has[i] = column[i] < this->of.shape.rows && row[i] < combine.rows;
    }
    float written[4];
    combine.add(written, has, row, column);
    if (this->call.next.rows) leave_folded(this->call.next, tile, lane, written, weights, combine.rows);
  }

 private:
  // Of those that compute this tile.
  NIB_DEVICE bool is_last_expert(int tile, int lane) const {
    sync_warp();  // what the lanes left in memory comes before what is counted
    int before = 0;
    if (lane == 0) {
      before = add_in_order(this->call.tile_counters + tile, 1);
      if (before + 1 == this->active.in_all_rounds) this->call.tile_counters[tile] = 0;
    }
    before = shuffle(before, 0);
    sync_warp();  // and what is counted before what the lanes read
    return before + 1 == this->active.in_all_rounds;
  }
};

}  // namespace nib::inline v0::cuda
