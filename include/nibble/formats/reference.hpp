// Room formats: scalar truth: what an encoded matrix means, in double, by the shortest code that can say it.
// The oracle of every kernel's test; far too slow for anything else.
//
// Runs in the default floating-point environment: where subnormals are flushed, they read as zero here too.
#pragma once

#include <nibble/formats/scaling.hpp>
#include <nibble/formats/visit.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// W [rows, k] in a format that is not none; borrowed planes, row after row without padding. k is a multiple
// of the format's group; `scales` is null where the format has no such plane.
struct EncodedMatrix {
  Format format = Format::none;
  std::int64_t rows = 0, k = 0;
  const std::byte* codes = nullptr;
  const std::byte* scales = nullptr;
  ScaleSharing sharing = {};  // of formats with shared scales: whose multiples no group may straddle
  float tensor_scale = 1;     // of formats that have one
};

// Group `i` of row `row`: F::group values; double exact, float with one rounding more under a tensor scale.
template <StoredFormat F, class T>
constexpr void decode_group_of(const EncodedMatrix& w, std::int64_t row, std::int64_t i, T* out) {
  const std::int64_t index = row * (w.k / F::group) + i;
  std::int64_t scale = index;
  if constexpr (format_info(F::id).scales == Scales::shared) scale = w.sharing.index(row, i * F::group, w.k);
  F::decode_group(w.codes + index * static_cast<std::int64_t>(F::code_bytes),
                  w.scales + scale * static_cast<std::int64_t>(F::scale_bytes), out);
  if constexpr (format_info(F::id).tensor_scale)
    for (int j = 0; j < F::group; ++j) out[j] *= static_cast<T>(w.tensor_scale);
}

// A dot product, and what its terms weigh: sum |w * x|. The rounding error of any order of summation in f32
// is within about k * 2^-24 * magnitude, which is how a test derives its tolerance.
struct ReferenceDot {
  double value = 0;
  double magnitude = 0;
};

// Row `row` of W as k values: T is double (exact) or float (each value rounded once).
template <class T>
constexpr void decode_row(const EncodedMatrix& w, std::int64_t row, T* out) {
  [[maybe_unused]] const bool known = visit_format(w.format, [&](auto format) {
    using F = decltype(format);
    const std::int64_t groups = w.k / F::group;
    for (std::int64_t i = 0; i < groups; ++i) decode_group_of<F>(w, row, i, out + i * F::group);
  });
  assert(known);
}

// Row `row` of W times x [k].
template <class X>
constexpr ReferenceDot dot_row(const EncodedMatrix& w, std::int64_t row, const X* x) {
  ReferenceDot dot;
  [[maybe_unused]] const bool known = visit_format(w.format, [&](auto format) {
    using F = decltype(format);
    const std::int64_t groups = w.k / F::group;
    for (std::int64_t i = 0; i < groups; ++i) {
      double weights[F::group] = {};
      decode_group_of<F>(w, row, i, weights);
      for (int j = 0; j < F::group; ++j) {
        const double term = weights[j] * static_cast<double>(x[i * F::group + j]);
        dot.value += term;
        dot.magnitude += term < 0 ? -term : term;
      }
    }
  });
  assert(known);
  return dot;
}

// Y = X W^T: X [n, k] row-major, Y [n, rows]: y[i, r] = W[r] . x[i].
template <class X>
constexpr void matmul_reference(const EncodedMatrix& w, const X* x, std::int64_t n, ReferenceDot* y) {
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t r = 0; r < w.rows; ++r) y[i * w.rows + r] = dot_row(w, r, x + i * w.k);
}

}  // namespace nib::inline v0
