// Emulator: what all instructions of tensor cores have in common (words.cpp).
#pragma once

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kProductDepth = 16;

// A bf16's value, subnormal or not.
double widen_bf16(std::uint32_t bits);

// before + the sum of sixteen exact products, as tensor cores have been seen to add.
float add_products(float before, const double* products);

}  // namespace nib::inline v0::cuda
