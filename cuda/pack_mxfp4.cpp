#include "pack_mxfp4.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/formats/mxfp4.hpp>

#include <algorithm>
#include <cstring>

namespace nib::inline v0::cuda {
namespace {

constexpr std::size_t kGroupBytes = kScaleGroup / 2;

// All of its codes are +0 or -0.
bool is_zero(const std::byte* codes) {
  return std::all_of(codes, codes + kGroupBytes,
                     [](std::byte two) { return (two & std::byte{0x77}) == std::byte{}; });
}

}  // namespace

void ScaleExtent::see(std::span<const std::byte> codes, std::span<const std::byte> scales) {
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const auto scale = std::to_integer<int>(scales[i]);
    // A scale of NaN makes NaN even of zeros.
    if (scale != E8M0::nan && is_zero(codes.data() + i * kGroupBytes)) continue;
    least_ = std::min(least_, scale);
    most_ = std::max(most_, scale);
  }
}

Result<int> ScaleExtent::lowered_by() const {
  if (most_ == E8M0::nan) return Status(Code::unsupported, "a scale is NaN");
  const int lowered = std::max(0, most_ - kMostScale);
  if (least_ < lowered)
    return Status(Code::unsupported, concat("scales from 2^", least_ - 127, " to 2^", most_ - 127,
                                            ": expected the largest at most 2^128 times the smallest"));
  return lowered;
}

void pack_tile(const Mxfp4Tiles& tiles, const TileRows& rows, const std::byte* codes, const std::byte* scales,
               int lowered_by, std::byte* out) {
  std::memset(out, 0, static_cast<std::size_t>(tiles.tile_bytes()));
  const std::int64_t groups = tiles.k / kScaleGroup;
  for (std::int64_t row = 0; row < kTileRows; ++row) {
    const std::int64_t from = rows[static_cast<std::size_t>(row)];
    if (from < 0) continue;
    for (std::int64_t group = 0; group < groups; ++group) {
      const std::int64_t index = from * groups + group;
      const std::byte* const of_group = codes + index * static_cast<std::int64_t>(kGroupBytes);
      for (std::int64_t octet = 0; octet < 4; ++octet) {
        std::uint8_t eight[8];
        for (unsigned i = 0; i < 8; ++i)
          eight[i] = std::to_integer<std::uint8_t>(of_group[octet * 4 + i / 2]) >> 4 * (i % 2) & 15;
        const std::uint32_t word = twiddle(eight);
        std::memcpy(out + tiles.word_offset(row, group * kScaleGroup + octet * 8), &word, sizeof word);
      }
      // A group of zeros may have any scale, and gets one that its byte can hold.
      const int scale = std::clamp(std::to_integer<int>(scales[index]) - lowered_by, 0, kMostScale);
      out[tiles.scale_offset(row, group)] = static_cast<std::byte>(scale + kScaleBias);
    }
  }
}

}  // namespace nib::inline v0::cuda
