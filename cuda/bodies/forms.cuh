// The forms of matrices that have tiles for tensor cores, and the arithmetic of their products.
#pragma once

#include "slice.cuh"
#include "weights_bf16.cuh"
#include "weights_mxfp4.cuh"
#include "weights_scaled.cuh"
#include <nibble/base/status.hpp>

namespace nib::inline v0::cuda {

// run.operator()<Math>() for matrices of a form; otherwise(), where it is none of those with tiles.
template <class Run, class Otherwise>
Status run_by_form(DeviceForm form, bool tensor_cores, const Run& run, const Otherwise& otherwise) {
  const auto by = [&]<class Weights>() {
    return tensor_cores ? run.template operator()<TensorMath<Weights>>()
                        : run.template operator()<SimtMath<Weights>>();
  };
  switch (form) {
    case DeviceForm::mxfp4:
      return by.template operator()<Mxfp4Weights>();
    case DeviceForm::bf16:
      return by.template operator()<Bf16Weights>();
    case DeviceForm::q4_0:
      return by.template operator()<Q4Weights>();
    case DeviceForm::q8_0:
      return by.template operator()<Q8Weights>();
    case DeviceForm::int8:
      return by.template operator()<Int8Weights>();
    case DeviceForm::fp8_e4m3:
      return by.template operator()<E4M3Weights>();
    case DeviceForm::fp8_e5m2:
      return by.template operator()<E5M2Weights>();
    case DeviceForm::tiles:
    case DeviceForm::none:
      break;
  }
  return otherwise();
}

}  // namespace nib::inline v0::cuda
