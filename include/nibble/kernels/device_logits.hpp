// Room kernels: logits that stay on a device: how a row of them is to be weighed there, and what the device
// tells of it, so that drawing a token needs a few kilobytes in place of the row.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/kernels/backend.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// On the device, so that what differs between rows and tokens changes no kernel's arguments.
struct LogitWeighing {
  double below;               // at most 0; logits that lie further below the largest weigh nothing
  float inverse_temperature;  // as LogitScale has it
  float penalty;  // of tokens that were seen: divides positive, multiplies negative logits; 1: none
  std::int32_t wants_likely;  // whether the likeliest are to be listed
  std::int32_t reserved;      // zero
};

// Tokens that were seen: bit id % 32 of word id / 32, in whole blocks.
constexpr std::int64_t seen_words(std::int64_t vocabulary) {
  return ceil_div(vocabulary, kLogitBlock) * (kLogitBlock / 32);
}

struct LikelyLogit {
  std::uint32_t id;
  float logit;
};
inline constexpr std::int64_t kMostLikely = 1024;

// The beginning of a digest, of finite logits after the penalty.
struct LogitDigest {
  float largest;  // minus infinity: there is none, and what follows means nothing
  float least;    // every logit of at least this is in the list of the likeliest, unless there is no room
  std::uint32_t best;   // the largest one, the lowest id on ties
  std::int32_t likely;  // entries of the list; more than kMostLikely: some were left out
};

// A digest of one row: its beginning, then the sum of weights of each block (LogitOps::weights, its bits),
// then the likeliest, in any order.
struct DigestLayout {
  std::int64_t vocabulary;

  constexpr std::int64_t blocks() const { return ceil_div(vocabulary, kLogitBlock); }
  constexpr std::int64_t sums_offset() const { return sizeof(LogitDigest); }
  constexpr std::int64_t likely_offset() const {
    return sums_offset() + round_up(blocks() * std::int64_t{sizeof(float)}, std::int64_t{16});
  }
  constexpr std::int64_t bytes() const {
    return likely_offset() + kMostLikely * std::int64_t{sizeof(LikelyLogit)};
  }
};

// The digests of rows of logits, as a device makes them. All pointers are the device's.
struct DigestArgs {
  const float* logits;  // [rows][row_stride(vocabulary)]
  std::int64_t rows, vocabulary;
  const LogitWeighing* weighings;  // [rows]
  const std::uint32_t* seen;       // [rows][seen_words(vocabulary)]; read where there is a penalty
  float* maxima;                   // scratch [rows][blocks]
  std::byte* digests;              // out [rows][DigestLayout::bytes()], at a multiple of 16
};

}  // namespace nib::inline v0
