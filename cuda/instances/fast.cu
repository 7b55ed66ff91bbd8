// Kernels of sm_90a alone.
#include "../bodies/warpgroups.cuh"
#include "../bodies/weights_bf16.cuh"
#include "../bodies/weights_mxfp4.cuh"
#include "../fast.cuh"

namespace nib::inline v0::cuda {
namespace {

template <class Tiles>
struct WeightsIn;
template <>
struct WeightsIn<Mxfp4Tiles> {
  using Type = Mxfp4Weights;
};
template <>
struct WeightsIn<Bf16Tiles> {
  using Type = Bf16Weights;
};

template <int kWide>
struct FastExperts {
  WarpgroupShared<kWide> warpgroups;
  ActiveExperts active;
};

template <int kWide, class Problem>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) fast_experts_kernel(typename Problem::Call call) {
  wait_for_kernel_before();
  auto& shared = shared_memory<FastExperts<kWide>>();
  find_active(shared.active, call.lists);
  using Tiles = decltype(call.matrices.shape);
  multiply_by_warpgroups<typename WeightsIn<Tiles>::Type, kWide>(Problem(call, shared.active, nullptr),
                                                                 shared.warpgroups);
}

template <int kWide, class Tiles>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1) fast_multiply_kernel(DenseCall<Tiles> call) {
  wait_for_kernel_before();
  const Dense<Tiles> dense{call, RowFactors::of(call.norm, nullptr)};
  multiply_by_warpgroups<typename WeightsIn<Tiles>::Type, kWide>(dense,
                                                                 shared_memory<WarpgroupShared<kWide>>());
}

constexpr std::size_t kMostShared = 227 << 10;

template <class Shared, class Call>
Status launch_one(void (*kernel)(Call), const Queue& queue, const Call& call) {
  static_assert(sizeof(Shared) <= kMostShared);
  return launch(kernel, {queue.processors, kStripeThreads, sizeof(Shared)}, queue.stream, call);
}

// The narrow kernel takes half the time of the other one for columns that it has room for.
constexpr bool is_narrow(std::int64_t columns) { return columns <= 8 * kColumns; }

template <class Problem>
Status launch_experts(const Queue& queue, const typename Problem::Call& call, std::int64_t columns) {
  return is_narrow(columns) ? launch_one<FastExperts<8>>(fast_experts_kernel<8, Problem>, queue, call)
                            : launch_one<FastExperts<16>>(fast_experts_kernel<16, Problem>, queue, call);
}

}  // namespace

template <class Tiles>
Status launch_fast(const Queue& queue, const DenseCall<Tiles>& call, std::int64_t columns) {
  return is_narrow(columns) ? launch_one<WarpgroupShared<8>>(fast_multiply_kernel<8, Tiles>, queue, call)
                            : launch_one<WarpgroupShared<16>>(fast_multiply_kernel<16, Tiles>, queue, call);
}
template <class Tiles>
Status launch_fast(const Queue& queue, const GateUpCall<Tiles>& call, std::int64_t columns) {
  return launch_experts<GateUp<Tiles>>(queue, call, columns);
}
template <class Tiles>
Status launch_fast(const Queue& queue, const DownCall<Tiles>& call, std::int64_t columns) {
  return launch_experts<DownOutputs<Tiles>>(queue, call, columns);
}

#define NIB_FAST(Tiles)                                                              \
  template Status launch_fast(const Queue&, const DenseCall<Tiles>&, std::int64_t);  \
  template Status launch_fast(const Queue&, const GateUpCall<Tiles>&, std::int64_t); \
  template Status launch_fast(const Queue&, const DownCall<Tiles>&, std::int64_t);
NIB_FAST(Mxfp4Tiles)
NIB_FAST(Bf16Tiles)
#undef NIB_FAST

}  // namespace nib::inline v0::cuda
