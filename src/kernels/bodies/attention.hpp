// Attention over paged keys and values, a group of query heads at a time.
//
// Canonical order: positions are cut into chunks of 256 aligned to position 0. In a chunk, scores are chains
// over the pairs of head dimensions; the maximum is over visible keys; probabilities are summed in sixteen
// chains and a tree; the output is a chain over pairs of keys. Chunks combine in order of position, the sink
// joins last. A masked key is never multiplied: its half of a pair is zeroed. Whether a chunk is joined when
// it is done, or kept and joined later, changes no bit (attention_shares.hpp).
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

inline constexpr int kChunk = 256, kChunkPages = kChunk / kPagePositions;
inline constexpr int kMostHeads = 16;    // that pass over keys and values together
inline constexpr int kMaxHeadDim = 256;  // what model/config.hpp lets through

// Keys and values come from memory in the order of their use and evenly, a line with each line that is
// multiplied, and into the second level: values while the keys of their page are scored, keys while the
// values of the chunk before are added; between these, while scores become probabilities, the last page of
// values and the first of keys. (Asked for while keys are scored alone, memory rests through the other half:
// 13 GB/s of 31.)
struct Wanted {
  const std::byte* from;  // what the steps of a loop ask for, as many bytes as they read; null: nothing
  int turn, turns;        // of the blocks of heads that pass over the same bytes, each has its share
  [[gnu::always_inline]] Wanted after(std::size_t bytes) const {
    return {from ? from + bytes : nullptr, turn, turns};
  }
};
template <int kBytes>  // that a step reads
class AskAhead {
 public:
  [[gnu::always_inline]] explicit AskAhead(const Wanted& wanted)
      : from_(wanted.from),
        wait_(wanted.from ? wanted.turn * kSteps : -1),
        pause_(wanted.turns * kSteps - 1) {}
  [[gnu::always_inline]] void step(std::int64_t i) {
    if (wait_-- != 0) return;
    wait_ = pause_;
#pragma GCC unroll 8
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(from_ + i * kBytes + line * 64, 0, 2);
  }

 private:
  static constexpr int kSteps = kBytes < 64 ? 64 / kBytes : 1, kLines = kBytes < 64 ? 1 : kBytes / 64;
  const std::byte* from_;
  int wait_, pause_;
};

// Positions [begin, end) of the head of keys and values that some query heads of one row share.
struct Stretch {
  std::int64_t row;  // -1: there is none
  int kv_head;
  std::int64_t begin, end;
};

// What a head has of some chunks: its largest score, the sum of probabilities relative to it, and, elsewhere,
// the values by these probabilities.
struct SoftmaxSums {
  float max, sum;
};
struct JoinFactors {
  float before, chunk;
};
// Joins those of the next chunk to those of all before it; the values are joined by the factors.
template <class A>
[[gnu::always_inline]] inline JoinFactors join(SoftmaxSums& all, const SoftmaxSums& chunk) {
  const float joint = std::max(all.max, chunk.max);
  const JoinFactors by = {exp1<A>(all.max - joint), exp1<A>(chunk.max - joint)};
  all = {joint, all.sum * by.before + chunk.sum * by.chunk};
  return by;
}
template <class A>
[[gnu::always_inline]] inline typename A::F join_values(typename A::F before, typename A::F chunk,
                                                        const JoinFactors& by) {
  return A::fma(chunk, A::set(by.chunk), A::mul(before, A::set(by.before)));
}
// The sink joins all chunks of a head, and what has come together is divided by its sum.
template <class A>
void finish_values(const SoftmaxSums& all, const float* values, const float* sink, int dim, float* out) {
  float factor = 1.0f, total = all.sum;
  if (sink) {
    const float joint = std::max(all.max, *sink);
    factor = exp1<A>(all.max - joint);
    total = total * factor + exp1<A>(*sink - joint);
  }
  factor /= total;
  const int whole = dim / 16 * 16;
  for (int i = 0; i < whole; i += 16) A::store(out + i, A::mul(A::load(values + i), A::set(factor)));
  for (int i = whole; i < dim; ++i) out[i] = mul_canonical(values[i], factor);
}

// Query heads of one row that share a head of keys and values, at most kMostHeads, over a stretch of it. They
// go in blocks of N, whose sums of T vectors each the registers hold; what they read is in the first level
// after the first block.
template <class A, class Stored>
class SharedHeads {
  using F = typename A::F;
  using Q = typename Stored::Q;

 public:
  // The heads [head, head + count). `next` is what the same thread goes over next.
  SharedHeads(const AttentionArgs& args, bool round, const Stretch& of, int head, int count,
              const Stretch& next)
      : args_(args),
        of_(of),
        next_(next),
        kv_(args.kv_rows[of.row]),
        round_(round),
        first_head_(head),
        heads_(count),
        dim_(args.kv.head_dim),
        padded_(args.kv.padded_dim()),
        block_(block_of(of.kv_head)) {
    each_block([&]<int>(int, int turn) { blocks_ = turn + 1; });
    take_queries(args.qkv + of.row * args.qkv_stride + head * dim_);
  }

  // The stretch is all that the row sees: its part of args.out.
  void attend() {
    for (std::int64_t start = first_chunk(); start < of_.end; start += kChunk)
      add_chunk(chunk_at(start, start <= of_.begin));
    float* out = args_.out + of_.row * args_.out_stride + first_head_ * dim_;
    for (int n = 0; n < heads_; ++n)
      finish_values<A>(sums_[n], out_[n], args_.sinks ? &args_.sinks[first_head_ + n] : nullptr, dim_,
                       out + n * dim_);
  }

  // Calls keep(i, n, sums, values) for the i-th chunk of the stretch and the n-th of the heads; values
  // [padded_dim()] stand in whole lines.
  template <class Keep>
  void each_kept(Keep keep) {
    std::int64_t i = 0;
    for (std::int64_t start = first_chunk(); start < of_.end; start += kChunk, ++i) {
      add_chunk(chunk_at(start, true));
      for (int n = 0; n < heads_; ++n) keep(i, n, sums_[n], static_cast<const float*>(out_[n]));
    }
  }

 private:
  template <int N>
  static constexpr int kVectors = std::min(4, A::kHeadSums / N);
  // Bytes of sixteen lanes of a pair.
  static constexpr int kVectorBytes = 32 * Stored::kBytes;

  // work.operator()<N>(first head, turn) for each block.
  template <int N = A::kHeadBlock, class Work>
  [[gnu::always_inline]] void each_block(Work work, int head = 0, int turn = 0) {
    for (; heads_ - head >= N; head += N) work.template operator()<N>(head, turn++);
    if constexpr (N > 1) each_block<N / 2>(work, head, turn);
  }

  std::size_t block_of(int kv_head) const {
    return args_.layer_offset + static_cast<std::size_t>(kv_head) * 2 * args_.kv.block_bytes();
  }
  const std::byte* keys(std::int64_t page) const { return kv_.pages[page - kv_.first_page] + block_; }
  const std::byte* values(std::int64_t page) const { return keys(page) + args_.kv.block_bytes(); }
  const std::byte* scales(const std::byte* block, std::int64_t position) const {
    return block + args_.kv.code_bytes() + static_cast<std::size_t>(position % kPagePositions) * 4;
  }
  // Of sixteen positions from a multiple of sixteen.
  F value_scales(std::int64_t position) const {
    return A::load(reinterpret_cast<const float*>(scales(values(position / kPagePositions), position)));
  }

  void take_queries(const float* q) {
    for (int n = 0; n < heads_; ++n, q += dim_) {
      alignas(64) float last[16] = {};  // beyond the head may be nothing to read
      const int whole = dim_ / 16 * 16;
      for (int i = whole; i < dim_; ++i) last[i - whole] = q[i];
      for (int i = 0; i < dim_; i += 16) {
        const F x = A::load(i < whole ? q + i : last);
        Stored::join(round_ ? A::round_bf16(x) : x, &q_[n][i / 2]);
      }
    }
  }

  // Positions [begin, end) are visible of the chunk that starts at `start`.
  struct Chunk {
    std::int64_t start, begin, end;
    bool is_first;  // there is nothing to join it to
    std::int64_t first_page() const { return begin / kPagePositions; }
    std::int64_t last_page() const { return (end - 1) / kPagePositions; }
  };

  std::int64_t first_chunk() const { return of_.begin / kChunk * kChunk; }
  Chunk chunk_at(std::int64_t start, bool is_first) const {
    return {start, std::max(of_.begin, start), std::min<std::int64_t>(of_.end, start + kChunk), is_first};
  }

  // The pages of keys that are scored after those of this chunk: of the next chunk, or of whoever is next.
  struct Upcoming {
    const KvRow* kv;  // null: nobody
    std::size_t block;
    std::int64_t page, last;
    const std::byte* keys(std::int64_t i) const {
      return kv && page + i <= last ? kv->pages[page + i - kv->first_page] + block : nullptr;
    }
  };
  Upcoming after(const Chunk& chunk) const {
    const auto from = [&](const Stretch& of, std::int64_t begin) -> Upcoming {
      const std::int64_t page = begin / kPagePositions;
      return {&args_.kv_rows[of.row], block_of(of.kv_head), page,
              std::min((of.end - 1) / kPagePositions, page / kChunkPages * kChunkPages + kChunkPages - 1)};
    };
    if (chunk.start + kChunk < of_.end) return from(of_, chunk.start + kChunk);
    if (next_.row < 0) return {nullptr, 0, 0, 0};
    return from(next_, next_.begin);
  }
  // (Inlined, or compilers take it for a function without effect.)
  [[gnu::always_inline]] void ask_for_scales(const std::byte* block) const {
    if constexpr (Stored::kScaled)
      for (int slot = 0; slot < kPagePositions; slot += 16) __builtin_prefetch(scales(block, slot), 0, 2);
  }
  // A block's codes, asked for in so many steps.
  class AskForBlock {
   public:
    AskForBlock(const std::byte* block, std::size_t bytes, std::int64_t steps)
        : at_(block),
          end_(block ? block + bytes : nullptr),
          step_(round_up(ceil_div(static_cast<std::int64_t>(bytes), steps), std::int64_t{64})) {}
    void step() {
      for (const std::byte* stop = at_ + std::min(step_, end_ - at_); at_ < stop; at_ += 64)
        __builtin_prefetch(at_, 0, 2);
    }

   private:
    const std::byte *at_, *end_;
    std::int64_t step_;
  };

  void add_chunk(const Chunk& chunk) {
    const Upcoming upcoming = after(chunk);
    for (std::int64_t page = chunk.first_page(); page <= chunk.last_page(); ++page) {
      ask_for_scales(values(page));
      const std::byte* wanted = page < chunk.last_page() ? values(page) : nullptr;
      each_block([&]<int N>(int head, int turn) {
        score_page<N>(head, chunk, page, {wanted, turn, blocks_});
      });
    }
    const std::int64_t steps = heads_ * ((chunk.end - 1) / 16 - chunk.begin / 16 + 1);
    AskForBlock last_values(values(chunk.last_page()), args_.kv.code_bytes(), steps);
    AskForBlock first_keys(upcoming.keys(0), args_.kv.code_bytes(), steps);
    for (int n = 0; n < heads_; ++n) {
      const SoftmaxSums of_chunk = weigh_keys(n, chunk, last_values, first_keys);
      if (chunk.is_first)
        sums_[n] = of_chunk;
      else
        factors_[n] = join<A>(sums_[n], of_chunk);
    }
    for (int i = 0; i < kChunkPages; ++i)
      if (const std::byte* block = upcoming.keys(i)) ask_for_scales(block);
    each_block([&]<int N>(int head, int turn) { add_lanes<N, kVectors<N>>(head, chunk, 0, upcoming, turn); });
  }

  // Scores of the keys of a page that are visible, and of some beside them.
  template <int N>
  void score_page(int head, const Chunk& chunk, std::int64_t page, const Wanted& wanted) {
    constexpr int T = kVectors<N>;
    const std::int64_t start = page * kPagePositions;
    const auto stop = static_cast<int>(std::min<std::int64_t>(chunk.end - start, kPagePositions));
    const auto from = static_cast<int>(std::max<std::int64_t>(chunk.begin - start, 0));
    for (int slot = from / (16 * T) * (16 * T); slot < stop; slot += 16 * T) {
      const auto before = static_cast<std::size_t>(slot / 16 * kVectorBytes * (dim_ / 2));
      score_keys<N, T>(head, keys(page), slot, start - chunk.start + slot, wanted.after(before));
    }
  }

  template <int N, int T>
  void score_keys(int head, const std::byte* block, int slot, std::int64_t into, const Wanted& wanted) {
    F acc[T][N];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[t][n] = A::set(0.0f);
    AskAhead<T * kVectorBytes> ask(wanted);
    const Q* q = q_[head];
    for (int i = 0; i < dim_ / 2; ++i, ++q) {
      ask.step(i);
      const auto raw = load_vectors<Stored, T>(block, i, kPagePositions, slot);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) acc[t][n] = Stored::mac(acc[t][n], raw.of[t], q[n * (kMaxHeadDim / 2)]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      F scale = A::set(args_.scale);
      if constexpr (Stored::kScaled)
        scale = A::mul(scale, A::load(reinterpret_cast<const float*>(scales(block, slot + 16 * t))));
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) A::store(score_[head + n] + into + 16 * t, A::mul(acc[t][n], scale));
    }
  }

  // Scores to probabilities relative to their maximum, which it returns with their sum.
  // Where values have scales, what meets the values is the probability times the scale of its position.
  SoftmaxSums weigh_keys(int n, const Chunk& chunk, AskForBlock& last_values, AskForBlock& first_keys) {
    const std::int64_t begin = chunk.begin - chunk.start, end = chunk.end - chunk.start;
    const std::int64_t from = begin / 16 * 16, to = (end + 15) / 16 * 16;
    std::fill(score_[n] + from, score_[n] + begin, kHidden);
    std::fill(score_[n] + end, score_[n] + to, kHidden);
    F largest = A::set(kHidden);
    for (std::int64_t i = from; i < to; i += 16) largest = A::max(largest, A::load(score_[n] + i));
    const float max = A::largest(largest);
    F sum = A::set(0.0f);
    for (std::int64_t i = from; i < to; i += 16) {
      last_values.step();
      first_keys.step();
      F p = exp<A>(A::sub(A::load(score_[n] + i), A::set(max)));
      if constexpr (Stored::kScaled) {
        sum = A::add(sum, p);
        // Hidden positions have no probability, and perhaps no scale yet.
        const F zero = A::set(0.0f);
        p = A::if_less(zero, p, A::mul(p, value_scales(chunk.start + i)), p);
        if (round_) p = A::round_bf16(p);
      } else {
        if (round_) p = A::round_bf16(p);
        sum = A::add(sum, p);
      }
      Stored::join(p, &p_[n][i / 2]);
    }
    return {max, A::sum(sum)};
  }

  // The chunk's weighted values from dimension `lane`, T vectors of it at a time, joined to what earlier
  // chunks gave.
  template <int N, int T>
  void add_lanes(int head, const Chunk& chunk, int lane, const Upcoming& upcoming, int turn) {
    for (; lane + 16 * T <= padded_; lane += 16 * T) add_values<N, T>(head, chunk, lane, upcoming, turn);
    if constexpr (T > 1)
      if (lane < padded_) add_lanes<N, T / 2>(head, chunk, lane, upcoming, turn);
  }
  template <int N, int T>
  void add_values(int head, const Chunk& chunk, int lane, const Upcoming& upcoming, int turn) {
    F acc[T][N];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[t][n] = A::set(0.0f);
    for (std::int64_t page = chunk.first_page(); page <= chunk.last_page(); ++page) {
      const std::int64_t start = page * kPagePositions;
      const std::int64_t low = std::max<std::int64_t>(chunk.begin - start, 0);
      const std::int64_t high = std::min<std::int64_t>(chunk.end - start, kPagePositions);
      const std::byte* block = values(page);
      const Q* p = p_[head] + (start - chunk.start) / 2;
      const auto load = [&](std::int64_t pair) {
        return load_vectors<Stored, T>(block, pair, padded_, lane);
      };
      const auto add = [&](std::int64_t pair, const auto& raw) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t)
            acc[t][n] = Stored::mac(acc[t][n], raw.of[t], p[pair + n * (kChunk / 2)]);
      };
      const auto add_half = [&](std::int64_t pair, bool even) {
        auto raw = load(pair);
        for (auto& half : raw.of) half = Stored::keep(half, even, !even);
        add(pair, raw);
      };
      // The first of the upcoming keys are there already.
      const std::int64_t ordinal = page - chunk.first_page();
      const Wanted wanted = {ordinal > 0 ? upcoming.keys(ordinal) : nullptr, turn, blocks_};
      AskAhead<T * kVectorBytes> ask(
          wanted.after(static_cast<std::size_t>(lane / 16 * (kPagePositions / 2) * kVectorBytes)));
      // Only the first pair and the last may have a hidden half.
      if (low % 2 != 0) add_half(low / 2, false);
      for (std::int64_t pair = (low + 1) / 2; pair < high / 2; ++pair) {
        ask.step(pair);
        add(pair, load(pair));
      }
      if (high % 2 != 0) add_half(high / 2, true);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        float* out = out_[head + n] + lane + 16 * t;
        F sum = acc[t][n];
        if (!chunk.is_first) sum = join_values<A>(A::load(out), sum, factors_[head + n]);
        A::store(out, sum);
      }
  }

  static constexpr float kHidden = -std::numeric_limits<float>::infinity();
  const AttentionArgs& args_;
  const Stretch of_, next_;
  const KvRow& kv_;
  bool round_;
  int first_head_, heads_, blocks_ = 0;
  int dim_, padded_;
  std::size_t block_;
  SoftmaxSums sums_[kMostHeads];
  JoinFactors factors_[kMostHeads];
  alignas(64) Q q_[kMostHeads][kMaxHeadDim / 2];
  alignas(64) float score_[kMostHeads][kChunk];
  alignas(64) Q p_[kMostHeads][kChunk / 2];
  alignas(64) float out_[kMostHeads][kMaxHeadDim];
};

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
