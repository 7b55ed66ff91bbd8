// Room formats: the other OCP MX formats: 32 values of a row share one power of two, as in MXFP4.
//
//                codes plane, a group   scales plane, a group   bits a value
//   MXFP6        24 bytes               1 byte                  6.25           E2M3 or E3M2
//   MXFP8        32 bytes               1 byte                  8.25           E4M3 or E5M2
//   MXINT8       32 bytes               1 byte                  8.25           integers of 64ths
//
// The standard fixes what the numbers mean, not how they lie in memory. Six-bit codes are one stream of bits,
// lowest bit of the lowest byte first: four codes in three bytes. Codes of MXFP8 that are infinity or NaN
// mean that whatever the scale; the scale NaN makes the whole group NaN.
#pragma once

#include <nibble/formats/block_format.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/integer.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/small_floats.hpp>

namespace nib::inline v0 {

template <class Rule>
using Mxfp6E2M3With = Block<Format::mxfp6_e2m3, E2M3, E8M0, 32, Rule>;
template <class Rule>
using Mxfp6E3M2With = Block<Format::mxfp6_e3m2, E3M2, E8M0, 32, Rule>;
template <class Rule>
using Mxfp8E4M3With = Block<Format::mxfp8_e4m3, E4M3, E8M0, 32, Rule>;
template <class Rule>
using Mxfp8E5M2With = Block<Format::mxfp8_e5m2, E5M2, E8M0, 32, Rule>;
template <class Rule>
using Mxint8With = Block<Format::mxint8, FixedPointInt8, E8M0, 32, Rule>;

using Mxfp6E2M3 = Mxfp6E2M3With<FloorScale>;
using Mxfp6E3M2 = Mxfp6E3M2With<FloorScale>;
using Mxfp8E4M3 = Mxfp8E4M3With<FloorScale>;
using Mxfp8E5M2 = Mxfp8E5M2With<FloorScale>;
using Mxint8 = Mxint8With<FloorScale>;

}  // namespace nib::inline v0
