// Room cuda: the experts of a layer for one to eight tokens: which they are, and what they compute. All
// pointers are the device's.
#pragma once

#include "launch.cuh"
#include "mxfp4_tiles.hpp"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

// Pairs of token and expert, sorted by expert and, within one, by token. T experts a token.
struct ExpertLists {
  std::int32_t* first;           // [experts + 1]: entries [first[e], first[e + 1]) are expert e's
  std::int32_t* token;           // [tokens T] of an entry
  float* weight;                 // [tokens T] of an entry
  std::int32_t* entry_of_token;  // [tokens][T] in increasing expert id
  std::int32_t* active;          // [experts] those that have entries, in increasing order
  std::int32_t* active_count;    // [1]
};

inline constexpr int kMostExperts = 256;
inline constexpr int kMostChosen = 16;

// logits = W x + bias, f32; the T largest of each token (lowest id on ties), weighted by the softmax over
// these.
struct Route {
  const std::uint16_t* weight;  // bf16 [experts][weight_stride], at a multiple of 16 bytes
  std::int64_t weight_stride;   // a multiple of 8
  const float* bias;            // [experts], or null
  const std::uint16_t* x;       // bf16 [tokens][x_stride], at a multiple of 16 bytes
  std::int64_t x_stride;        // a multiple of 8
  int tokens, experts, chosen;
  int k;                  // a multiple of 8
  float* logits;          // out [tokens][experts]
  std::int32_t* ids;      // out [tokens][T], largest logit first
  float* id_weights;      // out [tokens][T]
  ExpertLists lists;      // out
  std::int32_t* counter;  // zero, before and after
};

// One kernel: the products, and in the block that comes last the choice and the lists. The bits of a token do
// not depend on the others, nor on `blocks`. Errors: argument (numbers out of range), and those of a launch.
Status route(const Route& call, int blocks, Stream stream);

// residual[token] += sum over the token's experts, in increasing id, of weight * (Wd h + bd), where
// h = min(g, limit) sigmoid(alpha min(g, limit)) (clamp(u, limit) + 1), rounded to bf16, of the units' gates
// g and values u: [g u] = Wgu x + bgu.
struct ExpertsMxfp4 {
  ExpertLists lists;
  int tokens, chosen;                // 1 to 8, grouped any; T
  int units;                         // of an expert
  Mxfp4Tiles gate_up;                // rows: 16 for each 8 units, as gate_up_rows has them
  const std::byte* gate_up_weights;  // [experts][gate_up.bytes()]
  const float* gate_up_factors;      // [experts]: 2^lowered_by
  const float* gate_up_bias;         // [experts][units][2]: gate, value
  Mxfp4Tiles down;                   // k: units
  const std::byte* down_weights;     // [experts][down.bytes()]
  const float* down_factors;         // [experts]
  const float* down_bias;            // [experts][down.rows]
  float alpha, limit;
  const std::uint16_t* x;      // bf16 [tokens][x_stride], zeros from gate_up.k on to a multiple of 64
  std::int64_t x_stride;       // a multiple of 8
  std::uint16_t* hidden;       // scratch [tokens T][hidden_stride], zeros from `units` on
  std::int64_t hidden_stride;  // units rounded up to a multiple of 64, at least
  float* outputs;              // scratch [tokens T][down.rows]
  float* residual;             // [tokens][residual_stride]
  std::int64_t residual_stride;
  float* scratch;               // [experts_scratch(...)]
  std::int32_t* counters;       // [blocks], zero, before and after
  std::int32_t* tile_counters;  // [down.tiles()], zero, before and after
};

constexpr std::int64_t experts_scratch(const ExpertsMxfp4& call, int blocks) {
  const int gate_up = call.gate_up.slices(), down = call.down.slices();
  return std::int64_t{blocks} * (gate_up > down ? gate_up : down) * 128;
}

// Two kernels, of which the second adds to the residual. Bits, arithmetic and errors: as gemv_mxfp4.
Status experts_mxfp4(const ExpertsMxfp4& call, bool tensor_cores, int blocks, Stream stream);

// The same for any number of tokens, and the same bits for each; without scratch and counters. Weights are
// unpacked once for 32 rows of inputs (16 without tensor cores) of an expert, so it is the one for prompts.
Status experts_mxfp4_grouped(const ExpertsMxfp4& call, bool tensor_cores, int blocks, Stream stream);

}  // namespace nib::inline v0::cuda
