// Room formats: the names of the storage formats, and the sizes by which a reader checks a file.
#pragma once

#include <cstdint>

namespace nib::inline v0 {

// How the values of a tensor are stored. `none` is a tensor that is no weight (integers, raw bytes).
enum class Format : std::uint8_t { none, f32, f16, bf16, mxfp4 };

// Bytes of `group` values of a row: the codes plane and the scales plane (0: there is none).
struct FormatInfo {
  Format format;
  const char* name;           // as users write it: "mxfp4"
  std::uint32_t group;        // values that share a scale; a row's length is a multiple of it
  std::uint32_t code_bytes;   // bytes of one group in the codes plane
  std::uint32_t scale_bytes;  // bytes of one group in the scales plane
};

inline constexpr FormatInfo kFormats[] = {
    {Format::none, "none", 1, 0, 0}, {Format::f32, "f32", 1, 4, 0},       {Format::f16, "f16", 1, 2, 0},
    {Format::bf16, "bf16", 1, 2, 0}, {Format::mxfp4, "mxfp4", 32, 16, 1},
};

constexpr const FormatInfo& format_info(Format format) { return kFormats[static_cast<int>(format)]; }
constexpr const char* format_name(Format format) { return format_info(format).name; }

}  // namespace nib::inline v0
