// Private to the room: Llama 3's scaling of positions, which no key of a GGUF file says but a tensor: what
// frequencies are divided by.
#pragma once

#include <nibble/model/config.hpp>

#include <optional>
#include <span>
#include <vector>

namespace nib::inline v0 {

// Empty for other kinds of scaling.
std::vector<float> gguf_rope_divisors(const ModelConfig& config);

// The scaling that has these divisors [rotary_dim / 2], to their precision; plain where all are 1. Nothing
// when none has. Of the scalings that are the same to every frequency it is one with low_freq_factor 1, and
// where it may choose, with the high_freq_factor of what was published, 4.
std::optional<RopeScaling> llama3_scaling(const ModelConfig& config, std::span<const float> divisors);

}  // namespace nib::inline v0
