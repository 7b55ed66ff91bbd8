// x86-64 with AVX-512 F, BW, VL, DQ, VNNI, VBMI and BF16. Compiled with flags for it: nothing here but
// templates on Avx512.
#include "../bodies/backend.hpp"
#include "../bodies/simd_avx512.hpp"

namespace nib::inline v0 {
extern const Backend kAvx512Backend;
const Backend kAvx512Backend = cpu::backend<cpu::Avx512>(
    "avx512", [](const CpuFeatures& cpu) { return cpu.avx512_bf16; },
    "AVX-512 F, BW, VL, DQ, VNNI, VBMI and BF16");
}  // namespace nib::inline v0
