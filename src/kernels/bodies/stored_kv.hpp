// Keys and values as pages hold them (drawn in ops.hpp): how they meet q and p, and how they are written.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/small_floats.hpp>
#include <nibble/kernels/ops.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cpu {

// How stored keys and values meet q and p. A block is [pairs][width] of (even, odd); lanes run along the
// width.
template <class A>
struct StoredBf16Pairs {  // both sides bf16, multiplied by the pair dot
  using Q = std::uint32_t;
  static constexpr bool kScaled = false;
  static constexpr int kBytes = 2;  // of a number
  // The pairs of sixteen numbers of bf16.
  static void join(typename A::F x, Q* to) { A::store_bf16(to, x); }
  using Raw = typename A::P;
  static Raw load(const std::byte* block, std::int64_t pair, std::int64_t width, std::int64_t lane) {
    return A::load_pairs(block + (pair * width + lane) * 4);
  }
  static Raw keep(Raw raw, bool even, bool odd) {
    return A::keep(raw, (even ? 0xffffu : 0u) | (odd ? 0xffff0000u : 0u));
  }
  static typename A::F mac(typename A::F acc, Raw raw, Q q) { return A::dot(acc, raw, q); }
};

struct EvenOdd {
  float even, odd;
};
template <class A>
struct JoinFloats {
  using Q = EvenOdd;
  static void join(typename A::F x, Q* to) { A::store(&to->even, x); }
};

template <class A>
struct StoredBf16Floats : JoinFloats<A> {
  static constexpr bool kScaled = false;
  static constexpr int kBytes = 2;
  using Q = EvenOdd;
  using Raw = typename A::P;
  static Raw load(const std::byte* block, std::int64_t pair, std::int64_t width, std::int64_t lane) {
    return A::load_pairs(block + (pair * width + lane) * 4);
  }
  static Raw keep(Raw raw, bool even, bool odd) {
    return A::keep(raw, (even ? 0xffffu : 0u) | (odd ? 0xffff0000u : 0u));
  }
  static typename A::F mac(typename A::F acc, Raw raw, Q q) {
    return A::fma(A::even(raw), A::set(q.even), A::fma(A::odd(raw), A::set(q.odd), acc));
  }
};

template <class A>
struct StoredF32 : JoinFloats<A> {
  using Q = EvenOdd;
  static constexpr bool kScaled = false;
  static constexpr int kBytes = 4;
  struct Raw {
    typename A::F even, odd;
  };
  static Raw load(const std::byte* block, std::int64_t pair, std::int64_t width, std::int64_t lane) {
    const auto* floats = reinterpret_cast<const float*>(block) + pair * 2 * width + lane;
    return {A::load(floats), A::load(floats + width)};
  }
  static Raw keep(Raw raw, bool even, bool odd) {
    return {even ? raw.even : A::set(0.0f), odd ? raw.odd : A::set(0.0f)};
  }
  static typename A::F mac(typename A::F acc, const Raw& raw, Q q) {
    return A::fma(raw.even, A::set(q.even), A::fma(raw.odd, A::set(q.odd), acc));
  }
};

// A byte each, and a scale for each position, which meets the sum over a head's dimensions (keys) or the
// probability (values). Codes are numbers that bf16 holds exactly.
struct Int8Codes {
  static constexpr float kLargest = 127;
  static constexpr bool kTwos = true;
  static constexpr float magnitude(int code) { return static_cast<float>(code); }
  [[gnu::always_inline]] static std::byte encode(float x) {
    return static_cast<std::byte>(static_cast<std::int8_t>(std::lrintf(x)));
  }
  template <class A>
  static typename A::F load(const std::byte* from) {
    return A::load_i8(from);
  }
};
struct E4M3Codes {
  static constexpr float kLargest = 448;
  static constexpr bool kTwos = false;
  // (127, a NaN there, is never written.)
  static constexpr float magnitude(int code) { return E4M3::decode(static_cast<E4M3::Code>(code)); }
  // Of |x| below 464, what lies beyond would be 480: below 2^-6 in steps of 2^-9, else rounded to three bits
  // behind the leading one.
  [[gnu::always_inline]] static std::byte encode(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x), size = bits & 0x7fff'ffffu;
    const std::uint32_t code = size < 0x3c80'0000u
                                   ? static_cast<std::uint32_t>(std::lrintf(std::abs(x) * 0x1p9f))
                                   : ((size + 0x7'ffffu + (size >> 20 & 1u)) >> 20) - (120u << 3);
    return static_cast<std::byte>(code | (bits >> 24 & 0x80u));
  }
  template <class A>
  static typename A::F load(const std::byte* from) {
    return A::load_e4m3(from);
  }
};

template <class A, class Codes>
struct StoredByteFloats : StoredF32<A> {
  static constexpr bool kScaled = true;
  static constexpr int kBytes = 1;
  using Raw = typename StoredF32<A>::Raw;
  static Raw load(const std::byte* block, std::int64_t pair, std::int64_t width, std::int64_t lane) {
    const std::byte* bytes = block + pair * 2 * width + lane;
    return {Codes::template load<A>(bytes), Codes::template load<A>(bytes + width)};
  }
};

// The upper halves of the magnitudes of all codes.
template <class Codes>
inline constexpr auto kCodeWords = [] {
  std::array<std::uint16_t, 128> words{};
  for (int code = 0; code < 128; ++code)
    words[static_cast<std::size_t>(code)] =
        static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(Codes::magnitude(code)) >> 16);
  return words;
}();

template <class A, class Codes>
struct StoredBytePairs : StoredBf16Pairs<A> {
  static constexpr bool kScaled = true;
  static constexpr int kBytes = 1;
  static typename A::P load(const std::byte* block, std::int64_t pair, std::int64_t width,
                            std::int64_t lane) {
    const auto raw = StoredByteFloats<A, Codes>::load(block, pair, width, lane);
    return A::pairs(raw.even, raw.odd);
  }
  // Two vectors side by side.
  static void load_two(const std::byte* block, std::int64_t pair, std::int64_t width, std::int64_t lane,
                       typename A::P* to) {
    const std::byte* even = block + pair * 2 * width + lane;
    A::template signed_pairs<kCodeWords<Codes>, Codes::kTwos>(even, even + width, to);
  }
};

// T vectors side by side.
template <class Stored, int T>
struct StoredVectors {
  typename Stored::Raw of[T];
};
template <class Stored, int T>
[[gnu::always_inline]] inline StoredVectors<Stored, T> load_vectors(const std::byte* block, std::int64_t pair,
                                                                    std::int64_t width, std::int64_t lane) {
  StoredVectors<Stored, T> vectors;
  if constexpr (T % 2 == 0 && requires { Stored::load_two; }) {
#pragma GCC unroll 2
    for (int t = 0; t < T; t += 2) Stored::load_two(block, pair, width, lane + 16 * t, &vectors.of[t]);
  } else {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) vectors.of[t] = Stored::load(block, pair, width, lane + 16 * t);
  }
  return vectors;
}

// put(d, k, v) for each dimension d: where it stands in the block of keys, and in that of values.
template <class A, class Put>
void for_each_place(const KvLayout& kv, std::int64_t slot, Put put) {
  const std::int64_t padded = kv.padded_dim();
  const bool side_by_side = kv.format == KvFormat::bf16;  // even and odd; else apart
  for (std::int64_t d = 0; d < kv.head_dim; ++d) {
    const std::int64_t key =
        side_by_side ? (d / 2 * kPagePositions + slot) * 2 + d % 2 : d * kPagePositions + slot;
    const std::int64_t value = side_by_side ? (slot / 2 * padded + d) * 2 + slot % 2 : slot * padded + d;
    put(d, key, value);
  }
}

// The scale of one head's numbers at one position: the largest magnitude becomes the largest code. Below
// 2^-100 all codes are zero; what is not finite leaves a scale that is not.
template <class A, class Codes>
struct HeadScale {
  float scale = 0, inverse = 0;
  HeadScale(const float* x, int dim) {
    float most = 0;
    for (int d = 0; d < dim; ++d)
      if (const float size = std::abs(x[d]); size > most || size != size) most = size;  // a NaN stays
    if (most < 0x1p-100f) return;
    scale = most / Codes::kLargest;
    inverse = std::isfinite(most) ? Codes::kLargest / most : 0;
  }
  std::byte code(float x) const { return inverse == 0 ? std::byte{0} : Codes::encode(x * inverse); }
};

template <class A, class Codes>
void append_bytes(const KvLayout& kv, std::byte* block, std::int64_t slot, const float* key,
                  const float* value) {
  std::byte* values = block + kv.block_bytes();
  const HeadScale<A, Codes> of_key(key, kv.head_dim), of_value(value, kv.head_dim);
  for_each_place<A>(kv, slot, [&](std::int64_t d, std::int64_t k, std::int64_t v) {
    block[k] = of_key.code(key[d]);
    values[v] = of_value.code(value[d]);
  });
  reinterpret_cast<float*>(block + kv.code_bytes())[slot] = of_key.scale;
  reinterpret_cast<float*>(values + kv.code_bytes())[slot] = of_value.scale;
}

// Writes one head's key and value into its slot of the page.
template <class A>
void append_key_value(const KvLayout& kv, std::byte* block, std::int64_t slot, const float* key,
                      const float* value) {
  if (kv.format == KvFormat::int8) return append_bytes<A, Int8Codes>(kv, block, slot, key, value);
  if (kv.format == KvFormat::fp8) return append_bytes<A, E4M3Codes>(kv, block, slot, key, value);
  std::byte* values = block + kv.block_bytes();
  for_each_place<A>(kv, slot, [&](std::int64_t d, std::int64_t k, std::int64_t v) {
    if (kv.format == KvFormat::f32) {
      reinterpret_cast<float*>(block)[k] = key[d];
      reinterpret_cast<float*>(values)[v] = value[d];
    } else {
      reinterpret_cast<bf16*>(block)[k] = to_bf16(key[d]);
      reinterpret_cast<bf16*>(values)[v] = to_bf16(value[d]);
    }
  });
}

}  // namespace nib::inline v0::cpu
