// Room formats: how many bytes so many values take, before there is a tensor. Any thread.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/formats/format.hpp>

#include <cstdint>
#include <string_view>

namespace nib::inline v0 {

// A format, and what a tensor chooses where the format leaves it open (Scales::shared).
struct Storage {
  Format format = Format::none;
  std::uint64_t run = 0;  // values that share an f32 scale; 0: so many that it does not count
  std::uint64_t nested =
      0;  // double quantization: scales that share an f32 scale, a byte each; 0: they are f32

  friend constexpr bool operator==(const Storage&, const Storage&) = default;
};

// Bytes of `values` values, scales included: exact where every row is a whole number of groups and of runs.
// Below 2^58 values nothing overflows.
constexpr std::uint64_t storage_bytes(const Storage& storage, std::uint64_t values) {
  const FormatInfo& info = format_info(storage.format);
  const std::uint64_t groups = ceil_div(values, std::uint64_t{info.group});
  std::uint64_t bytes = groups * info.code_bytes;
  if (info.scales == Scales::plane) bytes += groups * info.scale_bytes;
  if (info.scales == Scales::shared && storage.run) {
    const std::uint64_t scales = ceil_div(values, storage.run);
    bytes += storage.nested ? scales + ceil_div(scales, storage.nested) * 4 : scales * 4;
  }
  return bytes;
}

// A format by the name that users write. nf4 and bnb_fp4 are as bitsandbytes makes them: a scale for 64
// values; with "-double" behind, a byte for 64 values and an f32 for 256 of these. Format::none for an
// unknown name.
constexpr Storage find_storage(std::string_view name) {
  constexpr std::string_view kDouble = "-double";
  const bool nested = name.ends_with(kDouble);
  if (nested) name.remove_suffix(kDouble.size());
  for (const FormatInfo& info : kFormats) {
    if (info.format == Format::none || name != info.name) continue;
    const bool blocks = info.format == Format::nf4 || info.format == Format::bnb_fp4;
    if (nested && !blocks) break;
    return {info.format, blocks ? std::uint64_t{64} : 0, nested ? std::uint64_t{256} : 0};
  }
  return {};
}

}  // namespace nib::inline v0
