// Room runtime: what this machine can do at best, measured: the floor beside which every rate is shown.
#pragma once

#include <nibble/base/pool.hpp>
#include <nibble/base/status.hpp>
#include <nibble/kernels/numerics.hpp>
#include <nibble/runtime/runtime.hpp>

#include <cstddef>
#include <span>

namespace nib::inline v0 {

// Bytes per second that all threads read from main memory together, over a block several times the last cache
// (`block_bytes`; 0: chosen), for about `seconds`. Errors: memory.
Result<double> measure_read_bandwidth(const Runtime& runtime, double seconds = 0.3,
                                      std::size_t block_bytes = 0);
// The same over memory that is there: whole lines of 64 bytes, again and again.
double measure_read_bandwidth(const Runtime& runtime, std::span<const std::byte> block, double seconds);

// Floating-point operations per second (a multiply-add is two) of the backend's dot instruction for these
// numerics from registers, all threads together.
double measure_dot_rate(const Runtime& runtime, const Backend& backend, Numerics numerics,
                        double seconds = 0.3);

// Seconds that the pool's threads need to meet for nothing: the mean of many phases that follow each other.
double measure_phase(const Runtime& runtime);

}  // namespace nib::inline v0
