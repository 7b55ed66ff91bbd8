#include <nibble/model/device_digests.hpp>

#include <algorithm>
#include <cstring>

namespace nib::inline v0 {

Status DeviceDigests::expect(const Device& device, std::span<const DrawnRow> rows) {
  expected_.clear();
  for (const DrawnRow& row : rows) expected_.push_back(row.weighing);
  const std::size_t bytes = expected_.size() * sizeof(LogitWeighing);
  // The same from token to token, but for sessions that come and go.
  const bool is_there =
      expected_.size() <= sent_.size() && std::memcmp(expected_.data(), sent_.data(), bytes) == 0;
  if (!is_there) {
    sent_.clear();  // unknown, should it fail
    NIB_TRY(device.upload(weighings_, expected_.data(), bytes));
    sent_ = expected_;
  }
  std::uint32_t* seen = seen_;
  for (const DrawnRow& row : rows) {
    if (row.weighing.penalty != 1) NIB_TRY(device.upload(seen, row.seen.data(), row.seen.size_bytes()));
    seen += seen_words(vocabulary_);
  }
  return {};
}

Status DeviceDigests::digest(const Device& device, const float* logits) const {
  const OpContext none{};
  return device.run(device.ops().digest, none,
                    DigestArgs{.logits = logits,
                               .rows = static_cast<std::int64_t>(expected_.size()),
                               .vocabulary = vocabulary_,
                               .weighings = weighings_,
                               .seen = seen_,
                               .maxima = maxima_,
                               .digests = digests_});
}

Status DeviceDigests::fetch(const Device& device) {
  told_.resize(expected_.size() * row_bytes());
  if (told_.empty()) return {};
  // The last row's list is what can be spared.
  const std::size_t list = static_cast<std::size_t>(kMostLikely) * sizeof(LikelyLogit);
  return device.download(told_.data(), digests_, told_.size() - (expected_.back().wants_likely ? 0 : list));
}

std::span<const std::byte> DeviceDigests::of(std::size_t row) const {
  return std::span(told_).subspan(row * row_bytes(), row_bytes());
}

}  // namespace nib::inline v0
