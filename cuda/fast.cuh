// Room cuda: products of the fast class (kernels/device_layout.hpp), by warpgroups (bodies/warpgroups.cuh).
#pragma once

#include "bodies/dense.cuh"
#include "bodies/experts.cuh"
#include <nibble/base/status.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

// Whether a product is of that class, if it may be.
inline bool is_fast(const Queue& queue, bool may_be, const PackedWeight& weight, std::int64_t rows) {
  return may_be && queue.fast_kernels && rows >= kFastRows && has_fast_kernel(device_form(weight));
}

// columns: as many as a matrix is expected to have, by which the kernel is chosen. For Tiles that have such
// kernels; others answer unsupported. Errors: those of a launch.
template <class Tiles>
Status launch_fast(const Queue& queue, const DenseCall<Tiles>& call, std::int64_t columns);
template <class Tiles>
Status launch_fast(const Queue& queue, const GateUpCall<Tiles>& call, std::int64_t columns);
template <class Tiles>
Status launch_fast(const Queue& queue, const DownCall<Tiles>& call, std::int64_t columns);

}  // namespace nib::inline v0::cuda
