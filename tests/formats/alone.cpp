// Every header of the room in one translation unit, instantiated, compiled with -fno-exceptions -fno-rtti.
#include <nibble/formats/block_format.hpp>
#include <nibble/formats/code_books.hpp>
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/float_scales.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/ggml_k.hpp>
#include <nibble/formats/ggml_types.hpp>
#include <nibble/formats/integer.hpp>
#include <nibble/formats/llm_int8.hpp>
#include <nibble/formats/minifloat.hpp>
#include <nibble/formats/mx.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>
#include <nibble/formats/rounding.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/scaling.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/formats/small_floats.hpp>
#include <nibble/formats/storage.hpp>
#include <nibble/formats/visit.hpp>

template struct nib::Minifloat<4, 3, nib::NonFinite::nan, nib::Overflow::special>;
template struct nib::Minifloat<5, 2, nib::NonFinite::ieee>;
template struct nib::Block<nib::Format::none, nib::Minifloat<2, 3>, nib::E8M0, 32, nib::LeastErrorScale>;

template struct nib::Minifloat<1, 2, nib::NonFinite::none, nib::Overflow::saturate, 1>;

double use_of_everything(const float* values, std::byte* codes, std::byte* scales, float* shared) {
  nib::quantize_rows<nib::Mxfp4With<nib::RoundUpScale>>(values, 1, 64, codes, scales);
  nib::quantize_rows<nib::Nvfp4With<nib::LeastErrorScale>>(values, 1, 64, codes, scales,
                                                           nib::Quantizing<nib::RoundStochastic>{{1}, 0.5f});
  nib::quantize_shared<nib::Nf4>(values, 1, 64, nib::ScaleSharing::per_run(64), codes, shared);
  nib::nest_scales(shared, 1, 0.0f, scales, shared);
  bool outlier[64];
  const nib::StreamBuffers buffers{1, shared, codes, scales};
  const auto read = [](std::int64_t, std::int64_t, float*) { return nib::Status(); };
  const auto write = [](std::int64_t, std::int64_t, const std::byte*, const std::byte*) {
    return nib::Status();
  };
  return nib::dot_row(nib::EncodedMatrix{nib::Format::mxfp4, 1, 64, codes, scales}, 0, values).value +
         static_cast<double>(nib::find_outlier_columns(values, 1, 64, nib::kLlmInt8Threshold, outlier)) +
         (nib::quantize_stream<nib::Q4_0>(1, 64, buffers, read, write).ok() ? 1 : 0);
}
