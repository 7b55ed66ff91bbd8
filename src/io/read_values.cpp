// Weights as numbers, one row after the other: slow, simple, and by another way than the kernels.
#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/visit.hpp>
#include <nibble/io/checkpoint.hpp>

#include <algorithm>

namespace nib::inline v0 {
namespace {

std::uint64_t rows_of(const CheckpointTensor& tensor) {
  std::uint64_t rows = 1;
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows;
}

// Rows of one matrix of the stack that a tensor is.
std::uint64_t matrix_rows(const CheckpointTensor& tensor) {
  return tensor.shape.size() < 2 ? 1 : tensor.shape[tensor.shape.size() - 2];
}

class RowReader {
 public:
  RowReader(const Checkpoint& checkpoint, const CheckpointTensor& tensor)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        info_(format_info(tensor.format)),
        columns_(tensor.shape.empty() ? 1 : tensor.shape.back()) {}

  template <class T>
  Status read(std::uint64_t first_row, std::span<T> out) {
    if (tensor_.format == Format::none)
      return {Code::unsupported, concat(checkpoint_.path, ": tensor ", tensor_.name, " is stored as ",
                                        tensor_.type_name, ", which is no weight format here")};
    const std::uint64_t rows = rows_of(tensor_), count = columns_ ? out.size() / columns_ : 0;
    if (count * columns_ != out.size() || first_row > rows || count > rows - first_row)
      return {Code::argument,
              concat(checkpoint_.path, ": tensor ", tensor_.name, ": ", out.size(), " values from row ",
                     first_row, " on were asked of ", rows, " rows of ", columns_)};
    if (count == 0) return {};
    row_.resize(columns_);  // no more than the caller has room for
    for (std::uint64_t i = 0; i < count; ++i) {
      NIB_TRY(info_.scales == Scales::shared ? read_shared(first_row + i) : read_groups(first_row + i));
      const double factor = factor_of(first_row + i);
      for (std::uint64_t c = 0; c < columns_; ++c) out[i * columns_ + c] = static_cast<T>(row_[c] * factor);
    }
    return {};
  }

 private:
  Status fetch(const Plane& plane, std::uint64_t begin, std::uint64_t bytes, std::vector<std::byte>& out) {
    out.resize(bytes);
    return read_plane(checkpoint_, plane, begin, out);
  }

  double factor_of(std::uint64_t row) const {
    const std::vector<double>& factors = tensor_.scaling.factors;
    if (factors.empty()) return 1;
    return factors.size() == 1 ? factors[0] : factors[row / matrix_rows(tensor_)];
  }

  // Formats whose groups have their scales to themselves, beside the codes or among them: the format decodes.
  Status read_groups(std::uint64_t row) {
    const std::uint64_t groups = columns_ / info_.group;
    NIB_TRY(fetch(tensor_.codes, row * groups * info_.code_bytes, groups * info_.code_bytes, codes_));
    if (info_.scale_bytes != 0)
      NIB_TRY(fetch(tensor_.scales, row * groups * info_.scale_bytes, groups * info_.scale_bytes, scales_));
    (void)visit_format(tensor_.format, [&](auto format) {
      using F = decltype(format);
      for (std::uint64_t g = 0; g < groups; ++g)
        F::decode_group(codes_.data() + g * F::code_bytes, scales_.data() + g * F::scale_bytes,
                        row_.data() + g * F::group);
    });
    return {};
  }

  // Formats whose scales lie over the tensor as each tensor has it: value by value.
  Status read_shared(std::uint64_t row) {
    NIB_TRY(read_levels(row));
    const ScaleSharing& sharing = tensor_.scaling.sharing;
    const auto columns = static_cast<std::int64_t>(columns_);
    const auto height = static_cast<std::int64_t>(matrix_rows(tensor_)), at = static_cast<std::int64_t>(row);
    // A run goes through the whole tensor; tiles begin anew in every matrix of a stack.
    const std::int64_t before = sharing.run ? 0 : at / height * sharing.count(height, columns);
    const std::int64_t inside = sharing.run ? at : at % height;
    const std::int64_t first = before + sharing.index(inside, 0, columns);
    const std::int64_t last = before + sharing.index(inside, columns - 1, columns);
    std::vector<float> scales(static_cast<std::size_t>(last - first + 1));
    NIB_TRY(read_scales(static_cast<std::uint64_t>(first), scales));
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t scale = before + sharing.index(inside, c, columns) - first;
      row_[static_cast<std::size_t>(c)] *= scales[static_cast<std::size_t>(scale)];
    }
    return {};
  }

  Status read_levels(std::uint64_t row) {
    switch (tensor_.format) {
      case Format::nf4:
        return read_nibbles(row, Nf4Levels::levels);
      case Format::bnb_fp4:
        return read_nibbles(row, BnbFp4Levels::levels);
      case Format::fp8_e4m3:
        return read_bytes(row, [](std::uint8_t code) { return E4M3::decode(code); });
      case Format::fp8_e5m2:
        return read_bytes(row, [](std::uint8_t code) { return E5M2::decode(code); });
      case Format::llm_int8:
        return read_bytes(row, [](std::uint8_t code) { return static_cast<std::int8_t>(code) / 127.0; });
      default:  // int8
        return read_bytes(row, [](std::uint8_t code) { return static_cast<std::int8_t>(code); });
    }
  }

  template <class Level>
  Status read_bytes(std::uint64_t row, Level level) {
    NIB_TRY(fetch(tensor_.codes, row * columns_, columns_, codes_));
    for (std::uint64_t c = 0; c < columns_; ++c) row_[c] = level(std::to_integer<std::uint8_t>(codes_[c]));
    return {};
  }

  // Two codes a byte, the first in the high half; rows of an odd length begin in the middle of one.
  Status read_nibbles(std::uint64_t row, const float (&levels)[16]) {
    const std::uint64_t first = row * columns_, end = first + columns_;
    NIB_TRY(fetch(tensor_.codes, first / 2, ceil_div<std::uint64_t>(end, 2) - first / 2, codes_));
    for (std::uint64_t i = first; i < end; ++i) {
      const auto byte = std::to_integer<std::uint8_t>(codes_[i / 2 - first / 2]);
      row_[i - first] = levels[i % 2 == 0 ? high_nibble(byte) : low_nibble(byte)];
    }
    return {};
  }

  // Scales from number `first` on.
  Status read_scales(std::uint64_t first, std::span<float> out) {
    const Scaling& scaling = tensor_.scaling;
    if (scaling.nested_scales.bytes != 0) return read_nested(first, out);
    const std::uint64_t size = dtype_info(scaling.type).bits / 8;
    NIB_TRY(fetch(tensor_.scales, first * size, out.size() * size, scales_));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = scale_at(scales_.data() + i * size);
    return {};
  }

  float scale_at(const std::byte* at) const {
    switch (tensor_.scaling.type) {
      case DType::f8_e8m0:
        return E8M0::decode(std::to_integer<std::uint8_t>(*at));
      case DType::bf16:
        return Bf16Element::decode(load_little_endian<std::uint16_t>(at));
      case DType::f16:
        return F16Element::decode(load_little_endian<std::uint16_t>(at));
      default:
        return F32Element::decode(load_little_endian<std::uint32_t>(at));
    }
  }

  Status read_nested(std::uint64_t first, std::span<float> out) {
    const Scaling& scaling = tensor_.scaling;
    const std::uint64_t group = scaling.nested_group, begin = first / group;
    const std::uint64_t count = (first + out.size() - 1) / group + 1 - begin;
    NIB_TRY(fetch(tensor_.scales, first, out.size(), codes_));
    NIB_TRY(fetch(scaling.nested_scales, begin * sizeof(float), count * sizeof(float), scales_));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::byte* at = scales_.data() + ((first + i) / group - begin) * sizeof(float);
      const float step = scaling.nested_map[std::to_integer<std::uint8_t>(codes_[i])] *
                         F32Element::decode(load_little_endian<std::uint32_t>(at));
      out[i] = step + scaling.nested_offset;  // two roundings: so is it defined
    }
    return {};
  }

  const Checkpoint& checkpoint_;
  const CheckpointTensor& tensor_;
  const FormatInfo& info_;
  std::uint64_t columns_;
  std::vector<std::byte> codes_, scales_;
  std::vector<double> row_;
};

}  // namespace

Status read_values(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::uint64_t first_row,
                   std::span<float> out) {
  return within_memory(tensor.name, [&] { return RowReader(checkpoint, tensor).read(first_row, out); });
}
Status read_values(const Checkpoint& checkpoint, const CheckpointTensor& tensor, std::uint64_t first_row,
                   std::span<double> out) {
  return within_memory(tensor.name, [&] { return RowReader(checkpoint, tensor).read(first_row, out); });
}

}  // namespace nib::inline v0
