#include "decode_records.hpp"

#include <nibble/formats/visit.hpp>

#include <cstring>

namespace nib::inline v0 {
namespace {

template <StoredFormat F>
void decode_row(const PackedWeight& weight, const std::byte* record, std::int64_t begin, std::int64_t count,
                float* values) {
  const std::byte* scales = record + weight.record_codes();
  for (std::int64_t i = 0; i < count; i += F::group) {
    const std::int64_t at = begin + i, group = at / F::group;
    const std::int64_t scale = SharedScaleFormat<F> ? at / weight.scale_run : group;
    F::decode_group(record + group * static_cast<std::int64_t>(F::code_bytes),
                    scales + scale * static_cast<std::int64_t>(F::scale_bytes), values + i);
  }
  if constexpr (format_info(F::id).tensor_scale) {
    float factor;
    std::memcpy(&factor, scales + weight.record_scales(), sizeof factor);
    for (std::int64_t i = 0; i < count; ++i) values[i] *= factor;
  }
}

}  // namespace

void decode_records(const PackedWeight& weight, std::int64_t strip, std::int64_t begin, std::int64_t count,
                    float* panel) {
  const std::byte* records = weight.data + static_cast<std::size_t>(strip) * weight.strip_bytes();
  const std::int64_t padded = round_up(count, kOctet);
  [[maybe_unused]] const bool known = visit_format(weight.format, [&](auto format) {
    for (std::int64_t lane = 0; lane < kStripRows; ++lane) {
      float values[kRecordPanel];
      decode_row<decltype(format)>(weight, records + static_cast<std::size_t>(lane) * weight.record_bytes(),
                                   begin, count, values);
      for (std::int64_t i = count; i < padded; ++i) values[i] = 0;
      for (std::int64_t octet = 0; octet < padded; octet += kOctet)
        for (std::int64_t s = 0; s < kOctet; ++s)
          panel[(octet + s) * kStripRows + lane] = values[octet + kChainOrder[s]];
    }
  });
}

}  // namespace nib::inline v0
