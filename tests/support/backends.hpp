// The backends that tests walk: those this machine can run, and those in emulation that the test build has.
#pragma once

#include <nibble/base/machine.hpp>
#include <nibble/kernels/backend.hpp>

#include <string_view>
#include <vector>

namespace nib::inline v0 {
#if defined(NIBBLE_EMULATED_AVX512)
extern const Backend kAvx512EmulatedBackend;
#endif
#if defined(NIBBLE_EMULATED_AVXVNNI)
Backend avxvnni_emulated(const Backend& avx2);
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

// With that of AVX-VNNI: only its products of bytes are not AVX2's.
inline std::vector<const Backend*> backends_of_kernels() {
  std::vector<const Backend*> backends = present_backends();
#if defined(NIBBLE_EMULATED_AVXVNNI)
  for (auto avx2 = backends.begin(); avx2 != backends.end(); ++avx2)
    if (std::string_view((*avx2)->name) == "avx2") {
      static const Backend emulated = avxvnni_emulated(**avx2);
      backends.insert(avx2, &emulated);
      break;
    }
#endif
  return backends;
}
inline bool share_ops(const Backend& a, const Backend& b) { return a.ops.project == b.ops.project; }

}  // namespace nib::test
