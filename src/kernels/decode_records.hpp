// Rows that are kept as they are stored, decoded for the kernel that multiplies any format.
#pragma once

#include <nibble/kernels/packed.hpp>

#include <cstdint>

namespace nib::inline v0 {

// Most inputs of one call: whole groups of every format.
inline constexpr std::int64_t kRecordPanel = 256;

// The values of a strip's inputs [begin, begin + count): panel[step][16 lanes], the steps in canonical order,
// those past the last input zero up to a whole octet. `begin` is a multiple of kRecordPanel, count at most
// that. Each value is level * scale (and what blocks add), rounded to f32, times the factor of formats that
// have one.
void decode_records(const PackedWeight& weight, std::int64_t strip, std::int64_t begin, std::int64_t count,
                    float* panel);

}  // namespace nib::inline v0
