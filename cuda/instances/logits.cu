// Digests of logits, in two kernels: the largest of each block, then all else. A warp has a block of one row,
// and reads what it needs of the other blocks' maxima by itself. Numbers are those that the processor's
// sampler would find in the same logits (src/kernels/bodies/vocabulary.hpp), to the bit: the same operations
// in the same order, and subnormals are zero before and after each.
#include "../arch.cuh"
#include "../logits.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/kernels/exponential.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBlock = static_cast<int>(kLogitBlock),
              kEach = kBlock / 32;  // logits of a block, and of a lane
constexpr float kInfinity = std::numeric_limits<float>::infinity();

NIB_DEVICE float flushed(float x) { return std::fabs(x) < 0x1p-126f ? 0.0f : x; }

// The verbs of cpu::exp for one number: constexpr as that is, or nvcc would not let it call them, and in a
// template, for they are none.
template <class Float>
struct OneNumber {
  using F = Float;
  NIB_DEVICE static constexpr F set(float x) { return x; }
  NIB_DEVICE static constexpr F sub(F a, F b) { return a - b; }
  NIB_DEVICE static constexpr F fma(F a, F b, F c) { return fused_multiply_add(a, b, c); }
  NIB_DEVICE static constexpr F max(F a, F b) { return a > b ? a : b; }
  NIB_DEVICE static constexpr F min(F a, F b) { return a < b ? a : b; }
  NIB_DEVICE static constexpr F if_less(F a, F b, F yes, F no) { return a < b ? yes : no; }
  NIB_DEVICE static constexpr F scale(F p, F n) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(n) << 23));
  }
};

// The block of a row that is this warp's.
struct Share {
  int row, block, blocks, lane;
};
NIB_DEVICE Share share_of(const DigestArgs& args) {
  const auto blocks = static_cast<int>(DigestLayout{args.vocabulary}.blocks());
  const int of_row = (blocks + kWarps - 1) / kWarps, row = block_index() / of_row;
  return {row, (block_index() - row * of_row) * kWarps + thread_index() / 32, blocks, thread_index() % 32};
}

// Every 32nd logit of the block, from the lane's on, after the penalty; minus infinity for what lies beyond
// the last one and for what is no finite number.
NIB_DEVICE void load_logits(const DigestArgs& args, const Share& at, float (&out)[kEach]) {
  const std::int64_t first = std::int64_t{at.block} * kBlock;
  const float* const logits = args.logits + at.row * row_stride(args.vocabulary) + first;
  const std::int64_t left = args.vocabulary - first;
  NIB_UNROLL
  for (int i = 0; i < kEach; ++i) {
    const int place = 32 * i + at.lane;
    out[i] = place < left ? flushed(logits[place]) : -kInfinity;
  }
  const float penalty = flushed(args.weighings[at.row].penalty);
  if (penalty != 1) {
    const std::uint32_t* const seen =
        args.seen + (std::int64_t{at.row} * at.blocks + at.block) * std::int64_t{kEach};
    NIB_UNROLL
    for (int i = 0; i < kEach; ++i)
      if (seen[i] >> at.lane & 1) out[i] = flushed(out[i] > 0 ? out[i] / penalty : out[i] * penalty);
  }
  NIB_UNROLL
  for (int i = 0; i < kEach; ++i) out[i] = out[i] < kInfinity ? out[i] : -kInfinity;
}

NIB_DEVICE std::byte* digest_of(const DigestArgs& args, int row) {
  return args.digests + row * DigestLayout{args.vocabulary}.bytes();
}
NIB_DEVICE LogitDigest& head_of(const DigestArgs& args, int row) {
  return *reinterpret_cast<LogitDigest*>(digest_of(args, row));
}

NIB_KERNEL void NIB_FITS(kThreads, 4) maxima_kernel(DigestArgs args) {
  wait_for_kernel_before();
  const Share at = share_of(args);
  if (at.block >= at.blocks) return;
  float logits[kEach];
  load_logits(args, at, logits);
  float most = logits[0];
  NIB_UNROLL
  for (int i = 1; i < kEach; ++i) most = logits[i] > most ? logits[i] : most;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) {
    const float other = shuffle_xor(most, by);
    most = other > most ? other : most;
  }
  if (at.lane > 0) return;
  args.maxima[std::int64_t{at.row} * at.blocks + at.block] = most;
  if (at.block == 0) head_of(args, at.row).likely = 0;  // which the next kernel counts
}

// The largest of a row's maxima, and the first block that has it.
struct Largest {
  float logit;
  int block;
};
NIB_DEVICE Largest find_largest(const float* maxima, const Share& at) {
  Largest found{-kInfinity, 0};
  for (int block = at.lane; block < at.blocks; block += 32)
    if (const float logit = maxima[block]; logit > found.logit) found = {logit, block};
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) {
    const float logit = shuffle_xor(found.logit, by);
    const int block = shuffle_xor(found.block, by);
    if (logit > found.logit || (logit == found.logit && block < found.block)) found = {logit, block};
  }
  return found;
}

// Larger numbers for larger floats, of which none is NaN.
NIB_DEVICE std::uint32_t rank_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0f);  // -0 is 0
  return bits >> 31 ? ~bits : bits | 0x8000'0000u;
}
NIB_DEVICE float of_rank(std::uint32_t rank) {
  return std::bit_cast<float>(rank >> 31 ? rank & 0x7fff'ffffu : ~rank);
}

// At most the `wanted`-th largest of the maxima, and less by no more than its lower 16 bits, found bit by
// bit. Or NaN, where there are minus infinities among those.
NIB_DEVICE float find_bound(const float* maxima, int wanted, const Share& at) {
  std::uint32_t rank = 0;
  NIB_ROLLED
  for (std::uint32_t bit = 0x8000'0000u; bit > 0x8000u; bit >>= 1) {
    int reach = 0;
    for (int block = at.lane; block < at.blocks; block += 32) reach += rank_of(maxima[block]) >= (rank | bit);
    NIB_UNROLL
    for (int by = 1; by < 32; by *= 2) reach += shuffle_xor(reach, by);
    if (reach >= wanted) rank |= bit;
  }
  return flushed(of_rank(rank));
}

// What logits weigh, summed up as the processor does it: chain c of sixteen has every 16th of them, those of
// lane c and of lane c + 16 in turn; then a tree.
NIB_DEVICE float sum_weights(const float (&logits)[kEach], float largest, float least, float inverse,
                             int lane) {
  float sum = 0;
  NIB_UNROLL
  for (int i = 0; i < kEach; ++i) {
    const float weight =
        logits[i] < least ? 0.0f : cpu::exp<OneNumber<float>>(flushed(logits[i] - largest) * inverse);
    const float other = shuffle_xor(weight, 16);
    sum += lane < 16 ? weight : other;
    sum += lane < 16 ? other : weight;
  }
  NIB_UNROLL
  for (int by = 8; by > 0; by /= 2) sum += shuffle_xor(sum, by);
  return sum;
}

// Adds those of at least `bound` to the list; in whatever order warps come.
NIB_DEVICE void list_likely(const DigestArgs& args, const Share& at, const float (&logits)[kEach],
                            float bound) {
  int mine = 0;
  NIB_UNROLL
  for (int i = 0; i < kEach; ++i) mine += logits[i] >= bound;
  int up_to_mine = mine;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) {
    const int before = shuffle_up(up_to_mine, by);
    if (at.lane >= by) up_to_mine += before;
  }
  const int all = shuffle(up_to_mine, 31);
  if (all == 0) return;
  int first = 0;
  if (at.lane == 0) first = add_in_order(&head_of(args, at.row).likely, all);
  int place = shuffle(first, 0) + up_to_mine - mine;
  auto* const list =
      reinterpret_cast<LikelyLogit*>(digest_of(args, at.row) + DigestLayout{args.vocabulary}.likely_offset());
  NIB_UNROLL
  for (int i = 0; i < kEach; ++i) {
    if (!(logits[i] >= bound)) continue;
    if (place < kMostLikely)
      list[place] = {static_cast<std::uint32_t>(at.block * kBlock + 32 * i + at.lane), logits[i]};
    ++place;
  }
}

// wanted: that many blocks have a logit of the list at least; 0: all that weigh anything are listed.
NIB_KERNEL void NIB_FITS(kThreads, 3) digest_kernel(DigestArgs args, int wanted) {
  wait_for_kernel_before();
  const Share at = share_of(args);
  if (at.block >= at.blocks) return;
  const LogitWeighing weighing = args.weighings[at.row];
  const float* const maxima = args.maxima + std::int64_t{at.row} * at.blocks;
  float logits[kEach];
  load_logits(args, at, logits);
  const Largest largest = find_largest(maxima, at);
  constexpr double kLowest = -static_cast<double>(std::numeric_limits<float>::max());
  const double least_exact = static_cast<double>(largest.logit) + weighing.below;
  const float least = flushed(static_cast<float>(least_exact > kLowest ? least_exact : kLowest));

  const float sum = sum_weights(logits, largest.logit, least, weighing.inverse_temperature, at.lane);
  if (at.lane == 0)
    reinterpret_cast<float*>(digest_of(args, at.row) +
                             DigestLayout{args.vocabulary}.sums_offset())[at.block] = sum;

  float bound = least;
  if (weighing.wants_likely) {
    if (wanted > 0)
      if (const float found = find_bound(maxima, wanted, at); found > least) bound = found;
    list_likely(args, at, logits, bound);
  }
  if (at.block != largest.block) return;
  int best = kBlock;
  NIB_UNROLL
  for (int i = kEach - 1; i >= 0; --i)
    if (logits[i] == largest.logit) best = 32 * i + at.lane;
  NIB_UNROLL
  for (int by = 1; by < 32; by *= 2) {
    const int other = shuffle_xor(best, by);
    best = other < best ? other : best;
  }
  if (at.lane > 0) return;
  LogitDigest& head = head_of(args, at.row);
  head.largest = largest.logit;
  head.least = bound;
  head.best = static_cast<std::uint32_t>(at.block * kBlock + best);
}

}  // namespace

Status digest_logits(const Queue& queue, const DigestArgs& args) {
  if (args.rows == 0) return {};
  if (args.rows < 0 || args.vocabulary < 1 || args.vocabulary > std::numeric_limits<std::int32_t>::max())
    return Status(Code::argument, concat("logits on a device: expected rows of 1 to 2147483647, found ",
                                         args.rows, " rows of ", args.vocabulary));
  const auto blocks = static_cast<int>(DigestLayout{args.vocabulary}.blocks());
  const LaunchShape shape{static_cast<int>(args.rows) * ((blocks + kWarps - 1) / kWarps), kThreads, 0};
  // Where the likeliest lie anywhere, about 300 reach the 256th largest of 786 maxima, or twice as many as
  // there are blocks seven eighths of fewer: a quarter or more of the room.
  const int wanted = args.vocabulary <= kMostLikely ? 0 : std::min(256, blocks - blocks / 8);
  NIB_TRY(launch(maxima_kernel, shape, queue.stream, args));
  return launch(digest_kernel, shape, queue.stream, args, wanted);
}

}  // namespace nib::inline v0::cuda
