// Room cuda: the sentence about a computer on which no device can be used. Needs no toolkit.
#pragma once

#include <nibble/base/concat.hpp>

#include <string>

namespace nib::inline v0::cuda {

// 13020 is "13.2".
inline std::string cuda_version_text(int version) { return concat(version / 1000, ".", version % 1000 / 10); }

// `driver`: the newest CUDA that the driver knows, 0 without a driver; `runtime`: the CUDA that this library
// was built with. A driver serves all runtimes of its major version.
inline std::string why_no_device(int driver, int runtime) {
  if (driver == 0) return "there is no NVIDIA driver";
  if (driver / 1000 < runtime / 1000)
    return concat("the NVIDIA driver knows CUDA up to ", cuda_version_text(driver), ", this library needs ",
                  cuda_version_text(runtime / 1000 * 1000));
  return "the NVIDIA driver sees no device";
}

}  // namespace nib::inline v0::cuda
