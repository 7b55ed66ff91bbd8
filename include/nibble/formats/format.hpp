// Room formats: the names of the storage formats, and the sizes by which a reader checks a file.
#pragma once

#include <cstdint>

namespace nib::inline v0 {

// How the values of a tensor are stored. `none` is a tensor that is no weight (integers, raw bytes).
enum class Format : std::uint8_t {
  none,
  // plain values
  f32,
  f16,
  bf16,
  // a codes plane and a scales plane: OCP MX and NVFP4
  mxfp4,
  mxfp6_e2m3,
  mxfp6_e3m2,
  mxfp8_e4m3,
  mxfp8_e5m2,
  mxint8,
  nvfp4,
  // a codes plane, and f32 scales that each tensor shares in its own way: ScaleSharing in scaling.hpp
  fp8_e4m3,
  fp8_e5m2,
  int8,
  llm_int8,
  nf4,
  bnb_fp4,
  // GGUF blocks: codes and scales interleaved in one plane
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  gguf_mxfp4,
  gguf_nvfp4,
};

// Where the scales of a format lie.
enum class Scales : std::uint8_t {
  none,    // there are none
  plane,   // in a plane of their own, one a group, in the order of the groups
  inside,  // in the codes plane: a group's bytes hold its scales and its codes (GGUF)
  shared,  // f32, in a plane of their own; which values share one is said by the tensor, not by the format
};

// Bytes of `group` consecutive values of a row. A row is a whole number of groups without padding, so a
// reader checks rows * (k / group) * code_bytes against the file, and scale_bytes likewise when the scales
// have a plane.
struct FormatInfo {
  Format format;
  const char* name;           // as users write it: "mxfp4", "q4_K"
  std::uint32_t group;        // values that are stored together; a row's length is a multiple of it
  std::uint32_t code_bytes;   // bytes of one group in the codes plane
  std::uint32_t scale_bytes;  // bytes of one scale in the scales plane (0: no such plane)
  Scales scales;
  bool tensor_scale = false;  // one more f32 factor for the tensor (for each expert, where they are stacked)
};

inline constexpr FormatInfo kFormats[] = {
    {Format::none, "none", 1, 0, 0, Scales::none},
    {Format::f32, "f32", 1, 4, 0, Scales::none},
    {Format::f16, "f16", 1, 2, 0, Scales::none},
    {Format::bf16, "bf16", 1, 2, 0, Scales::none},
    {Format::mxfp4, "mxfp4", 32, 16, 1, Scales::plane},
    {Format::mxfp6_e2m3, "mxfp6_e2m3", 32, 24, 1, Scales::plane},
    {Format::mxfp6_e3m2, "mxfp6_e3m2", 32, 24, 1, Scales::plane},
    {Format::mxfp8_e4m3, "mxfp8_e4m3", 32, 32, 1, Scales::plane},
    {Format::mxfp8_e5m2, "mxfp8_e5m2", 32, 32, 1, Scales::plane},
    {Format::mxint8, "mxint8", 32, 32, 1, Scales::plane},
    {Format::nvfp4, "nvfp4", 16, 8, 1, Scales::plane, true},
    {Format::fp8_e4m3, "fp8_e4m3", 1, 1, 4, Scales::shared},
    {Format::fp8_e5m2, "fp8_e5m2", 1, 1, 4, Scales::shared},
    {Format::int8, "int8", 1, 1, 4, Scales::shared},
    {Format::llm_int8, "llm_int8", 1, 1, 4, Scales::shared},
    {Format::nf4, "nf4", 2, 1, 4, Scales::shared},
    {Format::bnb_fp4, "bnb_fp4", 2, 1, 4, Scales::shared},
    {Format::q4_0, "q4_0", 32, 18, 0, Scales::inside},
    {Format::q4_1, "q4_1", 32, 20, 0, Scales::inside},
    {Format::q5_0, "q5_0", 32, 22, 0, Scales::inside},
    {Format::q5_1, "q5_1", 32, 24, 0, Scales::inside},
    {Format::q8_0, "q8_0", 32, 34, 0, Scales::inside},
    {Format::q2_k, "q2_K", 256, 84, 0, Scales::inside},
    {Format::q3_k, "q3_K", 256, 110, 0, Scales::inside},
    {Format::q4_k, "q4_K", 256, 144, 0, Scales::inside},
    {Format::q5_k, "q5_K", 256, 176, 0, Scales::inside},
    {Format::q6_k, "q6_K", 256, 210, 0, Scales::inside},
    {Format::iq4_nl, "iq4_nl", 32, 18, 0, Scales::inside},
    {Format::iq4_xs, "iq4_xs", 256, 136, 0, Scales::inside},
    {Format::gguf_mxfp4, "gguf_mxfp4", 32, 17, 0, Scales::inside},
    {Format::gguf_nvfp4, "gguf_nvfp4", 64, 36, 0, Scales::inside, true},
};

// How an encoder picks the scale of a group, where its format leaves that open: see scale_rules.hpp.
enum class ScaleRule : std::uint8_t { usual, floor, round_up, least_error };

constexpr const FormatInfo& format_info(Format format) { return kFormats[static_cast<int>(format)]; }
constexpr const char* format_name(Format format) { return format_info(format).name; }

}  // namespace nib::inline v0
