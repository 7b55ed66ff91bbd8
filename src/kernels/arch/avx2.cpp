// x86-64 with AVX2, FMA and F16C. Compiled with flags for it: nothing here but templates on Avx2. And the
// table of AVX-VNNI, which is this one but for products of bytes (avxvnni.cpp).
#include "../bodies/backend.hpp"
#include "../bodies/simd_avx2.hpp"

namespace nib::inline v0 {
extern const Backend kAvx2Backend;
constexpr Backend kAvx2Backend = cpu::backend<cpu::Avx2>(
    "avx2", [](const CpuFeatures& cpu) { return cpu.avx2_fma; }, "AVX2, FMA and F16C");

namespace cpu {
struct Avxvnni;
extern template double spin_dots<Avxvnni>(Numerics, std::int64_t);
}  // namespace cpu
extern const std::array<MatmulKernel, kAvx2Backend.int8_kernels.size()> kAvxvnniInt8Kernels;

namespace {
constexpr Backend avxvnni() {
  Backend backend = kAvx2Backend;
  backend.name = "avx-vnni";
  backend.present = [](const CpuFeatures& cpu) { return cpu.avx_vnni; };
  backend.needs = "AVX2, FMA, F16C and AVX-VNNI";
  backend.int8_kernels = kAvxvnniInt8Kernels;
  backend.spin_dots = cpu::spin_dots<cpu::Avxvnni>;
  return backend;
}
}  // namespace
extern const Backend kAvxvnniBackend;
constinit const Backend kAvxvnniBackend = avxvnni();
}  // namespace nib::inline v0
