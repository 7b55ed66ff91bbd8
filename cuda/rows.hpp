// Room cuda: what is done to rows of activations between products and attention. Pointers are the device's.
#pragma once

#include "folded_norm.hpp"
#include "queue.hpp"
#include <nibble/base/status.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

// out[i] = norm(x[picked[i]]), or of x[i] without `picked`, rounded to bf16, with zeros up to
// bf16_stride(width).
struct NormRows {
  const float* x;  // [..][x_stride]
  std::int64_t x_stride;
  const std::int32_t* picked;  // [rows], or null
  std::int64_t rows, width;
  Norm norm;
  std::uint16_t* out;  // [rows][bf16_stride(width)]
};
Status norm_rows(const Queue& queue, const NormRows& call);

// The rows of x as `next` wants them, if it does: of a layer norm by norm_rows, of an rms norm folded
// (folded_norm.hpp), with the factor of each row.
Status norm_for_next(const Queue& queue, const float* x, std::int64_t rows, std::int64_t width,
                     const NextNorm& next);
// The same of x[picked[i]].
Status norm_picked(const Queue& queue, const float* x, const std::int32_t* picked, std::int64_t rows,
                   std::int64_t width, const NextNorm& next);

// What follows the product of QkvArgs in place of args.qkv, which has its bias already: heads of q and k are
// normed where there are weights for it, rotated, and k and v appended to the pages. q stays f32.
Status place_qkv(const Queue& queue, const QkvArgs& args);

// AttentionArgs, with `out` bf16, bf16_stride(Hq D) apart.
Status attention(const Queue& queue, const OpContext& context, const AttentionArgs& args);

}  // namespace nib::inline v0::cuda
