// Attention over paged keys and values, a group of query heads at a time.
//
// Canonical order: positions are cut into chunks of 256 aligned to position 0. In a chunk, scores are chains
// over the pairs of head dimensions; the maximum is over visible keys; probabilities are summed in sixteen
// chains and a tree; the output is a chain over pairs of keys. Chunks combine in order of position, the sink
// joins last. A masked key is never multiplied: its half of a pair is zeroed.
#pragma once

#include "math.hpp"
#include <nibble/base/float16.hpp>
#include <nibble/kernels/ops.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cpu {

inline constexpr int kChunk = 256;
inline constexpr int kMaxHeadDim = 256;  // what model/config.hpp lets through

// How stored keys and values meet q and p. A block is [pairs][width] of (even, odd); lanes run along the
// width.
template <class A>
struct StoredBf16Pairs {  // both sides bf16, multiplied by the pair dot
  using Q = std::uint32_t;
  static constexpr int kBytes = 2;
  static Q join(float even, float odd) {
    return to_bf16(even).bits | static_cast<std::uint32_t>(to_bf16(odd).bits) << 16;
  }
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
struct StoredBf16Floats {
  using Q = EvenOdd;
  static constexpr int kBytes = 2;
  static Q join(float even, float odd) { return {even, odd}; }
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
struct StoredF32 {
  using Q = EvenOdd;
  static constexpr int kBytes = 4;
  static Q join(float even, float odd) { return {even, odd}; }
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

// One row, N query heads of one kv head.
template <class A, class Stored, int N>
class HeadGroup {
  using F = typename A::F;
  using Q = typename Stored::Q;

 public:
  HeadGroup(const AttentionArgs& args, bool round, std::int64_t row, int head, int kv_head)
      : args_(args),
        kv_(args.kv_rows[row]),
        round_(round),
        dim_(args.kv.head_dim),
        padded_(args.kv.padded_dim()) {
    block_ = args.layer_offset + static_cast<std::size_t>(kv_head) * 2 * args.kv.block_bytes();
    const float* q = args.qkv + row * args.qkv_stride + head * dim_;
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < dim_ / 2; ++i)
        q_[n][i] = Stored::join(rounded(q[n * dim_ + 2 * i]), rounded(q[n * dim_ + 2 * i + 1]));
    const std::int64_t end = kv_.position + 1;
    const std::int64_t begin = args.window > 0 ? std::max<std::int64_t>(0, end - args.window) : 0;
    bool first = true;
    for (std::int64_t chunk = begin / kChunk * kChunk; chunk < end; chunk += kChunk, first = false)
      add_chunk(chunk, std::max(begin, chunk), std::min<std::int64_t>(end, chunk + kChunk), first);
    float* out = args.out + row * args.out_stride + head * dim_;
    for (int n = 0; n < N; ++n) finish(n, args.sinks ? &args.sinks[head + n] : nullptr, out + n * dim_);
  }

 private:
  float rounded(float x) const { return round_ ? to_float(to_bf16(x)) : x; }
  const std::byte* keys(std::int64_t page) const { return kv_.pages[page - kv_.first_page] + block_; }
  const std::byte* values(std::int64_t page) const { return keys(page) + args_.kv.block_bytes(); }

  // Visible positions [begin, end) of the chunk that starts at `chunk`.
  void add_chunk(std::int64_t chunk, std::int64_t begin, std::int64_t end, bool first) {
    for (std::int64_t at = begin / 16 * 16; at < end; at += 16) score_keys(at, at - chunk);
    for (int n = 0; n < N; ++n) {
      std::fill(score_[n] + (begin / 16 * 16 - chunk), score_[n] + (begin - chunk), kHidden);
      std::fill(score_[n] + (end - chunk), score_[n] + ((end + 15) / 16 * 16 - chunk), kHidden);
      const float largest = weigh_keys(n, begin - chunk, end - chunk);
      rescale_[n] = 0;
      if (first) {
        max_[n] = largest;
        sum_[n] = chunk_sum_[n];
      } else {
        const float joint = std::max(max_[n], largest);
        rescale_[n] = exp1<A>(max_[n] - joint);
        weight_[n] = exp1<A>(largest - joint);
        sum_[n] = sum_[n] * rescale_[n] + chunk_sum_[n] * weight_[n];
        max_[n] = joint;
      }
    }
    for (int lane = 0; lane < padded_; lane += 16) add_values(chunk, begin, end, lane, first);
  }

  // Scores of sixteen keys from position `at`.
  void score_keys(std::int64_t at, std::int64_t into) {
    const std::byte* block = keys(at / kPagePositions);
    F acc[N];
    for (auto& a : acc) a = A::set(0.0f);
    for (int i = 0; i < dim_ / 2; ++i) {
      const auto raw = Stored::load(block, i, kPagePositions, at % kPagePositions);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[n] = Stored::mac(acc[n], raw, q_[n][i]);
    }
    const F scale = A::set(args_.scale);
    for (int n = 0; n < N; ++n) A::store(score_[n] + into, A::mul(acc[n], scale));
  }

  // Scores to probabilities relative to their maximum, which it returns.
  float weigh_keys(int n, std::int64_t begin, std::int64_t end) {
    const std::int64_t from = begin / 16 * 16, to = (end + 15) / 16 * 16;
    F largest = A::set(kHidden);
    for (std::int64_t i = from; i < to; i += 16) largest = A::max(largest, A::load(score_[n] + i));
    const float max = A::largest(largest);
    F sum = A::set(0.0f);
    for (std::int64_t i = from; i < to; i += 16) {
      F p = exp<A>(A::sub(A::load(score_[n] + i), A::set(max)));
      if (round_) p = A::round_bf16(p);
      sum = A::add(sum, p);
      float lanes[16];
      A::store(lanes, p);
      for (int j = 0; j < 8; ++j) p_[n][i / 2 + j] = Stored::join(lanes[2 * j], lanes[2 * j + 1]);
    }
    chunk_sum_[n] = A::sum(sum);
    return max;
  }

  // Sixteen dimensions of the chunk's weighted values, joined to what earlier chunks gave.
  void add_values(std::int64_t chunk, std::int64_t begin, std::int64_t end, int lane, bool first) {
    F acc[N];
    for (auto& a : acc) a = A::set(0.0f);
    for (std::int64_t pair = begin / 2; pair < (end + 1) / 2; ++pair) {
      const std::int64_t position = 2 * pair;
      auto raw =
          Stored::load(values(position / kPagePositions), position % kPagePositions / 2, padded_, lane);
      const bool even = position >= begin, odd = position + 1 < end;
      if (!(even && odd)) raw = Stored::keep(raw, even, odd);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[n] = Stored::mac(acc[n], raw, p_[n][pair - chunk / 2]);
    }
    for (int n = 0; n < N; ++n) {
      float* out = out_[n] + lane;
      if (!first) acc[n] = A::fma(acc[n], A::set(weight_[n]), A::mul(A::load(out), A::set(rescale_[n])));
      A::store(out, acc[n]);
    }
  }

  void finish(int n, const float* sink, float* out) {
    float factor = 1.0f, total = sum_[n];
    if (sink) {
      const float joint = std::max(max_[n], *sink);
      factor = exp1<A>(max_[n] - joint);
      total = total * factor + exp1<A>(*sink - joint);
    }
    factor /= total;
    for (int i = 0; i < dim_; ++i) out[i] = out_[n][i] * factor;
  }

  static constexpr float kHidden = -std::numeric_limits<float>::infinity();
  const AttentionArgs& args_;
  const KvRow& kv_;
  bool round_;
  int dim_, padded_;
  std::size_t block_;
  float max_[N], sum_[N], chunk_sum_[N], rescale_[N], weight_[N];
  alignas(64) Q q_[N][kMaxHeadDim / 2];
  alignas(64) float score_[N][kChunk];
  alignas(64) Q p_[N][kChunk / 2];
  alignas(64) float out_[N][kMaxHeadDim];
};

template <class A, class Stored, int N>
void attend_heads(const AttentionArgs& args, bool round, std::int64_t row, int head, int kv_head, int left) {
  for (; left >= N; left -= N, head += N) HeadGroup<A, Stored, N>(args, round, row, head, kv_head);
  if constexpr (N > 1)
    if (left > 0) attend_heads<A, Stored, N / 2>(args, round, row, head, kv_head, left);
}

template <class A, class Stored>
void attend(const OpContext& context, const AttentionArgs& args) {
  const std::int64_t items = args.rows * args.kv.kv_heads;
  const int group = args.heads / args.kv.kv_heads;
  const bool round = context.numerics == Numerics::bf16;
  context.pool->run([&](int index, int count) {
    for (std::int64_t i = index; i < items; i += count) {
      const auto kv_head = static_cast<int>(i % args.kv.kv_heads);
      attend_heads<A, Stored, A::kHeadBlock>(args, round, i / args.kv.kv_heads, kv_head * group, kv_head,
                                             group);
    }
  });
}

// The stored format is a property of the session's pages: chosen once per call, not per row.
template <class A>
void attention(const OpContext& context, const AttentionArgs& args) {
  if (args.kv.format == KvFormat::f32) return attend<A, StoredF32<A>>(context, args);
  if constexpr (A::kPairDot)
    if (context.numerics == Numerics::bf16) return attend<A, StoredBf16Pairs<A>>(context, args);
  attend<A, StoredBf16Floats<A>>(context, args);
}

// Rotates one head in place: the first half of its dimensions against the second (half-split pairing).
template <class A>
void rotate(float* head, int dim, const float* cos, const float* sin) {
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

// Writes one head's key and value into its slot of the page.
template <class A>
void append_key_value(const KvLayout& kv, std::byte* block, std::int64_t slot, const float* key,
                      const float* value) {
  std::byte* values = block + kv.block_bytes();
  const std::int64_t padded = kv.padded_dim();
  if (kv.format == KvFormat::f32) {
    auto* k = reinterpret_cast<float*>(block);
    auto* v = reinterpret_cast<float*>(values);
    for (std::int64_t d = 0; d < kv.head_dim; ++d) {
      k[d * kPagePositions + slot] = key[d];
      v[slot * padded + d] = value[d];
    }
    return;
  }
  auto* k = reinterpret_cast<std::uint16_t*>(block);
  auto* v = reinterpret_cast<std::uint16_t*>(values);
  for (std::int64_t d = 0; d < kv.head_dim; ++d) {
    k[(d / 2 * kPagePositions + slot) * 2 + d % 2] = to_bf16(key[d]).bits;
    v[(slot / 2 * padded + d) * 2 + slot % 2] = to_bf16(value[d]).bits;
  }
}

}  // namespace nib::inline v0::cpu
