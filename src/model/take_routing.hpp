// Private to the room: the arrays of a Routing, for those who lay out activations.
#pragma once

#include <nibble/kernels/ops.hpp>
#include <nibble/model/config.hpp>

#include <cstdint>

namespace nib::inline v0 {

// Calls take(pointer, count) for each, with room for `rows` rows.
template <class Take>
void take_routing(Routing& routing, const ModelConfig& config, std::int64_t rows, Take&& take) {
  const std::int64_t entries = rows * config.experts_per_token;
  take(routing.row, entries);
  take(routing.weight, entries);
  take(routing.first, config.experts + 1);
  take(routing.entry_of_row, entries);
  take(routing.chosen, entries);
  take(routing.chosen_weight, entries);
}

}  // namespace nib::inline v0
