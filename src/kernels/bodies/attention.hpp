// Attention over paged keys and values, a group of query heads at a time.
//
// Canonical order: positions are cut into chunks of 256 aligned to position 0. In a chunk, scores are chains
// over the pairs of head dimensions; the maximum is over visible keys; probabilities are summed in sixteen
// chains and a tree; the output is a chain over pairs of keys. Chunks combine in order of position, the sink
// joins last. A masked key is never multiplied: its half of a pair is zeroed.
#pragma once

#include "exact.hpp"
#include "math.hpp"
#include "stored_kv.hpp"
#include <nibble/base/float16.hpp>
#include <nibble/kernels/ops.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cpu {

inline constexpr int kChunk = 256;
inline constexpr int kMaxHeadDim = 256;  // what model/config.hpp lets through

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
        fetches_(head == kv_head * (args.heads / args.kv.kv_heads)),
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
  // Of sixteen positions from a multiple of sixteen.
  F scales(const std::byte* block, std::int64_t position) const {
    return A::load(reinterpret_cast<const float*>(block + args_.kv.code_bytes()) + position % kPagePositions);
  }
  F key_scales(std::int64_t position) const { return scales(keys(position / kPagePositions), position); }
  F value_scales(std::int64_t position) const { return scales(values(position / kPagePositions), position); }

  // Visible positions [begin, end) of the chunk that starts at `chunk`.
  void add_chunk(std::int64_t chunk, std::int64_t begin, std::int64_t end, bool first) {
    for (std::int64_t at = begin / 16 * 16; at < end; at += 16) score_keys(at, at - chunk);
    for (int n = 0; n < N; ++n) {
      std::fill(score_[n] + (begin / 16 * 16 - chunk), score_[n] + (begin - chunk), kHidden);
      std::fill(score_[n] + (end - chunk), score_[n] + ((end + 15) / 16 * 16 - chunk), kHidden);
      const float largest = weigh_keys(n, chunk, begin - chunk, end - chunk);
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

  // Scores of sixteen keys from position `at`. Meanwhile what is needed next is on its way: a quarter of the
  // values of this page, of which each line has another dimension, and a quarter of the keys of the next.
  // Lines of a block are too far apart for processors to see what comes; and asked for all at once they would
  // wait for one another, and with them the keys at hand.
  void score_keys(std::int64_t at, std::int64_t into) {
    const std::int64_t page = at / kPagePositions;
    const std::byte* block = keys(page);
    const std::size_t part = args_.kv.block_bytes() / (kPagePositions / 16);
    const std::size_t from = static_cast<std::size_t>(at % kPagePositions / 16) * part;
    const bool more = page < kv_.position / kPagePositions;
    const std::byte *next_keys = (more ? keys(page + 1) : block) + from, *these = values(page) + from;
    const auto lines = static_cast<int>(part / 64);
    F acc[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[n] = A::set(0.0f);
    for (int i = 0; i < dim_ / 2; ++i) {
      if (fetches_ && i < lines) {
        __builtin_prefetch(next_keys + i * 64);
        __builtin_prefetch(these + i * 64);
      }
      const auto raw = Stored::load(block, i, kPagePositions, at % kPagePositions);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[n] = Stored::mac(acc[n], raw, q_[n][i]);
    }
    F scale = A::set(args_.scale);
    if constexpr (Stored::kScaled) scale = A::mul(scale, key_scales(at));
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) A::store(score_[n] + into, A::mul(acc[n], scale));
  }

  // Scores to probabilities relative to their maximum, which it returns.
  // Where values have scales, what meets the values is the probability times the scale of its position.
  float weigh_keys(int n, std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    const std::int64_t from = begin / 16 * 16, to = (end + 15) / 16 * 16;
    F largest = A::set(kHidden);
    for (std::int64_t i = from; i < to; i += 16) largest = A::max(largest, A::load(score_[n] + i));
    const float max = A::largest(largest);
    F sum = A::set(0.0f);
    for (std::int64_t i = from; i < to; i += 16) {
      F p = exp<A>(A::sub(A::load(score_[n] + i), A::set(max)));
      if constexpr (Stored::kScaled) {
        sum = A::add(sum, p);
        // Hidden positions have no probability, and perhaps no scale yet.
        const F zero = A::set(0.0f);
        p = A::if_less(zero, p, A::mul(p, value_scales(chunk + i)), p);
        if (round_) p = A::round_bf16(p);
      } else {
        if (round_) p = A::round_bf16(p);
        sum = A::add(sum, p);
      }
      Stored::join(p, &p_[n][i / 2]);
    }
    chunk_sum_[n] = A::sum(sum);
    return max;
  }

  // Sixteen dimensions of the chunk's weighted values, joined to what earlier chunks gave.
  void add_values(std::int64_t chunk, std::int64_t begin, std::int64_t end, int lane, bool first) {
    F acc[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[n] = A::set(0.0f);
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t page = at / kPagePositions, start = page * kPagePositions,
                         stop = std::min<std::int64_t>(end, start + kPagePositions);
      const std::byte* block = values(page);
      const std::int64_t first_pair = (start - chunk) / 2;
      const auto load = [&](std::int64_t pair) { return Stored::load(block, pair, padded_, lane); };
      const auto add = [&](std::int64_t pair, auto raw) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) acc[n] = Stored::mac(acc[n], raw, p_[n][first_pair + pair]);
      };
      // Only the first pair and the last may have a hidden half.
      const std::int64_t low = at - start, high = stop - start;
      if (low % 2 != 0) add(low / 2, Stored::keep(load(low / 2), false, true));
      for (std::int64_t pair = (low + 1) / 2; pair < high / 2; ++pair) add(pair, load(pair));
      if (high % 2 != 0) add(high / 2, Stored::keep(load(high / 2), true, false));
      at = stop;
    }
#pragma GCC unroll 8
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
    for (int i = 0; i < dim_; ++i) out[i] = mul_canonical(out_[n][i], factor);
  }

  static constexpr float kHidden = -std::numeric_limits<float>::infinity();
  const AttentionArgs& args_;
  const KvRow& kv_;
  bool round_, fetches_;  // the first of the heads that share keys and values fetches for all
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
  for (; left >= N; left -= N, head += N)
    exactly<A>(
        [&]<class B>(Verbs<B>) { HeadGroup<B, Rebound<Stored, B>, N>(args, round, row, head, kv_head); });
  if constexpr (N > 1)
    if (left > 0) attend_heads<A, Stored, N / 2>(args, round, row, head, kv_head, left);
}

template <class A, class Stored>
void attend(const OpContext& context, const AttentionArgs& args) {
  const std::int64_t items = args.rows * args.kv.kv_heads;
  const int group = args.heads / args.kv.kv_heads;
  const bool round = rounds_to_bf16(context.numerics);
  context.pool->run([&](int index, int count) {
    for (std::int64_t i = index; i < items; i += count) {
      const auto kv_head = static_cast<int>(i % args.kv.kv_heads);
      attend_heads<A, Stored, A::kHeadBlock>(args, round, i / args.kv.kv_heads, kv_head * group, kv_head,
                                             group);
    }
  });
}

template <class Pairs, class Floats>
struct Stored {};

// The stored format is a property of the session's pages: chosen once per call, not per row.
template <class A>
void attention(const OpContext& context, const AttentionArgs& args) {
  const auto with = [&]<class Pairs, class Floats>(Stored<Pairs, Floats>) {
    if constexpr (A::kPairDot)
      if (rounds_to_bf16(context.numerics)) return attend<A, Pairs>(context, args);
    attend<A, Floats>(context, args);
  };
  switch (args.kv.format) {
    case KvFormat::f32:
      return attend<A, StoredF32<A>>(context, args);
    case KvFormat::int8:
      return with(Stored<StoredBytePairs<A, Int8Codes>, StoredByteFloats<A, Int8Codes>>{});
    case KvFormat::fp8:
      return with(Stored<StoredBytePairs<A, E4M3Codes>, StoredByteFloats<A, E4M3Codes>>{});
    default:
      return with(Stored<StoredBf16Pairs<A>, StoredBf16Floats<A>>{});
  }
}

// Rotates one head in place: the first half of its dimensions against the second (half-split pairing).
template <class A>
void rotate(float* head, int dim, const float* cos, const float* sin) {
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = mul_canonical(a, cos[i]) - mul_canonical(b, sin[i]);
    head[i + half] = mul_canonical(b, cos[i]) + mul_canonical(a, sin[i]);
  }
}

}  // namespace nib::inline v0::cpu
