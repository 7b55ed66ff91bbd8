// The backends that tests walk: those this machine can run, and AVX-512 in emulation where the test build has
// it.
#pragma once

#include <nibble/base/machine.hpp>
#include <nibble/kernels/backend.hpp>

#include <string_view>
#include <vector>

namespace nib::inline v0 {
#if defined(NIBBLE_EMULATED_AVX512)
extern const Backend kAvx512EmulatedBackend;
#endif
}  // namespace nib::inline v0

namespace nib::test {

// Best first; the last is scalar.
inline std::vector<const Backend*> present_backends() {
  const CpuFeatures features = this_machine().features;
  std::vector<const Backend*> present;
  for (const Backend* backend : cpu_backends())
    if (backend->present(features)) present.push_back(backend);
#if defined(NIBBLE_EMULATED_AVX512)
  if (kAvx512EmulatedBackend.present(features)) present.insert(present.end() - 1, &kAvx512EmulatedBackend);
#endif
  return present;
}

// Slow ones are given less to do.
inline bool is_slow(const Backend& backend) {
  return std::string_view(backend.name) != "avx2" && std::string_view(backend.name) != "avx512";
}

}  // namespace nib::test
