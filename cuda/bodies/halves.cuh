// Pairs of bf16 in a word, as f32.
#pragma once

#include "../arch.cuh"

#include <bit>
#include <cstdint>

namespace nib::inline v0::cuda {

NIB_DEVICE float low_half(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
NIB_DEVICE float high_half(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff'0000u); }

}  // namespace nib::inline v0::cuda
