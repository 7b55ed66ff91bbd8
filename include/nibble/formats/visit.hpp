// Room formats: the format door: from a Format value to its type. The only choice over formats; everything
// behind it is typed, and nothing passes it per row.
#pragma once

#include <nibble/formats/format.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/ggml_k.hpp>
#include <nibble/formats/mx.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/shared_scale.hpp>

#include <cstddef>
#include <iterator>

namespace nib::inline v0 {

template <StoredFormat... F>
struct FormatList {
  static constexpr std::size_t size = sizeof...(F);
};

// The type of every Format but none.
using StoredFormats =
    FormatList<PlainF32, PlainF16, PlainBf16, Mxfp4, Mxfp6E2M3, Mxfp6E3M2, Mxfp8E4M3, Mxfp8E5M2, Mxint8,
               Nvfp4, Fp8E4M3, Fp8E5M2, Int8, LlmInt8, Nf4, BnbFp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K,
               Q4K, Q5K, Q6K, Iq4Nl, Iq4Xs, GgufMxfp4, GgufNvfp4>;

namespace visit_detail {
template <StoredFormat... F, class Visitor>
constexpr bool visit(FormatList<F...>, Format format, Visitor& visitor) {
  return ((F::id == format ? (static_cast<void>(visitor(F{})), true) : false) || ...);
}
}  // namespace visit_detail

// Calls visitor(F{}) with the StoredFormat of that name (an empty object: take its type) and returns true.
// Format::none has no type: the visitor is not called, and the answer is false.
template <class Visitor>
[[nodiscard]] constexpr bool visit_format(Format format, Visitor&& visitor) {
  return visit_detail::visit(StoredFormats{}, format, visitor);
}

// The table of names and sizes in format.hpp says of F what F says of itself.
template <StoredFormat F>
constexpr bool agrees_with_format_info() {
  const FormatInfo& info = format_info(F::id);
  const bool with_scales = info.scales == Scales::plane || info.scales == Scales::shared;
  return info.format == F::id && info.group == F::group && info.code_bytes == F::code_bytes &&
         info.scale_bytes == F::scale_bytes && with_scales == (F::scale_bytes != 0) &&
         (info.scales == Scales::shared) == SharedScaleFormat<F>;
}
namespace visit_detail {
template <StoredFormat... F>
constexpr bool agree(FormatList<F...>) {
  return (agrees_with_format_info<F>() && ...);
}
}  // namespace visit_detail
static_assert(visit_detail::agree(StoredFormats{}) && StoredFormats::size + 1 == std::size(kFormats));

}  // namespace nib::inline v0
