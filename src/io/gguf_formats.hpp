// Room io, private: what the element types of GGUF are called in this library.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/io/gguf.hpp>
#include <nibble/io/safetensors.hpp>

namespace nib::inline v0 {

// Format::none for types that hold no weights (integers) or are not decoded here.
constexpr Format format_of(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return Format::f32;
    case GgufType::f16:
      return Format::f16;
    case GgufType::bf16:
      return Format::bf16;
    case GgufType::q4_0:
      return Format::q4_0;
    case GgufType::q4_1:
      return Format::q4_1;
    case GgufType::q5_0:
      return Format::q5_0;
    case GgufType::q5_1:
      return Format::q5_1;
    case GgufType::q8_0:
      return Format::q8_0;
    case GgufType::q2_k:
      return Format::q2_k;
    case GgufType::q3_k:
      return Format::q3_k;
    case GgufType::q4_k:
      return Format::q4_k;
    case GgufType::q5_k:
      return Format::q5_k;
    case GgufType::q6_k:
      return Format::q6_k;
    case GgufType::iq4_nl:
      return Format::iq4_nl;
    case GgufType::iq4_xs:
      return Format::iq4_xs;
    case GgufType::mxfp4:
      return Format::gguf_mxfp4;
    case GgufType::nvfp4:
      return Format::gguf_nvfp4;
    default:
      return Format::none;
  }
}

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
