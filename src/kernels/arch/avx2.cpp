// x86-64 with AVX2, FMA and F16C. Compiled with flags for it: nothing here but templates on Avx2.
#include "../bodies/backend.hpp"
#include "../bodies/simd_avx2.hpp"

namespace nib::inline v0 {
extern const Backend kAvx2Backend;
const Backend kAvx2Backend = cpu::backend<cpu::Avx2>(
    "avx2", [](const CpuFeatures& cpu) { return cpu.avx2_fma; }, "AVX2, FMA and F16C");
}  // namespace nib::inline v0
