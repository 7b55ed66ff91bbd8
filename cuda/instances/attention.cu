#include "../bodies/attention.cuh"
#include <nibble/base/concat.hpp>

#include <limits>
#include <type_traits>

namespace nib::inline v0::cuda {
namespace {

// Batches of so few rows have their splits dealt to all blocks: else one block goes through the splits of its
// queries.
constexpr int kFewRows = 16;
constexpr int kMostGroup = 64, kMostHeadDim = 256;

// How rows and heads are dealt to blocks of so many queries: the heads of a kv head in parts of `heads`, and
// where they are few, so many rows of one session together.
struct Deal {
  int group, heads, parts, together;
  static Deal of(int heads, int kv_heads, int most) {
    const int group = heads / kv_heads, part = group < most ? group : most;
    return {group, part, (group + part - 1) / part, most / part};
  }
  NIB_DEVICE int parts_of_row(int kv_heads) const { return kv_heads * parts; }
  // Queries from row `row` on, of part `index` of its parts.
  NIB_DEVICE Queries queries(int row, int rows, int index) const {
    const int kv_head = index / parts, first = index % parts * heads;
    return {row, rows, kv_head, kv_head * group + first, heads < group - first ? heads : group - first};
  }
};

// The rows of a session that lie together in the batch are cut at multiples of deal.together.
NIB_DEVICE bool begins_tile(const AttentionArgs& args, const Deal& deal, int row) {
  if (row % deal.together == 0) return true;
  const KvRow &before = args.kv_rows[row - 1], &here = args.kv_rows[row];
  return before.pages != here.pages || before.first_page != here.first_page;
}
NIB_DEVICE int rows_of_tile(const AttentionArgs& args, const Deal& deal, int row) {
  int end = row + 1;
  while (end < args.rows && !begins_tile(args, deal, end)) ++end;
  return end - row;
}

template <class Shape>
NIB_KERNEL void NIB_FITS(kAttentionThreads, Shape::kBlocks)
    attend_in_sequence_kernel(AttentionArgs args, Deal deal) {
  wait_for_kernel_before();
  auto& shared = shared_memory<AttentionShared<Shape>>();
  const int parts = deal.parts_of_row(args.kv.kv_heads);
  const int row = static_cast<int>(args.rows) - 1 - block_index() / parts;  // the longest ones first
  if (!begins_tile(args, deal, row)) return;
  const Queries queries = deal.queries(row, rows_of_tile(args, deal, row), block_index() % parts);
  AttentionBlock<Shape> block(args, shared, queries);
  block.walk(block.first_split(), block.end_split(), {});
  block.finish();
}

// Rows and splits of the tile that begins at a row, if one does.
struct Splits {
  int rows, first, count;
};

template <class Shape>
struct InPartsShared {
  Splits splits[kFewRows];
  AttentionShared<Shape> block;  // and what follows it
};

// Partials: for each split in order, one for each part of its row.
struct Partials {
  std::byte* room;
  std::int64_t count;
  std::int32_t* counters;  // one for each row and part
};

template <class Shape>
NIB_KERNEL void NIB_FITS(kAttentionThreads, Shape::kBlocks)
    attend_in_parts_kernel(AttentionArgs args, Deal deal, Partials partials) {
  wait_for_kernel_before();
  auto& shared = shared_memory<InPartsShared<Shape>>();
  const int parts = deal.parts_of_row(args.kv.kv_heads), rows = static_cast<int>(args.rows);
  if (thread_index() < rows) {
    Splits splits{};
    if (begins_tile(args, deal, thread_index())) {
      splits.rows = rows_of_tile(args, deal, thread_index());
      std::int64_t begin = std::numeric_limits<std::int64_t>::max(), end = 0;
      for (int i = 0; i < splits.rows; ++i) {
        const std::int64_t after = args.kv_rows[thread_index() + i].position + 1;
        const std::int64_t from = args.window > 0 && after > args.window ? after - args.window : 0;
        if (from < begin) begin = from;
        if (after > end) end = after;
      }
      splits.first = static_cast<int>(begin / kSplit);
      splits.count = static_cast<int>((end + kSplit - 1) / kSplit) - splits.first;
    }
    shared.splits[thread_index()] = splits;
  }
  sync_block();
  int all = 0, tiles = 0;
  for (int row = 0; row < rows; ++row) {
    all += shared.splits[row].count;
    tiles += shared.splits[row].count > 0;
  }
  const bool in_parts = std::int64_t{all} * parts <= partials.count;
  const int items = (in_parts ? all : tiles) * parts;
  NIB_ROLLED
  for (int item = block_index(); item < items; item += block_count()) {
    int row = 0, before = 0;  // items of rows before, parts aside
    NIB_ROLLED
    for (;; ++row) {
      const int count = shared.splits[row].count, mine = in_parts ? count : count > 0;
      if (item / parts < before + mine) break;
      before += mine;
    }
    const Splits splits = shared.splits[row];
    const Queries queries = deal.queries(row, splits.rows, item % parts);
    AttentionBlock<Shape> block(args, shared.block, queries);
    const bool is_part = in_parts && splits.count > 1;
    const int split = splits.first + item / parts - before;
    block.walk(is_part ? split : block.first_split(), is_part ? split + 1 : block.end_split(),
               is_part ? Partial::at(partials.room, item, args.kv.padded_dim()) : Partial{});
    if (is_part) {
      sync_block();
      if (thread_index() == 0) {
        std::int32_t* const counter = partials.counters + row * parts + item % parts;
        shared.block.is_last = add_in_order(counter, 1) == splits.count - 1;
        if (shared.block.is_last) *counter = 0;
      }
      sync_block();
      if (!shared.block.is_last) continue;
      block.join_partials(partials.room, std::int64_t{before} * parts + item % parts, splits.count, parts);
    }
    block.finish();
  }
}

// Of shared memory a block may have 99 KiB where there are tensor cores, 64 elsewhere: heads of every width
// fit.
template <class Shape>
constexpr bool kFits = sizeof(InPartsShared<Shape>) - sizeof(AttentionShared<Shape>) +
                           AttentionShared<Shape>::bytes(kMostHeadDim / kColumnDims) <=
                       (std::is_same_v<typename Shape::Cores, OnTensorCores> ? 99 : 64) * 1024;

template <class Stored, class Cores>
Status attend(const Queue& queue, const OpContext& context, const AttentionArgs& args) {
  const int columns = args.kv.padded_dim() / kColumnDims;
  using Small = AttentionShape<Stored, Cores, 1>;
  static_assert(kFits<Small>);
  const Deal small = Deal::of(args.heads, args.kv.kv_heads, Small::kMost);
  const int parts = args.kv.kv_heads * small.parts;
  if (args.rows <= kFewRows) {
    const Scratch scratch(context);
    const bool counted = args.rows * parts <= static_cast<std::int64_t>(kScratchCounters);
    const Partials partials{
        scratch.room,
        counted ? static_cast<std::int64_t>(scratch.bytes) / partial_bytes(args.kv.padded_dim()) : 0,
        scratch.counters};
    const std::size_t bytes = sizeof(InPartsShared<Small>) + AttentionShared<Small>::bytes(columns) -
                              sizeof(AttentionShared<Small>);
    return launch(attend_in_parts_kernel<Small>,
                  {Small::kBlocks * queue.processors, kAttentionThreads, bytes}, queue.stream, args, small,
                  partials);
  }
  const auto in_sequence = [&]<class Shape>(std::type_identity<Shape>) {
    static_assert(kFits<Shape>);
    const Deal deal = Deal::of(args.heads, args.kv.kv_heads, Shape::kMost);
    return launch(attend_in_sequence_kernel<Shape>,
                  {static_cast<int>(args.rows) * args.kv.kv_heads * deal.parts, kAttentionThreads,
                   AttentionShared<Shape>::bytes(columns)},
                  queue.stream, args, deal);
  };
  if constexpr (std::is_same_v<Cores, OnTensorCores>)
    return in_sequence(std::type_identity<AttentionShape<Stored, Cores, 2>>());
  else
    return in_sequence(std::type_identity<Small>());
}

Status check(const AttentionArgs& args) {
  const int dim = args.kv.head_dim;
  if (dim < 2 || dim % 2 || dim > kMostHeadDim)
    return Status(Code::unsupported, concat("attention on a device: expected an even head width up to ",
                                            kMostHeadDim, ", found ", dim));
  if (args.kv.kv_heads < 1 || args.heads % args.kv.kv_heads || args.heads < args.kv.kv_heads ||
      args.heads / args.kv.kv_heads > kMostGroup)
    return Status(Code::unsupported,
                  concat("attention on a device: expected 1 to ", kMostGroup,
                         " query heads for each key head, found ", args.heads, " for ", args.kv.kv_heads));
  return {};
}

}  // namespace

Status attention(const Queue& queue, const OpContext& context, const AttentionArgs& args) {
  if (args.rows == 0) return {};
  NIB_TRY(check(args));
  const auto with = [&]<class Stored>(std::type_identity<Stored>) {
    return queue.tensor_cores ? attend<Stored, OnTensorCores>(queue, context, args)
                              : attend<Stored, OnPlainCores>(queue, context, args);
  };
  switch (args.kv.format) {
    case KvFormat::f32:
      return attend<TileF32, OnPlainCores>(queue, context, args);
    case KvFormat::int8:
      return with(std::type_identity<TileBytes<CodeInt8>>());
    case KvFormat::fp8:
      return with(std::type_identity<TileBytes<CodeE4M3>>());
    default:
      return with(std::type_identity<TileBf16>());
  }
}

}  // namespace nib::inline v0::cuda
