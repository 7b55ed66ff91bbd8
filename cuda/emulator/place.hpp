// Emulator: what everything in it knows of: lines of kernels, and how many lanes a warp has.
#pragma once

namespace nib::inline v0::simt {

inline constexpr int kWarpLanes = 32;

// A line of a kernel. As a default argument, here() is where the function was called.
struct Place {
  const char* file = "";
  int line = 0;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

}  // namespace nib::inline v0::simt
