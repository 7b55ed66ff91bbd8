// The kernels of AVX-VNNI on machines without it: the very bodies of src/kernels, with the one instruction
// that AVX2 lacks said in three of AVX2.
#define NIB_EMULATE_AVXVNNI
#include "../../src/kernels/bodies/backend.hpp"
#include "../../src/kernels/bodies/simd_avxvnni.hpp"

namespace nib::inline v0 {

// As src/kernels/arch/avx2.cpp makes its table.
Backend avxvnni_emulated(const Backend& avx2);
Backend avxvnni_emulated(const Backend& avx2) {
  Backend backend = avx2;
  backend.name = "avx-vnni-emulated";
  backend.int8_kernels = cpu::Int8Formats<cpu::Avxvnni, cpu::GroupKernels>::list;
  return backend;
}

}  // namespace nib::inline v0
