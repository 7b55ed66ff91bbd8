// Room kernels: the two choices that decide the bits of a result, as names.
#pragma once

#include <cstdint>

namespace nib::inline v0 {

// The precision of activations at the inputs of matrix products. Weights are never rounded; accumulation,
// residual stream, norms, softmax and RoPE are f32 in all.
enum class Numerics : std::uint8_t {
  bf16,  // activations, q, k, v and attention probabilities are rounded to bf16 where they meet a product
  f32,   // nothing is rounded; half the prefill rate
  int8,  // as bf16, but where weights are whole numbers times scales their inputs are rounded to whole
         // numbers of a byte, with a scale for every 32: the fastest, and the least exact
};
constexpr int kNumerics = 3;
constexpr const char* numerics_name(Numerics numerics) {
  constexpr const char* kNames[kNumerics] = {"bf16", "f32", "int8"};
  return kNames[static_cast<int>(numerics)];
}
// Whether q, k, v, attention probabilities and the inputs of products are rounded to bf16, those of int8
// aside.
constexpr bool rounds_to_bf16(Numerics numerics) { return numerics != Numerics::f32; }

// How keys and values are kept. `automatic` follows the numerics: f32 for f32, else bf16. int8 and fp8
// (E4M3) have one f32 scale for each head and position, and take half the memory of bf16 (at 64 dimensions a
// head, 17/32 of it).
enum class KvFormat : std::uint8_t { automatic, bf16, f32, int8, fp8 };
constexpr int kKvFormats = 5;
constexpr KvFormat resolve(KvFormat format, Numerics numerics) {
  if (format != KvFormat::automatic) return format;
  return rounds_to_bf16(numerics) ? KvFormat::bf16 : KvFormat::f32;
}
constexpr const char* kv_format_name(KvFormat format) {
  constexpr const char* kNames[kKvFormats] = {"auto", "bf16", "f32", "int8", "fp8"};
  return kNames[static_cast<int>(format)];
}
// Bytes of one number, scales aside.
constexpr int kv_bytes(KvFormat format) {
  return format == KvFormat::f32 ? 4 : format == KvFormat::bf16 ? 2 : 1;
}

}  // namespace nib::inline v0
