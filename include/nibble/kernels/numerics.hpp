// Room kernels: the two choices that decide the bits of a result, as names.
#pragma once

#include <cstdint>

namespace nib::inline v0 {

// The precision of activations at the inputs of matrix products. Weights are never rounded; accumulation,
// residual stream, norms, softmax and RoPE are f32 in both.
enum class Numerics : std::uint8_t {
  bf16,  // activations, q, k, v and attention probabilities are rounded to bf16 where they meet a product
  f32,   // nothing is rounded; half the prefill rate
};
constexpr const char* numerics_name(Numerics numerics) { return numerics == Numerics::bf16 ? "bf16" : "f32"; }

// How keys and values are kept. `automatic` follows the numerics: bf16 for bf16, f32 for f32.
enum class KvFormat : std::uint8_t { automatic, bf16, f32 };
constexpr KvFormat resolve(KvFormat format, Numerics numerics) {
  if (format != KvFormat::automatic) return format;
  return numerics == Numerics::bf16 ? KvFormat::bf16 : KvFormat::f32;
}
constexpr const char* kv_format_name(KvFormat format) {
  return format == KvFormat::bf16 ? "bf16" : format == KvFormat::f32 ? "f32" : "auto";
}

}  // namespace nib::inline v0
