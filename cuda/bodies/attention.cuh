// Room cuda: attention of a few queries that share a kv head, by one block.
//
// Positions are cut into splits of 256, aligned to position 0: four pages, and four warps. In a split a warp
// has the scores of one page (chains over columns of dimensions), the block the largest of all of them, then
// come probabilities, rounded to bf16, and their sums: a lane's chain, a tree of four lanes, page after page.
// Then a warp has every fourth column of the values, a chain over sixteen positions after sixteen. Splits are
// joined in order, and the sink to them. Nothing of this depends on which queries share a block, or on
// whether one block goes through all splits or leaves each to another (attention.cu).
//
// What a query does not see is never multiplied with its zero: it may be anything.
#pragma once

#include "../rows.hpp"
#include "kv_tiles.cuh"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cuda {

inline constexpr int kSplit = 256, kSplitPages = kSplit / kPagePositions;
inline constexpr int kAttentionWarps = kSplitPages, kAttentionThreads = kAttentionWarps * 32;
inline constexpr int kTileQueries = 16;

// Sums of a tile as a lane has them.
struct alignas(16) TileSums {
  float at[4];
};

// What a split comes to before it is joined to others: [columns][2 tiles][32 lanes] of weighted values, then
// the largest score and the sum of probabilities for each of sixteen queries.
constexpr std::int64_t partial_bytes(int padded_dim) {
  return std::int64_t{padded_dim} / kColumnDims * 2 * 32 * 16 + 2 * kTileQueries * 4;
}
struct Partial {
  TileSums* values;
  float* largest;  // [16]
  float* sum;      // [16]
  NIB_DEVICE static Partial at(std::byte* room, std::int64_t index, int padded_dim) {
    std::byte* const begin = room + index * partial_bytes(padded_dim);
    auto* const numbers =
        reinterpret_cast<float*>(begin + partial_bytes(padded_dim) - 2 * kTileQueries * sizeof(float));
    return {reinterpret_cast<TileSums*>(begin), numbers, numbers + kTileQueries};
  }
};

// Rows of one session, and heads of them that share a kv head: query i is of row i / heads, head i % heads.
struct Queries {
  int row, rows, kv_head, head, heads;
  NIB_DEVICE int count() const { return rows * heads; }
};

template <class Stored_, class Cores_, int tiles_>
struct AttentionShape {
  using Stored = Stored_;
  using Cores = Cores_;
  static constexpr int kTiles = tiles_, kMost = tiles_ * kTileQueries;  // queries
  static constexpr int kUnits = column_units(Stored::kBytes);
  // Columns of keys, and of values, that a warp asks for before it multiplies one. Plain cores ask for none:
  // their devices do not copy in the background. (So lanes need to meet at each step and nowhere else.)
  static constexpr int kAhead = Cores::kLanesShareColumns ? 0
                                : tiles_ == 1             ? 6 / Stored::kBytes - 1
                                                          : 2 / Stored::kBytes;
  static constexpr int kRings = kAhead > 0 ? 2 : 1;
  static constexpr int kBlocks = Cores::kLanesShareColumns ? 2 : 3;  // for a multiprocessor, by registers
};

struct alignas(16) PageScales {
  float of_keys[kPagePositions], of_values[kPagePositions];
};
static_assert(sizeof(PageScales) == 32 * sizeof(Words4));

template <class Shape>
struct AttentionShared {
  Words4 rings[Shape::kRings][kAttentionWarps][(Shape::kAhead + 1) * Shape::kUnits * 32];
  Words4 p[Shape::kTiles][kSplit / 16][32];  // as multiply_tile takes them
  // Of keys, and of values, of each warp's page, where they have scales: sixteen bytes of each lane.
  PageScales scales[Shape::Stored::kScaled ? kAttentionWarps : 1];
  // Of each page. A warp may be at the scores of the next split while others still read those of this one.
  float largest[2][kAttentionWarps][Shape::kMost];
  float sum[kAttentionWarps][Shape::kMost];
  std::int32_t begin[Shape::kMost], end[Shape::kMost];  // what query i sees
  std::int32_t is_last, padding[3];
  // Behind it: Words4 q[tiles][columns][32], TileSums values[tiles][columns][2][32].
  static constexpr std::size_t bytes(int columns) {
    return sizeof(AttentionShared) + static_cast<std::size_t>(Shape::kTiles) *
                                         static_cast<std::size_t>(columns) * 32 *
                                         (sizeof(Words4) + 2 * sizeof(TileSums));
  }
};

// The softmax of one query as splits are joined to it.
struct Joined {
  float largest, sum;
};
// How the next split joins: values become values * before + its * after.
struct Joint {
  float before, after;
  bool is_first, sees_nothing;
};
NIB_DEVICE Joint join(Joined& query, float largest, float sum) {
  Joint joint{1, 0, query.sum == 0, sum == 0};  // the sum of what was seen is one at least
  if (joint.sees_nothing) return joint;
  if (joint.is_first) {
    query = {largest, sum};
    return joint;
  }
  const float most = largest > query.largest ? largest : query.largest;
  joint.before = exponential(query.largest - most);
  joint.after = exponential(largest - most);
  query = {most, fused_multiply_add(sum, joint.after, query.sum * joint.before)};
  return joint;
}

template <class Shape>
class AttentionBlock {
  using Stored = typename Shape::Stored;
  using Cores = typename Shape::Cores;
  using Shared = AttentionShared<Shape>;
  static constexpr int kTiles = Shape::kTiles, kAhead = Shape::kAhead, kUnits = Shape::kUnits;

 public:
  // Called by all threads of the block, as are the others.
  NIB_DEVICE AttentionBlock(const AttentionArgs& args, Shared& shared, const Queries& queries)
      : args_(args),
        shared_(shared),
        queries_(queries),
        warp_(thread_index() / 32),
        lane_(thread_index() % 32),
        columns_(args.kv.padded_dim() / kColumnDims),
        q_(reinterpret_cast<Words4*>(&shared + 1)),
        values_(reinterpret_cast<TileSums*>(q_ + kTiles * columns_ * 32)) {
    const KvRow& row = args.kv_rows[queries.row];
    table_ = row.pages;
    first_page_ = static_cast<int>(row.first_page);
    head_offset_ = args.layer_offset + static_cast<std::size_t>(queries.kv_head) * 2 * args.kv.block_bytes();
    sync_block();  // nobody still reads what was there
    load_queries();
    sync_block();
    see_extents();
    NIB_UNROLL
    for (int i = 0; i < kTiles * 2; ++i) joined_[i] = {0, 0};
  }

  NIB_DEVICE int first_split() const { return any_begin_ / kSplit; }
  NIB_DEVICE int end_split() const { return (any_end_ + kSplit - 1) / kSplit; }

  // Splits [first, end), one after the other; or one of them, into `partial`, where that is not null.
  NIB_DEVICE void walk(int first, int end, const Partial& partial) {
    SplitPages next = pages_of(first);
    ask_first_keys(next.of(warp_));
    NIB_ROLLED
    for (int split = first; split < end; ++split) {
      const SplitPages now = next;
      NIB_UNROLL
      for (int i = 0; i < kSplitPages; ++i) next.at[i] = nullptr;
      if (split + 1 < end) next = pages_of(split + 1);
      NIB_UNROLL
      for (int i = 0; i < kAhead; ++i) ask_values(now, i);
      close_copy_group();
      wait_for_copies<1>();  // for what was asked of the keys before
      score_and_weigh(split, now.of(warp_));
      ask_first_keys(next.of(warp_));
      add_split(split, now, partial);
    }
    if (!partial.values || thread_index() >= kTileQueries) return;
    partial.largest[thread_index()] = split_largest(first, thread_index());
    partial.sum[thread_index()] = split_sum(thread_index());
  }

  // What other blocks left of `count` splits, in order; `stride` partials from one to the next. A lane asks
  // for those of four splits before it joins the first: one block has all of them, and nothing else to do
  // while it waits for memory.
  NIB_DEVICE void join_partials(std::byte* room, std::int64_t first, int count, int stride) {
    constexpr int kAtOnce = 4;
    const int padded = args_.kv.padded_dim();
    NIB_ROLLED
    for (int begin = 0; begin < count; begin += kAtOnce) {
      // Beyond the last one that once more, in which nobody has seen anything.
      const auto partial = [&](int i) {
        const int at = begin + i < count ? begin + i : count - 1;
        return Partial::at(room, first + std::int64_t{at} * stride, padded);
      };
      float largest[kAtOnce][2], sum[kAtOnce][2];
      NIB_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const Partial from = partial(i);
        NIB_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int query = lane_ / 4 + 8 * half;
          largest[i][half] = from.largest[query];
          sum[i][half] = begin + i < count ? from.sum[query] : 0;
        }
      }
      Joint joints[kAtOnce][kTiles * 2];
      NIB_UNROLL
      for (int i = 0; i < kAtOnce; ++i)
        for (int half = 0; half < 2; ++half)
          joints[i][half] = join(joined_[half], largest[i][half], sum[i][half]);
      NIB_ROLLED
      for (int column = warp_; column < columns_; column += kAttentionWarps) {
        float sums[kAtOnce][2][4];
        NIB_UNROLL
        for (int i = 0; i < kAtOnce; ++i)
          for (int n = 0; n < 2; ++n) {
            const TileSums read = partial(i).values[(column * 2 + n) * 32 + lane_];
            for (int j = 0; j < 4; ++j) sums[i][n][j] = read.at[j];
          }
        NIB_UNROLL
        for (int i = 0; i < kAtOnce; ++i) add_to_values(0, column, sums[i], joints[i]);
      }
    }
  }

  // What comes out, when all splits have been joined.
  NIB_DEVICE void finish() const {
    const int dim = args_.kv.head_dim;
    const std::int64_t width = std::int64_t{args_.heads} * dim, stride = bf16_stride(width);
    auto* const out = reinterpret_cast<std::uint16_t*>(args_.out);
    NIB_UNROLL
    for (int i = 0; i < kTiles * 2; ++i) {
      const int query = i / 2 * kTileQueries + lane_ / 4 + i % 2 * 8;
      if (query >= queries_.count()) continue;
      const int head = queries_.head + query % queries_.heads;
      float factor = 1, total = joined_[i].sum;
      if (args_.sinks) {
        const float sink = args_.sinks[head], largest = joined_[i].largest;
        const float most = sink > largest ? sink : largest;
        factor = exponential(largest - most);
        total = fused_multiply_add(total, factor, exponential(sink - most));
      }
      factor /= total;
      std::uint16_t* const to = out + (queries_.row + query / queries_.heads) * stride + head * dim;
      NIB_ROLLED
      for (int column = warp_; column < columns_; column += kAttentionWarps) {
        NIB_UNROLL
        for (int n = 0; n < 2; ++n) {
          const int d = column * kColumnDims + n * 8 + lane_ % 4 * 2;
          if (d >= dim) continue;
          const TileSums& from = values(i / 2, column, n);
          const std::uint32_t low = round_to_bf16(from.at[i % 2 * 2] * factor),
                              high = round_to_bf16(from.at[i % 2 * 2 + 1] * factor);
          *reinterpret_cast<std::uint32_t*>(to + d) = low | high << 16;
        }
      }
    }
    if (queries_.head != 0) return;
    const auto beyond = static_cast<int>(stride - width);
    for (int i = thread_index(); i < queries_.rows * beyond; i += kAttentionThreads)
      out[(queries_.row + i / beyond) * stride + width + i % beyond] = 0;
  }

 private:
  // Positions that some query of a tile sees, and those that all see.
  struct Extent {
    int any_begin, any_end, all_begin, all_end;
  };
  // The blocks of keys of a split's pages; null where no query sees anything.
  struct SplitPages {
    const std::byte* at[kSplitPages];
    NIB_DEVICE const std::byte* of(int page) const {
      return page < 2 ? page == 0 ? at[0] : at[1] : page == 2 ? at[2] : at[3];
    }
  };

  NIB_DEVICE std::uint32_t q_pair(int query, int d) const {
    if (query >= queries_.count() || d >= args_.kv.head_dim) return 0;
    const float* const q = args_.qkv + (queries_.row + query / queries_.heads) * args_.qkv_stride +
                           (queries_.head + query % queries_.heads) * args_.kv.head_dim + d;
    return round_to_bf16(q[0]) | static_cast<std::uint32_t>(round_to_bf16(q[1])) << 16;
  }
  NIB_DEVICE void load_queries() {
    NIB_ROLLED
    for (int i = thread_index(); i < Shape::kMost; i += kAttentionThreads) {
      int begin = 0, end = 0;
      if (i < queries_.count()) {
        end = static_cast<int>(args_.kv_rows[queries_.row + i / queries_.heads].position) + 1;
        begin = args_.window > 0 && end > args_.window ? end - static_cast<int>(args_.window) : 0;
      }
      shared_.begin[i] = begin;
      shared_.end[i] = end;
    }
    NIB_ROLLED
    for (int i = thread_index(); i < kTiles * columns_ * 32; i += kAttentionThreads) {
      const int tile = i / 32 / columns_, column = i / 32 % columns_, lane = i % 32;
      const int query = tile * kTileQueries + lane / 4, d = column * kColumnDims + lane % 4 * 2;
      q_[i] = {{q_pair(query, d), q_pair(query + 8, d), q_pair(query, d + 8), q_pair(query + 8, d + 8)}};
    }
  }
  NIB_DEVICE void see_extents() {
    any_begin_ = std::numeric_limits<int>::max();
    any_end_ = 0;
    NIB_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      Extent extent{std::numeric_limits<int>::max(), 0, 0, std::numeric_limits<int>::max()};
      NIB_ROLLED
      for (int i = tile * kTileQueries; i < (tile + 1) * kTileQueries && i < queries_.count(); ++i) {
        const int begin = shared_.begin[i], end = shared_.end[i];
        if (begin < extent.any_begin) extent.any_begin = begin;
        if (end > extent.any_end) extent.any_end = end;
        if (begin > extent.all_begin) extent.all_begin = begin;
        if (end < extent.all_end) extent.all_end = end;
      }
      extents_[tile] = extent;
      if (extent.any_begin < any_begin_) any_begin_ = extent.any_begin;
      if (extent.any_end > any_end_) any_end_ = extent.any_end;
    }
  }
  NIB_DEVICE bool has_queries(int tile) const { return tile * kTileQueries < queries_.count(); }

  // ---- memory

  NIB_DEVICE SplitPages pages_of(int split) const {
    SplitPages pages;
    NIB_UNROLL
    for (int i = 0; i < kSplitPages; ++i) {
      const int page = split * kSplitPages + i;
      const bool is_seen = page >= any_begin_ / kPagePositions && page <= (any_end_ - 1) / kPagePositions;
      pages.at[i] = is_seen ? table_[page - first_page_] + head_offset_ : nullptr;
    }
    return pages;
  }
  NIB_DEVICE const Words4* ring(int which, int step) const {
    return shared_.rings[which % Shape::kRings][warp_] + step % (kAhead + 1) * (kUnits * 32);
  }
  NIB_DEVICE void ask(int which, int step, const std::byte* block, int column) const {
    const SharedPlace to =
        place_of(shared_.rings[which % Shape::kRings][warp_] + step % (kAhead + 1) * (kUnits * 32) + lane_);
    const Words4* const from = reinterpret_cast<const Words4*>(block) + column * (kUnits * 32) + lane_;
    NIB_UNROLL
    for (int i = 0; i < kUnits; ++i) begin_copy(to, i * 32, from + i * 32);
  }
  // The first columns of keys of a page, and all scales of it.
  NIB_DEVICE void ask_first_keys(const std::byte* block) const {
    if constexpr (Stored::kScaled)
      if (block) {
        const std::byte* const scales =
            block + args_.kv.code_bytes() + (lane_ < 16 ? 0 : args_.kv.block_bytes());
        begin_copy(place_of(reinterpret_cast<Words4*>(&shared_.scales[warp_]) + lane_), 0,
                   reinterpret_cast<const Words4*>(scales) + lane_ % 16);
      }
    NIB_UNROLL
    for (int i = 0; i < kAhead; ++i) ask_keys(block, i);
    close_copy_group();
  }
  NIB_DEVICE void ask_keys(const std::byte* block, int column) const {
    if (block && column < columns_) ask(0, column, block, column);
  }
  // Step i of a warp in its columns of values: four pages to each.
  NIB_DEVICE void ask_values(const SplitPages& pages, int step) const {
    const int column = warp_ + step / kSplitPages * kAttentionWarps;
    const std::byte* const block = pages.of(step % kSplitPages);
    if (block && column < columns_) ask(1, step, block + args_.kv.block_bytes(), column);
  }
  NIB_DEVICE static void meet_lanes() {
    if constexpr (Cores::kLanesShareColumns) sync_warp();
  }

  // ---- one split

  // Scores of the page of this warp, which may be none, and then all that add_split needs of all pages.
  NIB_DEVICE void score_and_weigh(int split, const std::byte* page) {
    float scores[kTiles][kColumnTiles][4] = {};
    if (page) score(page, scores);
    wait_for_copies<0>();  // values that were asked for before
    if constexpr (Stored::kScaled) sync_warp();
    NIB_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) scale_tile(tile, split, scores[tile]);
    sync_block();
    NIB_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) weigh_tile(tile, split, scores[tile]);
    sync_block();
  }

  NIB_DEVICE void score(const std::byte* page, float (&scores)[kTiles][kColumnTiles][4]) const {
    NIB_ROLLED
    for (int column = 0; column < columns_; ++column) {
      meet_lanes();
      ask_keys(page, column + kAhead);
      close_copy_group();
      wait_for_copies<kAhead>();
      meet_lanes();
      NIB_UNROLL
      for (int tile = 0; tile < kTiles; ++tile)
        if (has_queries(tile))
          Cores::template multiply<Stored, kColumnTiles, true>(
              scores[tile], q_ + (tile * columns_ + column) * 32, ring(0, column), 0, kAllOfTile, lane_);
    }
  }

  // Query `half` of a lane's two in a tile, and whether it sees score i of a lane's sixteen for it.
  struct Sight {
    int query, begin, end;  // of positions after the page's first
    NIB_DEVICE static int slot(int i) { return thread_index() % 4 * 2 + i / 2 * 8 + i % 2; }
    NIB_DEVICE bool sees(int i) const { return slot(i) >= begin && slot(i) < end; }
  };
  NIB_DEVICE Sight sight(int tile, int half, int split) const {
    const int query = tile * kTileQueries + lane_ / 4 + 8 * half;
    const int first = split * kSplit + warp_ * kPagePositions;
    return {query, shared_.begin[query] - first, shared_.end[query] - first};
  }

  // Products become scores; the page's largest go to where all see them.
  NIB_DEVICE void scale_tile(int tile, int split, float (&scores)[kColumnTiles][4]) const {
    NIB_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Sight sight = this->sight(tile, half, split);
      float largest = -std::numeric_limits<float>::infinity();
      NIB_UNROLL
      for (int i = 0; i < kColumnTiles * 2; ++i) {
        float& score = scores[i / 2][half * 2 + i % 2];
        if constexpr (Stored::kScaled)
          score *= args_.scale * shared_.scales[warp_].of_keys[sight.slot(i)];
        else
          score *= args_.scale;
        if (sight.sees(i) && score > largest) largest = score;
      }
      NIB_UNROLL
      for (int by = 1; by < 4; by *= 2) {
        const float other = shuffle_xor(largest, by);
        if (other > largest) largest = other;
      }
      if (lane_ % 4 == 0) shared_.largest[split % 2][warp_][sight.query] = largest;
    }
  }

  // Scores become probabilities; their sum, and they as they meet values, go to where all see them.
  NIB_DEVICE void weigh_tile(int tile, int split, float (&scores)[kColumnTiles][4]) const {
    NIB_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Sight sight = this->sight(tile, half, split);
      const float largest = split_largest(split, sight.query);
      float sum = 0;
      NIB_UNROLL
      for (int i = 0; i < kColumnTiles * 2; ++i) {
        float& score = scores[i / 2][half * 2 + i % 2];
        float p = sight.sees(i) ? exponential(score - largest) : 0;
        if constexpr (Stored::kScaled) {
          sum += p;
          if (p > 0)
            p *= shared_.scales[warp_].of_values[sight.slot(i)];  // else it stays: there may be no scale yet
        } else {
          p = to_float(bf16{round_to_bf16(p)});
          sum += p;
        }
        score = p;
      }
      NIB_UNROLL
      for (int by = 1; by < 4; by *= 2) sum += shuffle_xor(sum, by);
      if (lane_ % 4 == 0) shared_.sum[warp_][sight.query] = sum;
    }
    NIB_UNROLL
    for (int block = 0; block < kPagePositions / 16; ++block) {
      Words4 words;
      NIB_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* const pair = &scores[block * 2 + i / 2][i % 2 * 2];
        words.at[i] = round_to_bf16(pair[0]) | static_cast<std::uint32_t>(round_to_bf16(pair[1])) << 16;
      }
      shared_.p[tile][warp_ * (kPagePositions / 16) + block][lane_] = words;
    }
  }
  NIB_DEVICE float split_largest(int split, int query) const {
    float largest = shared_.largest[split % 2][0][query];
    NIB_UNROLL
    for (int i = 1; i < kAttentionWarps; ++i) {
      const float other = shared_.largest[split % 2][i][query];
      if (other > largest) largest = other;
    }
    return largest;
  }
  NIB_DEVICE float split_sum(int query) const {
    float sum = shared_.sum[0][query];
    NIB_UNROLL
    for (int i = 1; i < kAttentionWarps; ++i) sum += shared_.sum[i][query];
    return sum;
  }

  // Weighted values of this warp's columns, joined to those of splits before, or left in `partial`.
  NIB_DEVICE void add_split(int split, const SplitPages& pages, const Partial& partial) {
    Joint joints[kTiles * 2];
    if (!partial.values) {
      NIB_UNROLL
      for (int i = 0; i < kTiles * 2; ++i) {
        const int query = i / 2 * kTileQueries + lane_ / 4 + 8 * (i % 2);
        joints[i] = join(joined_[i], split_largest(split, query), split_sum(query));
      }
    }
    int step = 0;
    NIB_ROLLED
    for (int column = warp_; column < columns_; column += kAttentionWarps) {
      float sums[kTiles][2][4] = {};
      NIB_ROLLED
      for (int page = 0; page < kSplitPages; ++page, ++step) {
        meet_lanes();
        ask_values(pages, step + kAhead);
        close_copy_group();
        wait_for_copies<kAhead>();
        meet_lanes();
        if (!pages.of(page)) continue;
        NIB_UNROLL
        for (int tile = 0; tile < kTiles; ++tile)
          if (has_queries(tile)) add_page(tile, split, page, ring(1, step), sums[tile]);
      }
      NIB_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        if (!has_queries(tile)) continue;
        if (!partial.values) {
          add_to_values(tile, column, sums[tile], joints);
          continue;
        }
        NIB_UNROLL
        for (int n = 0; n < 2; ++n)
          partial.values[(column * 2 + n) * 32 + lane_] = {
              {sums[tile][n][0], sums[tile][n][1], sums[tile][n][2], sums[tile][n][3]}};
      }
    }
  }

  NIB_DEVICE void add_page(int tile, int split, int page, const Words4* column, float (&sums)[2][4]) const {
    constexpr int kBlocks = kPagePositions / 16;
    const int begin = split * kSplit + page * kPagePositions;
    const Extent& extent = extents_[tile];
    const Words4(*const p)[32] = &shared_.p[tile][page * kBlocks];
    if (begin >= extent.all_begin && begin + kPagePositions <= extent.all_end) {
      NIB_UNROLL
      for (int i = 0; i < kBlocks; ++i)
        Cores::template multiply<Stored, 2, true>(sums, p[i], column, i * 2, kAllOfTile, lane_);
      return;
    }
    NIB_ROLLED
    for (int i = 0; i < kBlocks; ++i) {
      const int at = begin + i * 16;
      if (at >= extent.all_begin && at + 16 <= extent.all_end)
        Cores::template multiply<Stored, 2, true>(sums, p[i], column, i * 2, kAllOfTile, lane_);
      else if (at + 16 > extent.any_begin && at < extent.any_end)
        add_ragged_block(tile, at, p[i], i * 2, column, sums);
    }
  }

  // Sixteen positions of which rows see different ones: row by row, what a row sees, for its queries alone.
  NIB_DEVICE void add_ragged_block(int tile, int at, const Words4* p, int first, const Words4* column,
                                   float (&sums)[2][4]) const {
    const int most = (tile + 1) * kTileQueries, count = queries_.count() < most ? queries_.count() : most;
    const int query = tile * kTileQueries + lane_ / 4;
    NIB_ROLLED
    for (int from = tile * kTileQueries; from < count;) {
      const int end = (from / queries_.heads + 1) * queries_.heads;  // of the row's queries
      const std::uint32_t keep = seen_of(at, shared_.begin[from], shared_.end[from]);
      if (keep != 0) {
        float trial[2][4];
        NIB_UNROLL
        for (int i = 0; i < 8; ++i) trial[i / 4][i % 4] = sums[i / 4][i % 4];
        Cores::template multiply<Stored, 2, false>(trial, p, column, first, keep, lane_);
        NIB_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int mine = query + i % 4 / 2 * 8;
          if (mine >= from && mine < end) sums[i / 4][i % 4] = trial[i / 4][i % 4];
        }
      }
      from = end;
    }
  }
  // Bit i: position at + i is in [begin, end).
  NIB_DEVICE static std::uint32_t seen_of(int at, int begin, int end) {
    const int low = begin > at ? begin - at : 0, high = end < at + 16 ? end - at : 16;
    return low < high ? (1u << high) - (1u << low) : 0;
  }

  // ---- values of all splits: each lane has its own

  NIB_DEVICE TileSums& values(int tile, int column, int n) const {
    return values_[((tile * columns_ + column) * 2 + n) * 32 + lane_];
  }
  NIB_DEVICE void add_to_values(int tile, int column, const float (&sums)[2][4],
                                const Joint (&joints)[kTiles * 2]) const {
    NIB_UNROLL
    for (int n = 0; n < 2; ++n) {
      TileSums& to = values(tile, column, n);
      NIB_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Joint& joint = joints[tile * 2 + i / 2];
        if (joint.sees_nothing) continue;
        to.at[i] = joint.is_first ? sums[n][i]
                                  : fused_multiply_add(sums[n][i], joint.after, to.at[i] * joint.before);
      }
    }
  }

  const AttentionArgs& args_;
  Shared& shared_;
  const Queries& queries_;
  int warp_, lane_, columns_;
  Words4* q_;
  TileSums* values_;
  std::byte* const* table_;
  int first_page_, any_begin_, any_end_;
  std::size_t head_offset_;
  Extent extents_[kTiles];
  Joined joined_[kTiles * 2];
};

}  // namespace nib::inline v0::cuda
