// Room base: Machine: what this computer is, as far as the processor itself and the kernel's calls tell. No
// file and no environment variable is read; limits of a container are the host's to know and to pass on.
#pragma once

#include <cstdint>
#include <string>

namespace nib::inline v0 {

struct CpuFeatures {
  bool avx2_fma = false;     // AVX2 and FMA3
  bool avx_vnni = false;     // the same and AVX-VNNI
  bool avx512_bf16 = false;  // AVX-512 F, BW, VL, DQ, VNNI, VBMI and BF16
  bool neon_dot = false;     // AArch64's vectors (ASIMD) and DotProd
};

struct Machine {
  std::string cpu;             // the processor's own name
  CpuFeatures features;        // usable: the operating system saves the registers too
  int threads = 1;             // processors this process may run on
  std::uint64_t memory = 0;    // bytes of main memory
  std::uint64_t l2_cache = 0;  // bytes of one core; 0 when unknown
  std::uint64_t l3_cache = 0;  // bytes of one group of cores; 0 when unknown
};

// Asks the processor and the kernel; costs microseconds; any thread.
Machine this_machine();

}  // namespace nib::inline v0
