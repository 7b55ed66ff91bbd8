// x86-64 with AVX2, FMA, F16C and AVX-VNNI. Compiled with flags for it: nothing here but templates on
// Avxvnni. It has products of bytes; the table, in avx2.cpp, takes all else from AVX2.
#include "../bodies/backend.hpp"
#include "../bodies/simd_avxvnni.hpp"

namespace nib::inline v0 {
using Int8Kernels = cpu::Int8Formats<cpu::Avxvnni, cpu::GroupKernels>;
extern const std::array<MatmulKernel, Int8Kernels::list.size()> kAvxvnniInt8Kernels;
constinit const std::array<MatmulKernel, Int8Kernels::list.size()> kAvxvnniInt8Kernels = Int8Kernels::list;
template double cpu::spin_dots<cpu::Avxvnni>(Numerics, std::int64_t);
}  // namespace nib::inline v0
