// Any processor.
#include "../bodies/backend.hpp"
#include "../bodies/simd_scalar.hpp"

namespace nib::inline v0 {
extern const Backend kScalarBackend;
const Backend kScalarBackend = cpu::backend<cpu::Scalar>(
    "scalar", [](const CpuFeatures&) { return true; }, "any processor");
}  // namespace nib::inline v0
