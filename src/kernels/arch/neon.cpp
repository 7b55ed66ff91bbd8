// AArch64 with byte dots (Armv8.2 DotProd). Compiled with flags for it: nothing here but templates on Neon.
#include "../bodies/backend.hpp"
#include "../bodies/simd_neon.hpp"

namespace nib::inline v0 {
extern const Backend kNeonBackend;
const Backend kNeonBackend = cpu::backend<cpu::Neon>(
    "neon", [](const CpuFeatures& cpu) { return cpu.neon_dot; }, "AArch64 with DotProd");
}  // namespace nib::inline v0
