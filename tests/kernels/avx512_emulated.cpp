// The AVX-512 backend on machines without it: the very bodies of src/kernels, with every intrinsic mapped to
// portable code (SIMDe) that this file compiles for AVX2 and FMA. Not a line of the kernels is written twice
// but the bf16 dot.
#define NIB_EMULATE_AVX512
#define SIMDE_ENABLE_NATIVE_ALIASES
#include "../../src/kernels/bodies/simd_avx512.hpp"
// The verbs come first: they bring the names of the intrinsics.
#include "../../src/kernels/bodies/backend.hpp"

namespace nib::inline v0 {
extern const Backend kAvx512EmulatedBackend;
const Backend kAvx512EmulatedBackend = cpu::backend<cpu::Avx512>(
    "avx512-emulated", [](const CpuFeatures& cpu) { return cpu.avx2_fma; }, "AVX2, FMA and F16C");
}  // namespace nib::inline v0
