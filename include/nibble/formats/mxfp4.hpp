// Room formats: MXFP4 (OCP MX 1.0): 32 consecutive values of a row share one power of two; 4.25 bits a value.
//
//   codes plane    16 bytes a group: byte j = element 2j in bits 3..0, element 2j + 1 in bits 7..4
//   scales plane   1 byte a group
//
// These are the planes of the published gpt-oss files: `*_blocks` and `*_scales`. All 16 codes are finite in
// f32 for scale codes up to 252, and exact in bf16 too for 2 <= code <= 252.
#pragma once

#include <nibble/formats/block_format.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/scale_rules.hpp>

namespace nib::inline v0 {

// The rule matters to the encoder alone; every MXFP4 decodes the same.
template <class Rule>
using Mxfp4With = Block<Format::mxfp4, E2M1, E8M0, 32, Rule>;
using Mxfp4 = Mxfp4With<FloorScale>;

static_assert(BlockFormat<Mxfp4>);

}  // namespace nib::inline v0
