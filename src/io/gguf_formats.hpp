// Room io, private: what the element types of GGUF are called in this library.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/formats/ggml_types.hpp>
#include <nibble/io/gguf.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstdint>

namespace nib::inline v0 {

// Format::none for types that hold no weights (integers) or are not decoded here.
// (Not by find_ggml_type(): under its undefined-behaviour sanitizer, GCC 12 takes no pointer that was tested
// for null as a constant expression.)
constexpr Format format_of(GgufType type) {
  for (const GgmlType& known : kGgmlTypes)
    if (known.number == static_cast<std::uint32_t>(type)) return known.format;
  return Format::none;
}

// The sizes by which a file is checked are those by which it is decoded.
constexpr bool sizes_agree() {
  for (const GgufTypeInfo& info : kGgufTypes) {
    const FormatInfo& format = format_info(format_of(info.type));
    if (format.format != Format::none && (format.group != info.block || format.code_bytes != info.bytes))
      return false;
  }
  return true;
}
static_assert(sizes_agree());

// The dtype of plain elements; bytes (u8) for blocks.
constexpr DType dtype_of(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return DType::f32;
    case GgufType::f16:
      return DType::f16;
    case GgufType::bf16:
      return DType::bf16;
    case GgufType::f64:
      return DType::f64;
    case GgufType::i8:
      return DType::i8;
    case GgufType::i16:
      return DType::i16;
    case GgufType::i32:
      return DType::i32;
    case GgufType::i64:
      return DType::i64;
    default:
      return DType::u8;
  }
}

}  // namespace nib::inline v0
