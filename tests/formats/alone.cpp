// Every header of the room in one translation unit, instantiated, compiled with -fno-exceptions -fno-rtti.
#include <nibble/formats/block_format.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/minifloat.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/visit.hpp>

template struct nib::Minifloat<4, 3, nib::Specials::nan, nib::Overflow::special>;
template struct nib::Minifloat<5, 2, nib::Specials::ieee>;
template struct nib::Block<nib::Format::none, nib::Minifloat<2, 3>, nib::E8M0, 32, nib::LeastErrorScale>;

double use_of_everything(const float* values, std::byte* codes, std::byte* scales) {
  nib::quantize_rows<nib::Mxfp4With<nib::RoundUpScale>>(values, 1, 64, codes, scales);
  return nib::dot_row(nib::EncodedMatrix{nib::Format::mxfp4, 1, 64, codes, scales}, 0, values).value;
}
