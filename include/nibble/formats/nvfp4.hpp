// Room formats: NVFP4: 16 values of a row share a scale that is an E4M3 float, and the tensor has one f32 on
// top. 4.5 bits a value.
//
//   codes plane    8 bytes a group: byte j = element 2j in bits 3..0, element 2j + 1 in bits 7..4
//   scales plane   1 byte a group, E4M3, sign not used
//   value          level(code) * scale * tensor scale     the first product is exact in f32
//
// The tensor scale is applied by whoever holds the tensor: decode_group gives values in units of it.
// Published checkpoints differ in how they store it: as the factor (ModelOpt) or as its inverse
// (compressed-tensors).
#pragma once

#include <nibble/formats/block_format.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/float_scales.hpp>

namespace nib::inline v0 {

template <class Rule>
using Nvfp4With = Block<Format::nvfp4, E2M1, E4M3Scale, 16, Rule>;
using Nvfp4 = Nvfp4With<AbsmaxScale>;

// The tensor scale for a tensor of that largest magnitude: the largest value is 6 * 448 of it. 1 for a tensor
// of zeros, and for a largest magnitude that is not finite or too small to be divided.
constexpr float nvfp4_tensor_scale(float largest) {
  const float scale = largest / 2688.0f;
  return scale >= 0x1p-126f && scale <= 0x1p126f ? scale : 1.0f;
}

static_assert(BlockFormat<Nvfp4>);

}  // namespace nib::inline v0
