// x86-64 with AVX2, FMA and F16C: the encoders. Compiled with flags for it: nothing here but templates on
// Avx2.
#include "../bodies/wide_avx2.hpp"
// The verbs come first.
#include "../bodies/encode.hpp"

namespace nib::inline v0 {
extern const EncoderTable kAvx2Encoders;
const EncoderTable kAvx2Encoders = {"avx2",
                                    [](const CpuFeatures& cpu) { return cpu.avx2_fma; },
                                    cpu::kEncoderRows<cpu::Avx2>,
                                    cpu::measure_lanes<cpu::Avx2>,
                                    {cpu::widen_lanes<cpu::Avx2, cpu::Bf16Lanes<cpu::Avx2>>,
                                     cpu::widen_lanes<cpu::Avx2, cpu::F16Lanes<cpu::Avx2>>}};
}  // namespace nib::inline v0
