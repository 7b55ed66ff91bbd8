// Products with the processor's tiles (kernels/packed.hpp). A piece of work is a pair of strips of one matrix
// and up to eight entries: each half of a warp has a strip, a thread one of its rows. The tiles of 128 inputs
// go to the eight warps in turn; of the sums that they leave, warp c adds up those of entry c, tile after
// tile. So a sum depends on nothing but its row and its inputs.
#pragma once

#include "../tiles.hpp"
#include "activation.cuh"
#include "active.cuh"
#include "folded_norm.cuh"
#include "grouped.cuh"
#include "one_row.cuh"
#include <nibble/kernels/decoders.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kTilesWarps = kColumns;
inline constexpr int kTilesThreads = kTilesWarps * 32;

struct TilesShared {
  ActiveExperts active;
  const std::uint16_t* column[kColumns];
  float sums[2][kTilesWarps][kColumns][32];
  float row_factors[kColumns];
};

// A TilesProduct as find_piece wants it; its tiles are pairs of strips.
struct TilesProblem {
  const TilesProduct& call;
  const ActiveExperts& active;
  RowFactors factors;

  NIB_DEVICE int tiles() const { return static_cast<int>((call.weight.strips() + 1) / 2); }
  NIB_DEVICE int matrices() const { return call.lists.first ? active.count : 1; }
  NIB_DEVICE int expert(int matrix) const { return call.lists.first ? active.id(matrix) : 0; }
  NIB_DEVICE int first_entry(int matrix) const { return call.lists.first ? active.first[matrix] : 0; }
  NIB_DEVICE int columns(int matrix) const {
    return call.lists.first ? active.entries(matrix) : static_cast<int>(call.rows);
  }
  NIB_DEVICE int row(int entry) const { return call.lists.row ? call.lists.row[entry] : entry; }
  NIB_DEVICE const std::uint16_t* column(int entry) const { return call.x + row(entry) * call.x_stride; }
  NIB_DEVICE const std::byte* bytes(int matrix) const {
    return call.weight.data + (call.lists.first ? active.matrix(matrix) : 0) * call.distance;
  }

  // The sums of one entry, by a warp; lane l has row l of the pair.
  NIB_DEVICE void finish(const Piece& piece, int lane, int entry, float sum) const {
    const int pair = piece.first_tile, row = pair * 2 * static_cast<int>(kStripRows) + lane,
              expert = this->expert(piece.matrix);
    sum = sum * *reinterpret_cast<const float*>(bytes(piece.matrix)) * factors.of(this->row(entry));
    if (call.bias && row < call.weight.rows) sum += call.bias[expert * call.bias_stride + row];
    if (call.hidden.at) return finish_units(pair, lane, entry, sum);
    if (row >= call.weight.rows) return;
    if (call.entry_weight) sum *= call.entry_weight[entry];
    float& out = call.out[entry * call.out_stride + row];
    out = call.add ? out + sum : sum;
  }

 private:
  NIB_DEVICE void finish_units(int pair, int lane, int entry, float sum) const {
    const Hidden& hidden = call.hidden;
    const bool has_gate = is_gated(hidden.activation);  // gates are one strip, their ups the next
    const float other = shuffle_xor(sum, static_cast<int>(kStripRows));
    const int unit = has_gate ? pair * static_cast<int>(kStripRows) + lane
                              : pair * 2 * static_cast<int>(kStripRows) + lane;
    std::uint16_t* const to = hidden.at + entry * hidden.stride;
    if (unit < hidden.units && (!has_gate || lane < kStripRows))
      to[unit] = round_to_bf16(has_gate ? gated(hidden, sum, other) : ungated(hidden, sum));
    if (pair == tiles() - 1) clear_beyond(hidden, entry, lane);
  }
};

// One tile times `columns` columns, whose inputs begin `first_input` further on.
template <class D>
NIB_DEVICE void multiply_tile_of(float (&sums)[kColumns], const cpu::Tile& tile, int octets,
                                 const std::uint16_t* const* column, int columns, std::int64_t first_input) {
  NIB_ROLLED
  for (int octet = 0; octet < octets; ++octet) {
    const auto opened = D::open(tile, octet);
    float weights[kOctet];
    NIB_UNROLL
    for (int s = 0; s < kOctet; ++s) weights[s] = opened.step(s);
    NIB_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      if (c >= columns) continue;
      const Words4 x = *reinterpret_cast<const Words4*>(column[c] + first_input + octet * kOctet);
      NIB_UNROLL
      for (int s = 0; s < kOctet; ++s) {
        const std::uint32_t pair = x.at[chain_offset(s) / 2];
        sums[c] = D::mac(sums[c], weights[s], chain_offset(s) % 2 ? high_half(pair) : low_half(pair));
      }
    }
  }
}

template <class D>
NIB_KERNEL void NIB_FITS(kTilesThreads, 2) tiles_kernel(TilesProduct call) {
  wait_for_kernel_before();
  auto& shared = shared_memory<TilesShared>();
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (call.lists.first) find_active(shared.active, call.lists);
  const bool is_few = call.rows <= kColumns;
  if (is_few) find_row_factors(call.norm, static_cast<int>(call.rows), shared.row_factors);
  const TilesProblem problem{call, shared.active,
                             RowFactors::of(call.norm, is_few ? shared.row_factors : nullptr)};
  int parity = 0;
  NIB_ROLLED
  for (int number = block_index();; number += block_count()) {
    const Piece piece = find_piece(problem, number, 1, kColumns);
    if (piece.matrix < 0) return;  // all threads of the block
    const int left = problem.columns(piece.matrix) - piece.first_column,
              columns = left < kColumns ? left : kColumns,
              first_entry = problem.first_entry(piece.matrix) + piece.first_column;
    if (thread_index() < columns)
      shared.column[thread_index()] = problem.column(first_entry + thread_index());
    sync_block();
    const std::int64_t strip = piece.first_tile * 2 + lane / kStripRows;
    const bool has_strip = strip < call.weight.strips();
    PackedWeight weight = call.weight;
    weight.data = problem.bytes(piece.matrix) + kDeviceHeaderBytes;
    const cpu::Tiles<D> tiles(weight, has_strip ? strip : 0);
    const auto count = static_cast<int>(tiles.count());
    float total = 0;
    NIB_ROLLED
    for (int first = 0; first < count; first += kTilesWarps) {
      const int tile = first + warp;
      float sums[kColumns] = {};
      if (tile < count && has_strip)
        multiply_tile_of<D>(sums, tiles.at(0, tile), tiles.octets(tile), shared.column, columns,
                            tile * kTileK);
      NIB_UNROLL
      for (int c = 0; c < kColumns; ++c)
        if (c < columns) shared.sums[parity][warp][c][lane] = sums[c];
      sync_block();  // and nobody still reads the sums of two rounds ago
      if (warp < columns)
        for (int i = 0; i < kTilesWarps && first + i < count; ++i)
          total += shared.sums[parity][i][warp][lane];
      parity ^= 1;
    }
    if (warp < columns) problem.finish(piece, lane, first_entry + warp, total);
  }
}

}  // namespace nib::inline v0::cuda
