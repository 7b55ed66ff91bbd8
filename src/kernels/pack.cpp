#include <nibble/kernels/pack.hpp>

#include <algorithm>
#include <cstring>

namespace nib::inline v0 {
namespace {

constexpr std::size_t kGroup = 32;       // mxfp4 values that share a scale
constexpr std::size_t kGroupBytes = 16;  // their codes

// All sixteen bytes zero but for signs.
bool zero_group(const std::byte* codes) {
  return std::all_of(codes, codes + kGroupBytes,
                     [](std::byte b) { return (b & std::byte{0x77}) == std::byte{0}; });
}

// Eight codes with every negative zero made zero: added to a sum it could change no more than the sign of a
// sum that is zero itself, and kernels that subtract an offset cannot tell the two apart.
std::uint32_t plain_zeros(std::uint32_t codes) {
  const std::uint32_t not_zero = ((codes & 0x7777'7777u) + 0x7777'7777u) & 0x8888'8888u;
  return codes & (0x7777'7777u | not_zero);
}

// The codes of eight k are four natural bytes, low nibble first: exactly the dword of the packed octet.
PackFindings pack_mxfp4(std::int64_t k, const StripRows& rows, CarriedExponents& carried, std::byte* tile) {
  PackFindings findings;
  const std::size_t groups = static_cast<std::size_t>(k) / kGroup;
  std::byte* scales = tile + groups * kGroupBytes * kStripRows;
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t r = 0; r < kStripRows; ++r) {
      std::uint8_t& exponent = carried.row[r];
      if (const std::byte* row = rows.codes[r]) {
        const std::byte* codes = row + g * kGroupBytes;
        const auto stored = static_cast<std::uint8_t>(rows.scales[r][g]);
        findings.not_a_number |= stored == 255;
        if (!zero_group(codes)) {
          exponent = stored;
          findings.wide_exponents |= stored < kLeastScale || stored > kMostScale;
        }
        for (std::size_t octet = 0; octet < kGroup / kOctet; ++octet) {
          std::uint32_t eight;
          std::memcpy(&eight, codes + octet * 4, 4);
          eight = plain_zeros(eight);
          std::memcpy(tile + ((g * 4 + octet) * kStripRows + r) * 4, &eight, 4);
        }
      }
      scales[g * kStripRows + r] = static_cast<std::byte>(exponent);
    }
  return findings;
}

// bf16: pairs (j, j + 4) in one dword; the others: one vector a step in chain order.
void pack_plain(Format format, std::int64_t k, const StripRows& rows, std::byte* tile) {
  const std::size_t size = format_info(format).code_bytes;
  for (std::int64_t octet = 0; octet < ceil_div(k, kOctet); ++octet)
    for (std::size_t r = 0; r < kStripRows; ++r) {
      if (!rows.codes[r]) continue;
      for (int s = 0; s < kOctet; ++s) {
        const std::int64_t at = octet * kOctet + kChainOrder[s];
        if (at >= k) continue;
        const std::byte* from = rows.codes[r] + static_cast<std::size_t>(at) * size;
        const auto step = static_cast<std::size_t>(octet * kOctet + s);
        std::byte* to = format == Format::bf16 ? tile + (step / 2 * kStripRows + r) * 4 +
                                                     (s % 2 == 0 ? 2 : 0)  // odd element first
                                               : tile + (step * kStripRows + r) * size;
        std::memcpy(to, from, size);
      }
    }
}

}  // namespace

CarriedExponents first_exponents(std::size_t groups, const StripRows& rows) {
  CarriedExponents carried;
  for (std::size_t r = 0; r < kStripRows; ++r) {
    carried.row[r] = 127;
    for (std::size_t g = 0; rows.codes[r] && g < groups; ++g)
      if (!zero_group(rows.codes[r] + g * kGroupBytes)) {
        carried.row[r] = static_cast<std::uint8_t>(rows.scales[r][g]);
        break;
      }
  }
  return carried;
}

PackFindings pack_tile(Format format, std::int64_t k, const StripRows& rows, CarriedExponents& carried,
                       std::byte* tile) {
  std::memset(tile, 0, tile_bytes(format, k));
  if (format == Format::mxfp4) return pack_mxfp4(k, rows, carried, tile);
  pack_plain(format, k, rows, tile);
  return {};
}

}  // namespace nib::inline v0
