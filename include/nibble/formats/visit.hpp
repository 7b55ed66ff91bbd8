// Room formats: the format door: from a Format value to its type. The only switch over formats; everything
// behind it is typed, and nothing passes it per row.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/plain.hpp>

namespace nib::inline v0 {

// Calls visitor(F{}) with the BlockFormat of that name (an empty object: take its type) and returns true.
// Format::none has no type: the visitor is not called, and the answer is false.
template <class Visitor>
[[nodiscard]] constexpr bool visit_format(Format format, Visitor&& visitor) {
  switch (format) {
    case Format::f32:
      visitor(PlainF32{});
      return true;
    case Format::f16:
      visitor(PlainF16{});
      return true;
    case Format::bf16:
      visitor(PlainBf16{});
      return true;
    case Format::mxfp4:
      visitor(Mxfp4{});
      return true;
    case Format::none:
      break;
  }
  return false;
}

// The table of names and sizes in format.hpp says of F what F says of itself.
template <BlockFormat F>
constexpr bool agrees_with_format_info() {
  const FormatInfo& info = format_info(F::id);
  return info.format == F::id && info.group == F::group && info.code_bytes == F::code_bytes &&
         info.scale_bytes == F::scale_bytes;
}
static_assert(agrees_with_format_info<PlainF32>() && agrees_with_format_info<PlainF16>() &&
              agrees_with_format_info<PlainBf16>() && agrees_with_format_info<Mxfp4>());

}  // namespace nib::inline v0
