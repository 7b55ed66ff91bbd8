#include "logit_views.hpp"

#include <nibble/base/bits.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>

namespace nib::inline v0 {
namespace {

Status check_finite(float largest) {
  if (largest >= std::numeric_limits<float>::lowest()) return {};
  return {Code::internal, "no logit is a finite number: the model cannot continue"};
}

LogitScale scale_of(float largest, const LogitWeighing& weighing) {
  const double least = static_cast<double>(largest) + weighing.below;
  return {largest, weighing.inverse_temperature,
          static_cast<float>(std::max(least, -double{std::numeric_limits<float>::max()}))};
}

void keep_likeliest(std::size_t count, std::vector<Candidate>& tokens) {
  if (count >= tokens.size()) return;
  std::nth_element(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count), tokens.end(),
                   likelier);
  tokens.resize(count);
}

}  // namespace

// ---- on the host

Result<HostLogits> HostLogits::make(const Backend& backend, std::span<const float> logits,
                                    const LogitWeighing& weighing, SamplerScratch& scratch) {
  HostLogits made(logits, scratch);
  const auto count = static_cast<std::int64_t>(logits.size());
  std::vector<float>&maxima = scratch.maxima, &sums = scratch.sums;
  maxima.resize(static_cast<std::size_t>(ceil_div(count, kLogitBlock)));
  sums.resize(maxima.size());
  backend.logits.maxima(logits.data(), count, maxima.data());
  const auto block = std::max_element(maxima.begin(), maxima.end());  // the first of equal ones
  const float largest = block == maxima.end() ? -std::numeric_limits<float>::infinity() : *block;
  NIB_TRY(check_finite(largest));
  const auto at = std::find(logits.begin() + (block - maxima.begin()) * kLogitBlock, logits.end(), largest);
  made.scale = scale_of(largest, weighing);
  backend.logits.weights(logits.data(), count, made.scale, scratch.weights.data(), sums.data());
  made.sums = sums;
  const auto id = static_cast<std::size_t>(at - logits.begin());
  made.best = {static_cast<Token>(id), *at, scratch.weights[id]};
  return made;
}

LogitView::Found HostLogits::find_from(float least, std::vector<Candidate>& out) {
  // By themselves, or they would be read again after each that is found.
  const std::span<const float> logits = logits_, weights = scratch_.weights, maxima = scratch_.maxima;
  const float largest = scale.largest;
  for (std::size_t block = 0; block < maxima.size(); ++block) {
    if (maxima[block] < least) continue;  // most of them
    const std::size_t begin = block * kLogitBlock, end = std::min(begin + kLogitBlock, logits.size());
    for (std::size_t id = begin; id < end; ++id)
      if (logits[id] >= least && logits[id] <= largest)
        out.push_back({static_cast<Token>(id), logits[id], weights[id]});
  }
  return Found::all;
}

bool HostLogits::find_likeliest(std::size_t count, std::vector<Candidate>& out) {
  // As many blocks as that have one each that is at least this.
  float least = scale.least;
  std::vector<float>& ranked = scratch_.ranked;
  ranked = scratch_.maxima;
  if (count <= ranked.size()) {
    const auto at = ranked.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(ranked.begin(), at, ranked.end(), std::greater<>());
    least = std::max(least, *at);
  }
  find_from(least, out);
  keep_likeliest(count, out);
  return true;
}

Result<LogitView::Block> HostLogits::block(std::size_t index) {
  const std::size_t begin = index * kLogitBlock,
                    count = std::min<std::size_t>(kLogitBlock, logits_.size() - begin);
  return Block{logits_.subspan(begin, count), scratch_.weights.subspan(begin, count)};
}

// ---- on a device

Result<DigestedLogits> DigestedLogits::make(const Backend& backend, const PlacedLogits& logits,
                                            const LogitWeighing& weighing, std::span<const Token> history,
                                            SamplerScratch& scratch) {
  DigestedLogits made(backend, logits, history, scratch);
  const DigestLayout layout{static_cast<std::int64_t>(logits.here.size())};
  const std::byte* const digest = logits.digest.data();
  LogitDigest head;
  std::memcpy(&head, digest, sizeof head);
  NIB_TRY(check_finite(head.largest));
  if (head.best >= logits.here.size())
    return Status(Code::internal, "the device tells of a token that the model does not have");
  made.scale = scale_of(head.largest, weighing);
  made.best = {head.best, head.largest, 1};
  made.sums = {reinterpret_cast<const float*>(digest + layout.sums_offset()),
               static_cast<std::size_t>(layout.blocks())};
  made.penalty_ = weighing.penalty;
  made.listed_from_ = head.least;
  if (weighing.wants_likely && head.likely > 0 && head.likely <= kMostLikely)
    made.list_ = {reinterpret_cast<const LikelyLogit*>(digest + layout.likely_offset()),
                  static_cast<std::size_t>(head.likely)};
  return made;
}

void DigestedLogits::take_from(float least, std::vector<Candidate>& out) {
  for (const LikelyLogit& likely : list_)
    if (likely.logit >= least && likely.id < logits_.here.size()) out.push_back({likely.id, likely.logit, 0});
  std::vector<float>& few = scratch_.few;
  const std::size_t count = out.size();
  few.resize(2 * count + ceil_div(count, std::size_t{kLogitBlock}));
  for (std::size_t i = 0; i < count; ++i) few[i] = out[i].logit;
  backend_.logits.weights(few.data(), static_cast<std::int64_t>(count), scale, few.data() + count,
                          few.data() + 2 * count);
  for (std::size_t i = 0; i < count; ++i) out[i].weight = few[count + i];
}

bool DigestedLogits::find_likeliest(std::size_t count, std::vector<Candidate>& out) {
  const bool is_complete = !list_.empty() && listed_from_ <= scale.least;
  if (list_.size() < count && !is_complete) return false;
  take_from(scale.least, out);
  keep_likeliest(count, out);
  return true;
}

LogitView::Found DigestedLogits::find_from(float least, std::vector<Candidate>& out) {
  take_from(least, out);
  return !list_.empty() && listed_from_ <= least ? Found::all : Found::likeliest;
}

Result<LogitView::Block> DigestedLogits::block(std::size_t index) {
  const std::size_t begin = index * kLogitBlock,
                    count = std::min<std::size_t>(kLogitBlock, logits_.here.size() - begin);
  std::vector<float>& few = scratch_.few;
  few.resize(2 * kLogitBlock + 1);
  const std::span<float> logits(few.data(), count), weights(few.data() + kLogitBlock, count);
  NIB_TRY(logits_.device->download(logits.data(), logits_.there + begin, logits.size_bytes()));
  if (penalty_ != 1.0f) {
    std::array<bool, kLogitBlock> seen{};
    for (const Token id : history_)
      if (id >= begin && id - begin < count) seen[id - begin] = true;
    for (std::size_t i = 0; i < count; ++i)
      if (seen[i]) logits[i] = penalized(logits[i], penalty_);
  }
  backend_.logits.weights(logits.data(), static_cast<std::int64_t>(count), scale, weights.data(),
                          &few[2 * kLogitBlock]);
  return Block{logits, weights};
}

}  // namespace nib::inline v0
