// Room formats: float rows into the planes of any format, on as many threads as the caller has, in pieces
// when the tensor is larger than memory.
//
// Nothing is allocated. `parallel` is the caller's: parallel(count, body) calls body(i) once for each i in
// [0, count), on any threads in any order, and returns when all have returned. Pieces and threads never
// change a byte: no group's bytes depend on another's, a largest magnitude not on the order, and a stochastic
// rounding only on where a value is.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/formats/block_format.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/scaling.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

// One thread: the caller's.
struct Serially {
  template <class Body>
  constexpr void operator()(std::int64_t count, Body&& body) const {
    for (std::int64_t i = 0; i < count; ++i) body(i);
  }
};

// What is true of the whole tensor of which some rows are quantized.
template <class Rounding = RoundNearest>
struct Quantizing {
  Rounding rounding = {};
  float tensor_scale = 1;      // of formats that have one
  std::int64_t first_row = 0;  // of the rows given, in the tensor
};

namespace quantize_detail {
inline constexpr std::int64_t kPiece = std::int64_t{1} << 14;  // values: large against waking a thread

template <class F, class Rounding>
constexpr void encode_one(const float* values, std::int64_t position, const Quantizing<Rounding>& how,
                          std::byte* codes, std::byte* scale) {
  if constexpr (requires { F::encode_group(values, codes, scale, how.rounding); })
    F::encode_group(values, codes, scale, how.rounding.at(position));
  else
    F::encode_group(values, codes, scale);
}

// Groups begin..end - 1 of values that begin at place `first` of the tensor.
template <class F, class Rounding>
constexpr void encode_groups(const float* values, std::int64_t begin, std::int64_t end, std::int64_t first,
                             const Quantizing<Rounding>& how, std::byte* codes, std::byte* scales) {
  constexpr auto kCodes = static_cast<std::int64_t>(F::code_bytes),
                 kScales = static_cast<std::int64_t>(F::scale_bytes);
  if (how.tensor_scale == 1) {
    for (std::int64_t i = begin; i < end; ++i)
      encode_one<F>(values + i * F::group, first + i * F::group, how, codes + i * kCodes,
                    scales + i * kScales);
    return;
  }
  for (std::int64_t i = begin; i < end; ++i) {
    float units[F::group] = {};
    for (int j = 0; j < F::group; ++j) units[j] = values[i * F::group + j] / how.tensor_scale;
    encode_one<F>(units, first + i * F::group, how, codes + i * kCodes, scales + i * kScales);
  }
}

// `count` values, whole groups, that share a scale.
template <class F, class Rounding>
constexpr void encode_run(const float* values, std::int64_t count, std::int64_t position, float scale,
                          const Rounding& rounding, std::byte* codes) {
  constexpr std::int64_t kAtOnce = 64;
  std::int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce)
    F::template encode_codes<kAtOnce>(values + i, scale, codes + i / F::group, rounding.at(position + i));
  for (; i < count; i += F::group)
    F::encode_codes(values + i, scale, codes + i / F::group, rounding.at(position + i));
}

// Cuts [0, total) into pieces of `step` and hands them out.
template <class Parallel, class Body>
constexpr void in_pieces(std::int64_t total, std::int64_t step, Parallel&& parallel, Body&& body) {
  parallel((total + step - 1) / step, [&](std::int64_t piece) {
    const std::int64_t begin = piece * step;
    body(begin, begin + step < total ? begin + step : total);
  });
}
constexpr std::int64_t at_least_one(std::int64_t n) { return n > 0 ? n : 1; }
}  // namespace quantize_detail

// Encodes values [rows, k], row-major, as codes [rows, k / group * code_bytes] and scales [rows, k / group *
// scale_bytes]. k is a multiple of F::group. `scales` may be null when F has no such plane. A format with a
// rule of its own for rounding (q4_0 and its like) keeps to it.
template <BlockFormat F, class Rounding = RoundNearest, class Parallel = Serially>
constexpr void quantize_rows(const float* values, std::int64_t rows, std::int64_t k, std::byte* codes,
                             std::byte* scales, const Quantizing<Rounding>& how = {},
                             Parallel&& parallel = {}) {
  const std::int64_t first = how.first_row * k;
  quantize_detail::in_pieces(
      rows * (k / F::group), quantize_detail::at_least_one(quantize_detail::kPiece / F::group), parallel,
      [&](std::int64_t begin, std::int64_t end) {
        quantize_detail::encode_groups<F>(values, begin, end, first, how, codes, scales);
      });
}

// Formats with shared scales take two passes. First, for all rows of the tensor in any order, the largest
// magnitude of each scale: largest[i] (zeros to begin with) grows to what these rows hold. Rows that share a
// scale may not be measured on two threads at a time.
constexpr void measure_rows(const float* values, std::int64_t rows, std::int64_t k,
                            const ScaleSharing& sharing, std::int64_t first_row, float* largest) {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < k;) {
      const std::int64_t end = sharing.end_of_scale(first_row + row, column, k);
      float& of = largest[sharing.index(first_row + row, column, k)];
      const float both[2] = {of, largest_magnitude(values + row * k + column, end - column)};
      of = largest_magnitude(both, 2);
      column = end;
    }
}

// Then, each scale being F::scale_of(largest), the codes [rows, k / group * code_bytes]. k is a multiple of
// F::group, and no group straddles two scales.
template <SharedScaleFormat F, class Rounding = RoundNearest, class Parallel = Serially>
constexpr void quantize_shared_rows(const float* values, std::int64_t rows, std::int64_t k,
                                    const ScaleSharing& sharing, const float* scales, std::byte* codes,
                                    const Quantizing<Rounding>& how = {}, Parallel&& parallel = {}) {
  quantize_detail::in_pieces(
      rows, quantize_detail::at_least_one(quantize_detail::kPiece / quantize_detail::at_least_one(k)),
      parallel, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
          for (std::int64_t column = 0; column < k;) {
            const std::int64_t last = sharing.end_of_scale(how.first_row + row, column, k);
            const float scale = scales[sharing.index(how.first_row + row, column, k)];
            const std::int64_t at = row * k + column;
            quantize_detail::encode_run<F>(values + at, last - column, how.first_row * k + at, scale,
                                           how.rounding, codes + at / F::group);
            column = last;
          }
      });
}

// Both passes over a tensor in memory: values [rows, k] to codes and scales [sharing.count(rows, k)].
// Measuring is parallel where rows do not share scales.
template <SharedScaleFormat F, class Rounding = RoundNearest, class Parallel = Serially>
constexpr void quantize_shared(const float* values, std::int64_t rows, std::int64_t k,
                               const ScaleSharing& sharing, std::byte* codes, float* scales,
                               const Quantizing<Rounding>& how = {}, Parallel&& parallel = {}) {
  const std::int64_t count = sharing.count(rows, k);
  for (std::int64_t i = 0; i < count; ++i) scales[i] = 0;
  const std::int64_t band = sharing.run == 0 && sharing.rows > 0 ? sharing.rows : rows;
  const std::int64_t bands_at_once = quantize_detail::kPiece / quantize_detail::at_least_one(band * k) + 1;
  quantize_detail::in_pieces(rows, quantize_detail::at_least_one(band * bands_at_once), parallel,
                             [&](std::int64_t begin, std::int64_t end) {
                               measure_rows(values + begin * k, end - begin, k, sharing, begin, scales);
                             });
  for (std::int64_t i = 0; i < count; ++i) scales[i] = F::scale_of(scales[i]);
  quantize_shared_rows<F>(values, rows, k, sharing, scales, codes, how, parallel);
}

// The memory through which a tensor streams: some rows as floats, and their bytes. The caller's.
struct StreamBuffers {
  std::int64_t rows = 0;        // how many at once
  float* values = nullptr;      // [rows, k]
  std::byte* codes = nullptr;   // rows of the codes plane
  std::byte* scales = nullptr;  // rows of the scales plane; null where there is none
};

// Quantizes a tensor [rows, k] of which no more than buffers.rows rows are in memory:
//   read(first_row, rows, values) -> Status            fills values [rows, k]
//   write(first_row, rows, codes, scales) -> Status    takes the bytes of these rows
// in turn, from the first row to the last, on the calling thread. Errors: argument when the buffers hold no
// row, and the first that read or write gives, after which the stream is left where it was.
template <BlockFormat F, class Read, class Write, class Rounding = RoundNearest, class Parallel = Serially>
Status quantize_stream(std::int64_t rows, std::int64_t k, const StreamBuffers& buffers, Read&& read,
                       Write&& write, Quantizing<Rounding> how = {}, Parallel&& parallel = {}) {
  if (buffers.rows < 1) return {Code::argument, "the buffers of a stream must hold at least one row"};
  for (std::int64_t row = 0; row < rows; row += buffers.rows) {
    const std::int64_t some = rows - row < buffers.rows ? rows - row : buffers.rows;
    how.first_row = row;
    NIB_TRY(read(row, some, buffers.values));
    quantize_rows<F>(buffers.values, some, k, buffers.codes, buffers.scales, how, parallel);
    NIB_TRY(write(row, some, static_cast<const std::byte*>(buffers.codes),
                  static_cast<const std::byte*>(buffers.scales)));
  }
  return {};
}

// The same for formats with shared scales: read is called for all rows twice, and `scales`
// [sharing.count(rows, k)] are whole when the first write(first_row, rows, codes) is made.
template <SharedScaleFormat F, class Read, class Write, class Rounding = RoundNearest,
          class Parallel = Serially>
Status quantize_shared_stream(std::int64_t rows, std::int64_t k, const ScaleSharing& sharing, float* scales,
                              const StreamBuffers& buffers, Read&& read, Write&& write,
                              Quantizing<Rounding> how = {}, Parallel&& parallel = {}) {
  if (buffers.rows < 1) return {Code::argument, "the buffers of a stream must hold at least one row"};
  const std::int64_t count = sharing.count(rows, k);
  for (std::int64_t i = 0; i < count; ++i) scales[i] = 0;
  for (std::int64_t row = 0; row < rows; row += buffers.rows) {
    const std::int64_t some = rows - row < buffers.rows ? rows - row : buffers.rows;
    NIB_TRY(read(row, some, buffers.values));
    measure_rows(buffers.values, some, k, sharing, row, scales);
  }
  for (std::int64_t i = 0; i < count; ++i) scales[i] = F::scale_of(scales[i]);
  for (std::int64_t row = 0; row < rows; row += buffers.rows) {
    const std::int64_t some = rows - row < buffers.rows ? rows - row : buffers.rows;
    how.first_row = row;
    NIB_TRY(read(row, some, buffers.values));
    quantize_shared_rows<F>(buffers.values, some, k, sharing, scales, buffers.codes, how, parallel);
    NIB_TRY(write(row, some, static_cast<const std::byte*>(buffers.codes)));
  }
  return {};
}

}  // namespace nib::inline v0
