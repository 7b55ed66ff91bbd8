// How attention is dealt to threads.
//
// By heads: each thread goes over some heads of keys and values, from the first chunk that their row sees to
// the last, and joins chunks as it goes.
//
// By chunks, where heads are too few for the threads or their contexts too uneven: all chunks stand in a
// line, by row, head and position. Each thread goes over an equal part of the line and keeps what every chunk
// gives. Then all meet, and each thread joins the chunks of some query heads. These are the operations of the
// other way in the same order, so the bits are the same.
//
// What is kept lies in the tiles, for which attention has no other use, so that memory does not grow with the
// context. A line that is longer than there is room for goes in rounds; the head that is cut by the end of
// one is carried to the next.
#pragma once

#include "attention.hpp"
#include "exact.hpp"

#include <algorithm>
#include <cstdint>

namespace nib::inline v0::cpu {

// The chunks of a call in a line, and the items, heads of rows, that they are of.
template <class A>
class ChunkLine {
 public:
  explicit ChunkLine(const AttentionArgs& args) : args_(args) {}

  // All that a row sees of a head.
  Stretch visible(std::int64_t row, int kv_head) const {
    const std::int64_t end = args_.kv_rows[row].position + 1;
    return {row, kv_head, args_.window > 0 ? std::max<std::int64_t>(0, end - args_.window) : 0, end};
  }
  static std::int64_t chunks(const Stretch& of) { return (of.end - 1) / kChunk - of.begin / kChunk + 1; }

  std::int64_t size() const {
    std::int64_t all = 0;
    for (std::int64_t row = 0; row < args_.rows; ++row) all += chunks(visible(row, 0)) * args_.kv.kv_heads;
    return all;
  }

  // Item i of rows times heads.
  Stretch item(std::int64_t i) const {
    if (i >= args_.rows * args_.kv.kv_heads) return kNone;
    return visible(i / args_.kv.kv_heads, static_cast<int>(i % args_.kv.kv_heads));
  }
  // Chunks of the thread that has most of them, if items are dealt in turn.
  std::int64_t longest_share(int threads) const {
    const std::int64_t items = args_.rows * args_.kv.kv_heads;
    std::int64_t longest = 0;
    for (std::int64_t first = 0; first < std::min<std::int64_t>(threads, items); ++first) {
      std::int64_t share = 0;
      for (std::int64_t i = first; i < items; i += threads)
        share += chunks(visible(i / args_.kv.kv_heads, 0));
      longest = std::max(longest, share);
    }
    return longest;
  }

  // Of the chunks [begin, end) of the line those that are of one head with the first. Each call begins where
  // the one before did, or later.
  Stretch take(std::int64_t begin, std::int64_t end) {
    if (begin >= end) return kNone;
    std::int64_t each = chunks(visible(row_, 0));
    while (begin >= first_ + each * args_.kv.kv_heads) {
      first_ += each * args_.kv.kv_heads;
      each = chunks(visible(++row_, 0));
    }
    Stretch of = visible(row_, static_cast<int>((begin - first_) / each));
    const std::int64_t skipped = (begin - first_) % each, count = std::min(end - begin, each - skipped);
    const std::int64_t start = (of.begin / kChunk + skipped) * kChunk;
    return {of.row, of.kv_head, std::max(of.begin, start), std::min(of.end, start + count * kChunk)};
  }

 private:
  static constexpr Stretch kNone = {-1, 0, 0, 0};
  const AttentionArgs& args_;
  std::int64_t row_ = 0, first_ = 0;  // the row that was taken from last, and where it begins
};

// Slots [group][max, sum], padded to a line, and [group][D']. The first two are for the head that is carried
// from one round to the next: it is read from one and written to the other.
template <class A>
class KeptChunks {
 public:
  KeptChunks(const OpContext& context, const AttentionArgs& args)
      : to_(context.tiles),
        group_(args.heads / args.kv.kv_heads),
        width_(args.kv.padded_dim()),
        slot_(kept_chunk_floats(args.heads, args.kv)),
        slots_(context.pool->threads() * context.tile_floats / slot_) {}

  std::int64_t room() const { return slots_ - kCarried; }  // for chunks of a round
  static std::int64_t slot(std::int64_t i) { return kCarried + i; }
  static std::int64_t carried(std::int64_t round) { return round % kCarried; }

  void put(std::int64_t slot, int n, const SoftmaxSums& sums, const float* values) const {
    float* to = to_ + slot * slot_;
    to[2 * n] = sums.max;
    to[2 * n + 1] = sums.sum;
    std::copy_n(values, width_, vector(slot, n));
  }
  SoftmaxSums sums(std::int64_t slot, int n) const {
    const float* from = to_ + slot * slot_ + 2 * n;
    return {from[0], from[1]};
  }
  float* vector(std::int64_t slot, int n) const {
    return to_ + (slot + 1) * slot_ - std::int64_t{group_ - n} * width_;
  }

 private:
  static constexpr std::int64_t kCarried = 2;
  float* to_;
  int group_, width_;
  std::int64_t slot_, slots_;
};

// In how many rounds the chunks are dealt; 0: heads are. A round costs about as much as a chunk, since
// threads meet twice, and what is kept is written and read once more.
template <class A>
std::int64_t rounds_of_chunks(const OpContext& context, const AttentionArgs& args) {
  const int threads = context.pool->threads();
  const std::int64_t room = KeptChunks<A>(context, args).room();
  if (threads == 1 || room < 1) return 0;
  const ChunkLine<A> line(args);
  const std::int64_t chunks = line.size(), even = ceil_div(chunks, std::int64_t{threads});
  const std::int64_t rounds = ceil_div(chunks, room);
  return line.longest_share(threads) > even + even / 16 + rounds ? rounds : 0;
}

// Calls work(heads, n) for the query heads from the n-th on of those that share the stretch's head.
template <class A, class Stored, class Work>
void over_stretch(const OpContext& context, const AttentionArgs& args, const Stretch& of, const Stretch& next,
                  Work work) {
  const bool round = rounds_to_bf16(context.numerics);
  const int group = args.heads / args.kv.kv_heads;
  for (int n = 0; n < group; n += kMostHeads)
    exactly<A>([&]<class B>(Verbs<B>) {
      SharedHeads<B, Rebound<Stored, B>> heads(args, round, of, of.kv_head * group + n,
                                               std::min(group - n, kMostHeads),
                                               n + kMostHeads < group ? of : next);
      work(heads, n);
    });
}

template <class A, class Stored>
void attend_by_heads(const OpContext& context, const AttentionArgs& args) {
  context.pool->run([&](int index, int count) {
    const ChunkLine<A> line(args);
    Stretch next = line.item(index);
    for (std::int64_t i = index; next.row >= 0; i += count) {
      const Stretch of = next;
      next = line.item(i + count);
      over_stretch<A, Stored>(context, args, of, next, [](auto& heads, int) { heads.attend(); });
    }
  });
}

// Joins the chunks of a stretch that lie in slots from `slot` on, for the n-th query head of its group.
// Begins with what was carried to this round, if `is_cut`; ends with what is carried to the next, unless all
// of the head was seen.
template <class A>
void join_kept(const AttentionArgs& args, const KeptChunks<A>& kept, const Stretch& of, std::int64_t slot,
               int n, std::int64_t round, bool is_cut, bool is_done) {
  const int width = args.kv.padded_dim(), dim = args.kv.head_dim;
  const std::int64_t end = slot + ChunkLine<A>::chunks(of), first = is_cut ? kept.carried(round) : slot++;
  alignas(64) float values[kMaxHeadDim];
  SoftmaxSums sums = kept.sums(first, n);
  std::copy_n(kept.vector(first, n), width, values);
  for (; slot < end; ++slot) {
    const JoinFactors by = join<A>(sums, kept.sums(slot, n));
    const float* chunk = kept.vector(slot, n);
    for (int i = 0; i < width; i += 16)
      A::store(values + i, join_values<A>(A::load(values + i), A::load(chunk + i), by));
  }
  if (!is_done) return kept.put(kept.carried(round + 1), n, sums, values);
  const int head = of.kv_head * (args.heads / args.kv.kv_heads) + n;
  finish_values<A>(sums, values, args.sinks ? &args.sinks[head] : nullptr, dim,
                   args.out + of.row * args.out_stride + head * dim);
}

// The chunks [chunks.begin, chunks.end) of the line are the round's.
template <class A, class Stored>
void keep_round(const OpContext& context, const AttentionArgs& args, Range chunks) {
  const KeptChunks<A> kept(context, args);
  context.pool->run([&](int index, int count) {
    const Range share = split(chunks.size(), index, count);
    const std::int64_t end = chunks.begin + share.end;
    std::int64_t at = chunks.begin + share.begin;
    ChunkLine<A> line(args);
    Stretch next = line.take(at, end);
    while (next.row >= 0) {
      const Stretch of = next;
      const std::int64_t first = at - chunks.begin;
      at += line.chunks(of);
      next = line.take(at, end);
      over_stretch<A, Stored>(context, args, of, next, [&](auto& heads, int from) {
        heads.each_kept([&](std::int64_t i, int n, const SoftmaxSums& sums, const float* values) {
          kept.put(kept.slot(first + i), from + n, sums, values);
        });
      });
    }
  });
}

template <class A>
void join_round(const OpContext& context, const AttentionArgs& args, Range chunks, std::int64_t round) {
  const int group = args.heads / args.kv.kv_heads;
  context.pool->run([&](int index, int count) {
    ChunkLine<A> line(args);
    std::int64_t turn = 0;  // of the query heads
    for (std::int64_t at = chunks.begin; at < chunks.end;) {
      const Stretch of = line.take(at, chunks.end), all = line.visible(of.row, of.kv_head);
      for (int n = 0; n < group; ++n)
        if (turn++ % count == index)
          exactly<A>([&]<class B>(Verbs<B>) {
            const KeptChunks<B> kept(context, args);
            join_kept<B>(args, kept, of, kept.slot(at - chunks.begin), n, round, of.begin > all.begin,
                         of.end == all.end);
          });
      at += line.chunks(of);
    }
  });
}

template <class A, class Stored>
void attend(const OpContext& context, const AttentionArgs& args) {
  const std::int64_t rounds = rounds_of_chunks<A>(context, args);
  if (rounds == 0) return attend_by_heads<A, Stored>(context, args);
  const std::int64_t chunks = ChunkLine<A>(args).size();
  for (std::int64_t round = 0; round < rounds; ++round) {
    const Range part = {chunks * round / rounds, chunks * (round + 1) / rounds};
    keep_round<A, Stored>(context, args, part);
    join_round<A>(context, args, part, round);
  }
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

}  // namespace nib::inline v0::cpu
