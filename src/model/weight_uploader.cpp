#include "weight_uploader.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

namespace nib::inline v0 {
namespace {

constexpr std::int64_t kGroupRows = kGroupStrips * kStripRows;
constexpr std::uint64_t kPieceBytes = std::uint64_t{16} << 20;

}  // namespace

// A matrix of MXFP4 has one factor for all of its rows, and one that is stored [k, rows] is packed as a
// whole; all others go in pieces.
std::int64_t WeightUploader::groups_at_once(const Matrix& m) {
  const PackedWeight shape = m.shape();
  const std::int64_t all = ceil_div(shape.strips(), kGroupStrips);
  if (m.transposed || device_form(shape) == DeviceForm::mxfp4) return all;
  // A piece has whole heads.
  const std::int64_t unit =
      std::lcm(std::int64_t{std::max(m.device_rows().head_dim, 1)}, kGroupRows) / kGroupRows;
  const std::uint64_t units = kGroupStrips * shape.strip_bytes() * static_cast<std::uint64_t>(unit);
  return std::min(std::max(static_cast<std::int64_t>(kPieceBytes / units), std::int64_t{1}) * unit, all);
}

// The rows of these groups as a matrix of their own.
PackedWeight WeightUploader::part_of(const Matrix& m, Range groups) {
  PackedWeight part = m.shape();
  part.rows = std::min(groups.end * kGroupRows, part.rows) - groups.begin * kGroupRows;
  return part;
}

std::uint64_t WeightUploader::staging_of(const Matrix& m) {
  const PackedWeight part = part_of(m, {0, groups_at_once(m)});
  return round_up(std::uint64_t{part.bytes()}, std::uint64_t{64}) + device_bytes(part);
}

Status WeightUploader::matrix(const Matrix& m, const std::string& path) {
  const std::int64_t groups = ceil_div(m.shape().strips(), kGroupStrips), at_once = groups_at_once(m);
  for (std::int64_t expert = 0; expert < m.stored.experts; ++expert)
    for (std::int64_t first = 0; first < groups; first += at_once) {
      if (packer_.stopped()) return packer_.stopped_status();
      Status sent = send(m, expert, {first, std::min(first + at_once, groups)});
      if (sent.code() == Code::unsupported)
        return Status(Code::unsupported,
                      concat(path, ": tensor ", m.stored.tensors[0]->name, ": ", sent.message()));
      NIB_TRY(sent);
    }
  return {};
}

Status WeightUploader::send(const Matrix& m, std::int64_t expert, Range groups) {
  PackedWeight part = part_of(m, groups);
  // Behind those before it, whose header serves for all.
  const std::uint64_t before = groups.begin ? device_bytes(part_of(m, {0, groups.begin})) : 0,
                      header = groups.begin ? kDeviceHeaderBytes : 0;
  std::byte* const to = home(m) + static_cast<std::uint64_t>(expert) * m.expert_bytes() + before;
  const bool is_packed_there = m.slots && !header;
  std::byte* const ours =
      is_packed_there ? to : staging_.data() + round_up(std::uint64_t{part.bytes()}, std::uint64_t{64});
  NIB_TRY(packer_.pack_groups(m, expert, groups, staging_.data()));
  part.data = staging_.data();
  std::mutex mutex;
  Status first;
  pool_.run([&](int index, int count) {
    if (Status packed = device_.pack(part, m.device_rows(), ours, index, count); !packed.ok()) {
      const std::lock_guard lock(mutex);
      first = std::move(packed);
    }
  });
  NIB_TRY(first);
  if (is_packed_there) return {};
  if (!m.slots) return device_.upload(to, ours + header, device_bytes(part) - header);
  std::memcpy(to, ours + header, device_bytes(part) - header);
  return {};
}

}  // namespace nib::inline v0
