// Room formats: quantize_rows: float rows into the planes of any format.
#pragma once

#include <nibble/formats/block_format.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// Encodes values [rows, k], row-major, as codes [rows, k / group * code_bytes] and scales [rows, k / group *
// scale_bytes]. k is a multiple of F::group. Rows are independent and nothing is allocated: split a tensor by
// rows over threads, or feed it in pieces, and the bytes are the same. `scales` may be null when F has none.
template <BlockFormat F>
constexpr void quantize_rows(const float* values, std::int64_t rows, std::int64_t k, std::byte* codes,
                             std::byte* scales) {
  const std::int64_t groups = rows * (k / F::group);
  for (std::int64_t i = 0; i < groups; ++i)
    F::encode_group(values + i * F::group, codes + i * static_cast<std::int64_t>(F::code_bytes),
                    scales + i * static_cast<std::int64_t>(F::scale_bytes));
}

}  // namespace nib::inline v0
