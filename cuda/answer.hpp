// Room cuda: what the CUDA runtime answers, as a Code and a sentence.
#pragma once

#include "driver.hpp"
#include <nibble/base/status.hpp>
#include <nibble/kernels/device_library.hpp>

#include <string>

#include <cuda_runtime_api.h>

namespace nib::inline v0::cuda {

constexpr Code code_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return Code::ok;
    case cudaErrorMemoryAllocation:
      return Code::device_memory;
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return Code::unsupported;
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidValue:
      return Code::argument;
    default:
      return Code::device;  // lost, or of no more use to this process
  }
}

inline Status status_of(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return {};
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    return Status(Code::unsupported, why_no_device(driver, CUDART_VERSION));
  }
  return Status(code_of(error), std::string(doing) + ": " + cudaGetErrorString(error));
}

}  // namespace nib::inline v0::cuda
