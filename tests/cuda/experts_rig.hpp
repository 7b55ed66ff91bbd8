// A layer of random MXFP4 experts, packed for a device, and random choices among them.
#pragma once

#include "mxfp4_rig.hpp"

#include <array>
#include <limits>
#include <numeric>

#include <cuda/experts.hpp>

namespace nib::test {

struct RandomExperts {
  RandomExperts(int experts_, int width_, int units_, std::mt19937_64& random)
      : experts(experts_),
        width(width_),
        units(units_),
        gate_up_tiles{(units + 7) / 8 * 16, width},
        down_tiles{width, units},
        gate_up_packed(experts * gate_up_tiles.bytes()),
        down_packed(experts * down_tiles.bytes()) {
    std::normal_distribution<float> normal;
    for (int e = 0; e < experts; ++e) {
      // Rows in the order of gpt-oss: gate and value of unit 0, of unit 1, ...
      gate_up.emplace_back(2 * units, width, 112, 124, random);
      down.emplace_back(width, units, 120, 131, random);
      for (std::int64_t tile = 0; tile < gate_up_tiles.tiles(); ++tile)
        cuda::pack_tile(
            gate_up_tiles, cuda::gate_up_rows(tile, units), gate_up.back().codes.data(),
            gate_up.back().scales.data(), gate_up.back().lowered_by,
            gate_up_packed.data() + e * gate_up_tiles.bytes() + tile * gate_up_tiles.tile_bytes());
      std::copy_n(down.back().packed.data(), down_tiles.bytes(), down_packed.data() + e * down_tiles.bytes());
      gate_up_factors.push_back(std::ldexp(1.0f, gate_up.back().lowered_by));
      down_factors.push_back(std::ldexp(1.0f, down.back().lowered_by));
      for (int i = 0; i < 2 * units; ++i) gate_up_bias.push_back(normal(random));
      for (int i = 0; i < width; ++i) down_bias.push_back(normal(random));
    }
  }
  int experts, width, units;
  cuda::Mxfp4Tiles gate_up_tiles, down_tiles;
  std::vector<RandomMxfp4> gate_up, down;
  DeviceBuffer<std::byte> gate_up_packed, down_packed;
  std::vector<float> gate_up_factors, down_factors, gate_up_bias, down_bias;
};

// The experts of some tokens and their lists, as route makes them.
struct RandomChoice {
  RandomChoice(int tokens_, int experts, int chosen_, std::mt19937_64& random)
      : tokens(tokens_), chosen(chosen_) {
    for (int t = 0; t < tokens; ++t) {
      std::vector<int> ids(static_cast<std::size_t>(experts));
      std::iota(ids.begin(), ids.end(), 0);
      std::shuffle(ids.begin(), ids.end(), random);
      ids.resize(static_cast<std::size_t>(chosen));
      std::sort(ids.begin(), ids.end());
      of_token.push_back(ids);
      weight_of_token.emplace_back();
      for (int j = 0; j < chosen; ++j)
        weight_of_token.back().push_back(std::uniform_real_distribution<float>(0.01f, 1)(random));
    }
    make_lists(experts);
  }
  // The first `count` tokens alone.
  void keep(int first_token, int count, int experts) {
    of_token = {of_token.begin() + first_token, of_token.begin() + first_token + count};
    weight_of_token = {weight_of_token.begin() + first_token, weight_of_token.begin() + first_token + count};
    tokens = count;
    make_lists(experts);
  }
  void make_lists(int experts) {
    first.clear();
    token.clear();
    weight.clear();
    active.clear();
    entry_of_token.assign(static_cast<std::size_t>(tokens * chosen), 0);
    for (int e = 0; e < experts; ++e) {
      first.push_back(static_cast<std::int32_t>(token.size()));
      for (std::size_t t = 0; t < of_token.size(); ++t)
        for (std::size_t j = 0; j < of_token[t].size(); ++j)
          if (of_token[t][j] == e) {
            entry_of_token[t * static_cast<std::size_t>(chosen) + j] =
                static_cast<std::int32_t>(token.size());
            token.push_back(static_cast<std::int32_t>(t));
            weight.push_back(weight_of_token[t][j]);
          }
      if (static_cast<int>(token.size()) > first.back()) active.push_back(e);
    }
    first.push_back(static_cast<std::int32_t>(token.size()));
    active_count = static_cast<std::int32_t>(active.size());
  }
  cuda::ExpertLists lists() {
    return {first.data(), token.data(), weight.data(), entry_of_token.data(), active.data(), &active_count};
  }
  int tokens, chosen;
  std::vector<std::vector<int>> of_token;
  std::vector<std::vector<float>> weight_of_token;
  std::vector<std::int32_t> first, token, entry_of_token, active;
  std::vector<float> weight;
  std::int32_t active_count = 0;
};

struct ExpertsResult {
  std::vector<std::uint16_t> hidden;  // [tokens T][units]
  std::vector<float> outputs;         // [tokens T][width]
  std::vector<float> residual;        // [tokens][width]
};
inline constexpr float kResidualBefore = 0.5f;

inline constexpr float kAlpha = 1.702f, kLimit = 7.0f;

using ExpertsFunction = Status (*)(const cuda::ExpertsMxfp4&, bool tensor_cores, int blocks, cuda::Stream);

inline ExpertsResult run_experts(RandomExperts& layer, RandomChoice& choice, RandomInputs& x, int first_token,
                                 bool tensor_cores, int blocks, simt::Emulator& emulator,
                                 ExpertsFunction experts = cuda::experts_mxfp4) {
  const std::int64_t entries = choice.tokens * choice.chosen, hidden_stride = round_up(layer.units, 64) + 8;
  DeviceBuffer<std::uint16_t> hidden(entries * hidden_stride);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> outputs(static_cast<std::size_t>(entries * layer.width), nan);
  std::vector<float> residual(static_cast<std::size_t>(choice.tokens * layer.width), kResidualBefore);
  std::vector<std::int32_t> counters(static_cast<std::size_t>(blocks)),
      tile_counters(static_cast<std::size_t>(layer.down_tiles.tiles()));
  cuda::ExpertsMxfp4 call{.lists = choice.lists(),
                          .tokens = choice.tokens,
                          .chosen = choice.chosen,
                          .units = layer.units,
                          .gate_up = layer.gate_up_tiles,
                          .gate_up_weights = layer.gate_up_packed.data(),
                          .gate_up_factors = layer.gate_up_factors.data(),
                          .gate_up_bias = layer.gate_up_bias.data(),
                          .down = layer.down_tiles,
                          .down_weights = layer.down_packed.data(),
                          .down_factors = layer.down_factors.data(),
                          .down_bias = layer.down_bias.data(),
                          .alpha = kAlpha,
                          .limit = kLimit,
                          .x = x.row(first_token),
                          .x_stride = x.stride,
                          .hidden = hidden.data(),
                          .hidden_stride = hidden_stride,
                          .outputs = outputs.data(),
                          .residual = residual.data(),
                          .residual_stride = layer.width,
                          .scratch = nullptr,
                          .counters = counters.data(),
                          .tile_counters = tile_counters.data()};
  DeviceBuffer<float> scratch(cuda::experts_scratch(call, blocks), nan);
  call.scratch = scratch.data();
  const Status status = experts(call, tensor_cores, blocks, &emulator);
  CAPTURE(status.message());
  REQUIRE(status.ok());
  const auto zero = [](std::int32_t n) { return n == 0; };
  CHECK(std::all_of(counters.begin(), counters.end(), zero));
  CHECK(std::all_of(tile_counters.begin(), tile_counters.end(), zero));
  ExpertsResult result{{}, outputs, residual};
  for (std::int64_t entry = 0; entry < entries; ++entry) {
    const std::uint16_t* const row = hidden.data() + entry * hidden_stride;
    result.hidden.insert(result.hidden.end(), row, row + layer.units);
    CHECK(std::all_of(row + layer.units, row + hidden_stride, [](std::uint16_t n) { return n == 0; }));
  }
  return result;
}

}  // namespace nib::test
