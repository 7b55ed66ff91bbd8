// Room cuda: matrices in the processor's packed order become the bytes that a device holds
// (kernels/device_layout.hpp).
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/kernels/device_layout.hpp>
#include <nibble/kernels/device_library.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

// The exponents of the scales of one matrix of MXFP4; all of its groups have to be seen before the first is
// packed.
class ScaleExtent {
 public:
  // scale: E8M0; all_zeros: the codes of its group are, so that it may have any scale.
  void see(int scale, bool all_zeros);
  // The power of two, 0 to 126, by which all scales are to be lowered. Errors: unsupported, if a scale is NaN
  // or the largest is more than 2^128 times the smallest.
  Result<int> lowered_by() const;

 private:
  int least_ = 255, most_ = -1;
};

// Writes part `index` of `count` of the bytes of a matrix, of which device_bytes(weight) says how many there
// are; all of them are written when all parts are. Any thread.
// Errors: argument (a part that there is not, rows that are no pairs of strips), unsupported (a format that
// the device has no form of; ScaleExtent::lowered_by).
Status pack(const PackedWeight& weight, DeviceRows rows, std::byte* out, int index, int count);

}  // namespace nib::inline v0::cuda
