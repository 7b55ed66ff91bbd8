// A layer of random experts on a device, random choices among them, and the op.
#pragma once

#include "device_rig.hpp"

#include <array>
#include <numeric>

namespace nib::test {

// Of each row its experts in increasing id, and their weights; and the lists that route makes of them.
struct Choice {
  Choice(std::int64_t rows, int experts_, int chosen_, Random& random) : experts(experts_), chosen(chosen_) {
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<int> ids(static_cast<std::size_t>(experts));
      std::iota(ids.begin(), ids.end(), 0);
      for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.bits() % i]);
      ids.resize(static_cast<std::size_t>(chosen));
      std::sort(ids.begin(), ids.end());
      of_row.push_back(ids);
      std::vector<float> weights;
      for (int j = 0; j < chosen; ++j)
        weights.push_back(experts == 1 ? 1 : 0.01f + static_cast<float>(random.below(100)) * 0.01f);
      weight_of_row.push_back(weights);
    }
    make_lists();
  }
  // Some of the rows alone.
  Choice part(std::int64_t from, std::int64_t count) const {
    Choice out = *this;
    out.of_row = {of_row.begin() + from, of_row.begin() + from + count};
    out.weight_of_row = {weight_of_row.begin() + from, weight_of_row.begin() + from + count};
    out.make_lists();
    return out;
  }
  void make_lists() {
    first.clear();
    row.clear();
    weight.clear();
    entry_of_row.assign(of_row.size() * static_cast<std::size_t>(chosen), 0);
    for (int e = 0; e < experts; ++e) {
      first.push_back(static_cast<std::int32_t>(row.size()));
      for (std::size_t r = 0; r < of_row.size(); ++r)
        for (std::size_t j = 0; j < of_row[r].size(); ++j)
          if (of_row[r][j] == e) {
            entry_of_row[r * static_cast<std::size_t>(chosen) + j] = static_cast<std::int32_t>(row.size());
            row.push_back(static_cast<std::int32_t>(r));
            weight.push_back(weight_of_row[r][j]);
          }
    }
    first.push_back(static_cast<std::int32_t>(row.size()));
  }
  std::int64_t rows() const { return static_cast<std::int64_t>(of_row.size()); }
  Routing routing() {
    return {row.data(), weight.data(), first.data(), entry_of_row.data(), nullptr, nullptr};
  }

  int experts, chosen;
  std::vector<std::vector<int>> of_row;
  std::vector<std::vector<float>> weight_of_row;
  DeviceVector<std::int32_t> first, row, entry_of_row;
  DeviceVector<float> weight;
};

struct ExpertLayer {
  struct Formats {
    Format gate_up, down;
  };
  ExpertLayer(Formats formats, Activation activation_, int count, std::int64_t width_, std::int64_t units_,
              bool has_bias, Random& random)
      : activation(activation_),
        experts(count),
        width(width_),
        units(units_),
        gate_up(formats.gate_up, count, is_gated(activation) ? 2 * row_stride(units) : units, width, random,
                is_gated(activation) ? DeviceRows::gate_up : DeviceRows::consecutive),
        down(formats.down, count, width, units, random),
        gate_up_bias(has_bias ? count * gate_up.shape().strips() * 16 : 0, kNoNumber),
        down_bias(has_bias ? count * row_stride(width) : 0, kNoNumber) {
    for (int e = 0; has_bias && e < count; ++e) {
      for (std::int64_t u = 0; u < units; ++u)
        for (int up = 0; up <= static_cast<int>(is_gated(activation)); ++up)
          bias_of(e, u, up) = random.normal();
      for (std::int64_t i = 0; i < width; ++i) down_bias[e * row_stride(width) + i] = random.normal();
    }
  }
  // The row of the gate (or of the up, or without a gate of the value) of a unit.
  std::int64_t row_of(std::int64_t unit, int up) const {
    return is_gated(activation) ? unit / 16 * 32 + up * 16 + unit % 16 : unit;
  }
  float& bias_of(int expert, std::int64_t unit, int up) const {
    return gate_up_bias[expert * gate_up.shape().strips() * 16 + row_of(unit, up)];
  }
  bool has_bias() const { return down_bias.size > 0; }

  Activation activation;
  int experts;
  std::int64_t width, units;
  DeviceMatrices gate_up, down;
  DeviceBuffer<float> gate_up_bias, down_bias;
};

struct ExpertsResult {
  std::vector<std::uint16_t> hidden;  // [entries][bf16_stride(units)]
  std::vector<float> outputs;         // [entries][row_stride(width)]
  std::vector<float> x;               // [rows][row_stride(width)]
};
inline constexpr float kBeforeExperts = 0.5f;
inline constexpr GateLimits kLimits{1.702f, 7.0f};

inline ExpertsArgs arguments_of(const ExpertLayer& layer, Choice& choice) {
  ExpertsArgs args{};
  args.rows = choice.rows();
  args.experts = layer.experts;
  args.experts_per_token = choice.chosen;
  if (layer.experts > 1) args.routing = choice.routing();  // else there is nothing to look up
  args.gate_up = layer.gate_up.on_device.data();
  args.gate_up_bias = layer.has_bias() ? layer.gate_up_bias.data() : nullptr;
  args.down = layer.down.on_device.data();
  args.down_bias = layer.has_bias() ? layer.down_bias.data() : nullptr;
  args.width = layer.units;
  args.gate = kLimits;
  args.activation = layer.activation;
  return args;
}

// Rows of `x` from `first` on, as many as there are choices.
inline ExpertsResult run_experts(const ExpertLayer& layer, Choice choice, const DeviceInputs& x,
                                 std::int64_t first, const TestQueue& queue, const ExpertSlots& slots = {}) {
  const std::int64_t entries = choice.rows() * choice.chosen, stride = row_stride(layer.width),
                     hidden_stride = cuda::bf16_stride(layer.units);
  const DeviceScratch scratch(std::max(layer.width, layer.units), entries * hidden_stride);
  const DeviceBuffer<float> outputs(entries * stride, kNoNumber),
      sums(choice.rows() * stride, kBeforeExperts);
  ExpertsArgs args = arguments_of(layer, choice);
  args.normed = reinterpret_cast<const float*>(x.row(first));
  args.outputs = outputs.data();
  args.x = sums.data();
  args.slots = slots;
  OpContext context = scratch.context();
  context.may_be_fast = queue.fast;
  const Status status = queue.run(cuda::experts, context, args);
  CAPTURE(status.message());
  REQUIRE(status.ok());
  CHECK(scratch.counters_are_zero());
  for (std::int64_t i = 0; i < entries; ++i)
    for (std::int64_t u = layer.units; u < hidden_stride; ++u)
      REQUIRE(scratch.hidden[i * hidden_stride + u] == 0);
  for (std::int64_t r = 0; r < choice.rows(); ++r)
    for (std::int64_t i = layer.width; i < stride; ++i) REQUIRE(sums[r * stride + i] == kBeforeExperts);
  return {{scratch.hidden.begin(), scratch.hidden.end()},
          {outputs.begin(), outputs.end()},
          {sums.begin(), sums.end()}};
}

}  // namespace nib::test
