// From a checkpoint's bytes to packed weights: threads read pieces of natural rows and pack them.
#include "weight_packer.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1}
                                      << 20;  // one read: large enough for a disk, small for a cache
constexpr std::int64_t kGroupRows = kGroupStrips * kStripRows;

// Of one row as it is stored, or staged: scales that are shared have been spread over their runs then.
std::uint64_t code_row_bytes(const WeightPacker::Matrix& m) {
  const FormatInfo& info = format_info(m.format);
  return static_cast<std::uint64_t>(m.k) / info.group * info.code_bytes;
}
std::uint64_t scale_row_bytes(const WeightPacker::Matrix& m) {
  const FormatInfo& info = format_info(m.format);
  if (info.scales == Scales::shared)
    return static_cast<std::uint64_t>(ceil_div(m.k, m.scale_run)) * sizeof(float);
  return static_cast<std::uint64_t>(m.k) / info.group * info.scale_bytes;
}

}  // namespace

WeightPacker::Pieces WeightPacker::pieces_of(const Matrix& m) {
  if (m.transposed) {
    const std::uint64_t column =
        static_cast<std::uint64_t>(m.stored.map.part_rows[0]) * format_info(m.format).code_bytes;
    return {ceil_div(m.k, kTileK), 1, static_cast<std::uint64_t>(std::min(m.k, kTileK)) * column};
  }
  const std::uint64_t group = kGroupRows * (code_row_bytes(m) + scale_row_bytes(m));
  const std::int64_t groups = ceil_div(m.shape().strips(), kGroupStrips);
  const auto count = static_cast<std::int64_t>(
      std::clamp<std::uint64_t>(kPieceBytes / group, 1, static_cast<std::uint64_t>(groups)));
  return {groups, count, static_cast<std::uint64_t>(count) * group};
}

Result<ScaleRange> WeightPacker::pack(const Matrix& m, Range experts, std::byte* out) {
  scales_ = ScaleRange::narrow;
  const Pieces pieces = pieces_of(m);
  const std::uint64_t each = m.shape().bytes();
  NIB_TRY(in_parallel(experts.size() * pieces.per_expert(), [&](std::int64_t piece, std::byte* staging) {
    const std::int64_t at = piece / pieces.per_expert(), expert = experts.begin + at;
    const std::int64_t first = piece % pieces.per_expert() * pieces.count;
    const Range units{first, std::min(first + pieces.count, pieces.units)};
    std::byte* to = out + static_cast<std::uint64_t>(at) * each;
    if (!m.shape().tiled()) return copy_records(m, expert, units, to);
    return m.transposed ? pack_transposed(m, expert, units, staging, to)
                        : pack_strips(m, expert, units, staging, to);
  }));
  return scales_.load();
}

Status WeightPacker::pack_groups(const Matrix& m, std::int64_t expert, Range groups, std::byte* out) {
  const PackedWeight shape = m.shape();
  const std::uint64_t group = kGroupStrips * shape.strip_bytes();
  const std::uint64_t first = static_cast<std::uint64_t>(groups.begin) * group;
  const std::uint64_t bytes = std::min(static_cast<std::uint64_t>(groups.end) * group, shape.bytes()) - first;
  if (const PreparedMatrix* prepared = m.prepared_in(checkpoint_))
    return read_bytes(prepared->plane, static_cast<std::uint64_t>(expert) * prepared->record_bytes + first,
                      bytes, out);
  if (m.transposed) return pack(m, {expert, expert + 1}, out).status();
  const std::int64_t at_once = pieces_of(m).count;
  return in_parallel(ceil_div(groups.size(), at_once), [&](std::int64_t piece, std::byte* staging) {
    const std::int64_t begin = groups.begin + piece * at_once;
    // Where group 0 would lie.
    return pack_strips(m, expert, {begin, std::min(begin + at_once, groups.end)}, staging, out - first);
  });
}

Result<ScaleRange> WeightPacker::read(const Matrix& m, const PreparedMatrix& prepared, std::byte* out) {
  const std::uint64_t each = m.shape().bytes(), pieces = ceil_div(each, kPieceBytes);
  NIB_TRY(
      in_parallel(m.stored.experts * static_cast<std::int64_t>(pieces), [&](std::int64_t piece, std::byte*) {
        const std::uint64_t record = static_cast<std::uint64_t>(piece) / pieces;
        const std::uint64_t at = static_cast<std::uint64_t>(piece) % pieces * kPieceBytes;
        return read_plane(checkpoint_, prepared.plane, record * prepared.record_bytes + at,
                          {out + record * each + at, std::min(kPieceBytes, each - at)});
      }));
  return static_cast<ScaleRange>(prepared.finding);
}

Status WeightPacker::read(const Plane& plane, std::byte* out) {
  return read_bytes(plane, 0, plane.bytes, out);
}

Status WeightPacker::read_bytes(const Plane& plane, std::uint64_t first, std::uint64_t bytes,
                                std::byte* out) {
  return in_parallel(
      static_cast<std::int64_t>(ceil_div(bytes, kPieceBytes)), [&](std::int64_t piece, std::byte*) {
        const std::uint64_t at = static_cast<std::uint64_t>(piece) * kPieceBytes;
        return read_plane(checkpoint_, plane, first + at, {out + at, std::min(kPieceBytes, bytes - at)});
      });
}

// The rows of the file that a piece needs, staged: where each row of the result finds its codes and scales.
struct WeightPacker::StagedRows {
  struct Part {
    std::int64_t first = 0, count = 0;  // rows of the part that were read
    const std::byte *codes = nullptr, *scales = nullptr;
  } parts[kMostParts];
};
Status WeightPacker::stage(const Matrix& m, std::int64_t expert, Range rows, std::byte* staging,
                           StagedRows& staged) {
  const RowMap& map = m.stored.map;
  std::int64_t last[kMostParts] = {};
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    RowMap::Source from;
    if (!map.find(row, from)) continue;
    StagedRows::Part& part = staged.parts[from.part];
    part.first = part.count++ == 0 ? from.row : std::min(part.first, from.row);
    last[from.part] = std::max(last[from.part], from.row + 1);
  }
  const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
  for (std::size_t p = 0; p < map.part_rows.size(); ++p) {
    StagedRows::Part& part = staged.parts[p];
    if (part.count == 0) continue;
    part.count = last[p] - part.first;
    const CheckpointTensor& tensor = m.stored.tensor(expert, p);
    const auto first = static_cast<std::uint64_t>(m.stored.first_row(expert, p) + part.first),
               count = static_cast<std::uint64_t>(part.count);
    NIB_TRY(read_plane(checkpoint_, tensor.codes, first * codes_each, {staging, count * codes_each}));
    part.codes = std::exchange(staging, staging + count * codes_each);
    if (!scales_each) continue;
    NIB_TRY(read_scales(m, tensor, first, count, staging));
    part.scales = std::exchange(staging, staging + count * scales_each);
  }
  return {};
}

// The scales of `count` rows from `first` on.
Status WeightPacker::read_scales(const Matrix& m, const CheckpointTensor& tensor, std::uint64_t first,
                                 std::uint64_t count, std::byte* out) {
  const std::uint64_t each = scale_row_bytes(m);
  if (format_info(m.format).scales != Scales::shared)
    return read_plane(checkpoint_, tensor.scales, first * each, {out, count * each});
  std::vector<float> spread(each / sizeof(float));
  for (std::uint64_t row = 0; row < count; ++row) {
    NIB_TRY(
        read_row_scales(checkpoint_, tensor, first + row, static_cast<std::uint64_t>(m.scale_run), spread));
    std::memcpy(out + row * each, spread.data(), each);
  }
  return {};
}

// The sixteen rows of a strip, each read by itself: for orders that scatter them over the file.
Status WeightPacker::stage_strip(const Matrix& m, std::int64_t expert, std::int64_t strip, std::byte* staging,
                                 StripRows& natural) {
  const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
  for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
    RowMap::Source from;
    if (!m.stored.map.find(strip * kStripRows + lane, from)) continue;
    const CheckpointTensor& tensor = m.stored.tensor(expert, from.part);
    const auto row = static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row);
    NIB_TRY(read_plane(checkpoint_, tensor.codes, row * codes_each, {staging, codes_each}));
    natural.codes[lane] = std::exchange(staging, staging + codes_each);
    natural.factor[lane] = static_cast<float>(row_factor(tensor, row));
    if (!scales_each) continue;
    NIB_TRY(read_scales(m, tensor, row, 1, staging));
    natural.scales[lane] = std::exchange(staging, staging + scales_each);
  }
  return {};
}

Status WeightPacker::pack_strips(const Matrix& m, std::int64_t expert, Range groups, std::byte* staging,
                                 std::byte* out) {
  const PackedWeight shape = m.shape();
  const RowMap& map = m.stored.map;
  const std::uint64_t codes_each = code_row_bytes(m), scales_each = scale_row_bytes(m);
  const Range strips{groups.begin * kGroupStrips, std::min(groups.end * kGroupStrips, shape.strips())};
  const bool scattered = map.order == RowMap::Order::per_head || map.order == RowMap::Order::pairs;
  StagedRows staged;
  if (!scattered)
    NIB_TRY(stage(m, expert, {strips.begin * kStripRows, strips.end * kStripRows}, staging, staged));
  for (std::int64_t strip = strips.begin; strip < strips.end; ++strip) {
    StripRows natural;
    if (scattered) NIB_TRY(stage_strip(m, expert, strip, staging, natural));
    for (std::int64_t lane = 0; !scattered && lane < kStripRows; ++lane) {
      RowMap::Source from;
      if (!map.find(strip * kStripRows + lane, from)) continue;
      const StagedRows::Part& part = staged.parts[from.part];
      const auto row = static_cast<std::uint64_t>(from.row - part.first);
      natural.codes[lane] = part.codes + row * codes_each;
      if (part.scales) natural.scales[lane] = part.scales + row * scales_each;
      natural.factor[lane] = static_cast<float>(
          row_factor(m.stored.tensor(expert, from.part),
                     static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row)));
    }
    NIB_TRY(note(m, pack_strip(m.format, shape, strip, natural, out)));
  }
  return {};
}

// A format without tiles: every row into its record, its shared scales spread over it.
Status WeightPacker::copy_records(const Matrix& m, std::int64_t expert, Range groups, std::byte* out) {
  const PackedWeight shape = m.shape();
  const std::uint64_t codes = shape.record_codes(), scales = shape.record_scales();
  for (std::int64_t row = groups.begin * kGroupRows;
       row < std::min(groups.end * kGroupRows, shape.strips() * kStripRows); ++row) {
    std::byte* record = out + static_cast<std::uint64_t>(row / kStripRows) * shape.strip_bytes() +
                        static_cast<std::uint64_t>(row % kStripRows) * shape.record_bytes();
    std::memset(record, 0, shape.record_bytes());
    RowMap::Source from;
    if (!m.stored.map.find(row, from)) continue;
    const CheckpointTensor& tensor = m.stored.tensor(expert, from.part);
    const auto at = static_cast<std::uint64_t>(m.stored.first_row(expert, from.part) + from.row);
    NIB_TRY(read_plane(checkpoint_, tensor.codes, at * codes, {record, codes}));
    if (scales) NIB_TRY(read_scales(m, tensor, at, 1, record + codes));
    if (format_info(m.format).tensor_scale) {
      const auto factor = static_cast<float>(row_factor(tensor, at));
      std::memcpy(record + codes + scales, &factor, sizeof factor);
    }
  }
  return {};
}

// Stored [k, rows]: one k tile of all rows is contiguous; each strip's part of it is turned around first.
Status WeightPacker::pack_transposed(const Matrix& m, std::int64_t expert, Range tiles, std::byte* staging,
                                     std::byte* out) {
  const PackedWeight shape = m.shape();
  const std::size_t size = format_info(m.format).code_bytes;
  const RowMap& map = m.stored.map;
  const std::int64_t columns = map.part_rows[0];
  for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const std::int64_t k = std::min(kTileK, m.k - tile * kTileK);
    const std::uint64_t offset = static_cast<std::uint64_t>((expert * m.k + tile * kTileK) * columns) * size;
    NIB_TRY(read_plane(checkpoint_, m.stored.tensors[0]->codes, offset,
                       {staging, static_cast<std::size_t>(k * columns) * size}));
    for (std::int64_t strip = 0; strip < shape.strips(); ++strip) {
      std::byte turned[kStripRows][kTileK * 4];
      StripRows natural;
      for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
        RowMap::Source from;
        if (!map.find(strip * kStripRows + lane, from)) continue;
        for (std::int64_t i = 0; i < k; ++i)
          std::memcpy(turned[lane] + static_cast<std::size_t>(i) * size,
                      staging + static_cast<std::size_t>(i * columns + from.row) * size, size);
        natural.codes[lane] = turned[lane];
      }
      pack_plain_tile(shape, strip, tile, natural, out);
    }
  }
  return {};
}

Status WeightPacker::note(const Matrix& m, PackFindings findings) {
  if (findings.not_a_number)
    return Status(Code::format, concat(checkpoint_.path, ": tensor ", m.stored.tensors[0]->name,
                                       " has a scale that is not a number (byte 255)"));
  ScaleRange seen = scales_;
  while (seen < findings.scales && !scales_.compare_exchange_weak(seen, findings.scales)) {
  }
  return {};
}

}  // namespace nib::inline v0
