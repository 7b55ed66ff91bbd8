// x86-64 with AVX-512 F, BW, VL and DQ: the encoders. Compiled with flags for it: nothing here but templates
// on Avx512.
#include "../bodies/wide_avx512.hpp"
// The verbs come first.
#include "../bodies/encode.hpp"

namespace nib::inline v0 {
extern const EncoderTable kAvx512Encoders;
const EncoderTable kAvx512Encoders = {"avx512",
                                      [](const CpuFeatures& cpu) { return cpu.avx512_bf16; },
                                      cpu::kEncoderRows<cpu::Avx512>,
                                      cpu::measure_lanes<cpu::Avx512>,
                                      {cpu::widen_lanes<cpu::Avx512, cpu::Bf16Lanes<cpu::Avx512>>,
                                       cpu::widen_lanes<cpu::Avx512, cpu::F16Lanes<cpu::Avx512>>}};
}  // namespace nib::inline v0
