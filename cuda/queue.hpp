// Room cuda: what ops need to know of the device that they run on, and their scratch.
#pragma once

#include "launch.cuh"
#include <nibble/base/bits.hpp>
#include <nibble/kernels/device_layout.hpp>
#include <nibble/kernels/ops.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

struct Queue {
  Stream stream;
  int processors;                // multiprocessors
  bool tensor_cores;             // of bf16: sm_80 and later
  int shared_bytes = 228 << 10;  // of a multiprocessor
  bool fast_kernels = false;     // it is one of sm_90
};

// Inputs of products are rows of bf16 that begin at multiples of `bf16_stride`, with zeros beyond their
// width.
constexpr std::int64_t bf16_stride(std::int64_t width) { return round_up(width, std::int64_t{64}); }

// What OpContext::tiles holds: counters, which every kernel leaves as zeros, and room for anything.
struct Scratch {
  std::int32_t* counters;  // [kScratchCounters]
  std::byte* room;         // [bytes], at a multiple of 256
  std::size_t bytes;
  explicit Scratch(const OpContext& context)
      : counters(reinterpret_cast<std::int32_t*>(context.tiles)),
        room(reinterpret_cast<std::byte*>(context.tiles) + kScratchCounters * sizeof(std::int32_t)),
        bytes(static_cast<std::size_t>(context.tile_floats) * sizeof(float) -
              kScratchCounters * sizeof(std::int32_t)) {}
};

}  // namespace nib::inline v0::cuda
