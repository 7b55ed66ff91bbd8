// bench_device_floors [device]: what a CUDA device can do at best, measured: reading its memory, copies from
// the host's, beginning a kernel, waiting for all blocks of one, and products of tensor cores. One JSON
// object on stdout.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include <cooperative_groups.h>
#include <cuda/arch_sm90a.cuh>
#include <cuda_runtime.h>

namespace {

void expect(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "bench_device_floors: %s: %s\n", doing, cudaGetErrorString(error));
  std::exit(1);
}

// Milliseconds of the quickest of so many runs, by the device's clock.
float quickest(int runs, const std::function<void()>& run) {
  cudaEvent_t begin, end;
  expect(cudaEventCreate(&begin), "making an event");
  expect(cudaEventCreate(&end), "making an event");
  float best = 1e30f;
  for (int i = 0; i < runs; ++i) {
    expect(cudaEventRecord(begin), "marking time");
    run();
    expect(cudaEventRecord(end), "marking time");
    expect(cudaEventSynchronize(end), "waiting");
    float milliseconds = 0;
    expect(cudaEventElapsedTime(&milliseconds, begin, end), "reading time");
    best = std::min(best, milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

// Each thread has so many loads under way: one of each would not cover the way to memory and back.
constexpr int kLoads = 8;
__global__ void read_all(const uint4* from, std::size_t words, unsigned* out) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  uint4 all{};
  const auto add = [&](const uint4& word) {
    all.x ^= word.x ^ word.y;
    all.y ^= word.z ^ word.w;
  };
  std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + (kLoads - 1) * step < words; i += kLoads * step) {
    uint4 read[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; ++load) read[load] = __ldcs(from + i + load * step);
#pragma unroll
    for (const uint4& word : read) add(word);
  }
  for (; i < words; i += step) add(__ldcs(from + i));
  if ((all.x ^ all.y) == 0x1234'5679u) *out = 1;  // else nothing would be read
}

double read_bytes_per_second(int processors) {
  constexpr std::size_t kBytes = std::size_t{4} << 30;
  uint4* memory = nullptr;
  unsigned* out = nullptr;
  expect(cudaMalloc(&memory, kBytes), "allocating 4 GiB");
  expect(cudaMalloc(&out, sizeof *out), "allocating");
  expect(cudaMemset(memory, 1, kBytes), "clearing");
  double best = 0;
  for (const int blocks : {2, 4, 8, 16})
    best = std::max(best, kBytes / (quickest(8,
                                             [&] {
                                               read_all<<<processors * blocks, 512>>>(
                                                   memory, kBytes / sizeof(uint4), out);
                                             }) *
                                    1e-3));
  cudaFree(memory);
  cudaFree(out);
  return best;
}

double upload_bytes_per_second() {
  constexpr std::size_t kBytes = std::size_t{1} << 28;
  void *host = nullptr, *device = nullptr;
  expect(cudaMallocHost(&host, kBytes), "pinning memory");
  expect(cudaMalloc(&device, kBytes), "allocating");
  const float milliseconds =
      quickest(8, [&] { expect(cudaMemcpyAsync(device, host, kBytes, cudaMemcpyHostToDevice), "copying"); });
  cudaFreeHost(host);
  cudaFree(device);
  return kBytes / (milliseconds * 1e-3);
}

// What every kernel of nibble does at least: it may begin early, and waits for the one before.
__global__ void nothing() { nib::cuda::wait_for_kernel_before(); }

// Of a kernel of so many blocks among many in a graph. overlaps: it may begin before the one before has
// ended.
double launch_seconds(int blocks, bool overlaps) {
  constexpr int kKernels = 500;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t made;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  expect(cudaStreamCreate(&stream), "making a stream");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(256);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = overlaps ? 1 : 0;
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
  for (int i = 0; i < kKernels; ++i) expect(cudaLaunchKernelEx(&config, nothing), "launching");
  expect(cudaStreamEndCapture(stream, &graph), "recording");
  expect(cudaGraphInstantiate(&made, graph, 0), "making a graph");
  float best = 1e30f;
  for (int i = 0; i < 10; ++i) {
    expect(cudaStreamSynchronize(stream), "waiting");
    const auto begin = std::chrono::steady_clock::now();
    expect(cudaGraphLaunch(made, stream), "launching");
    expect(cudaStreamSynchronize(stream), "waiting");
    best = std::min(best, std::chrono::duration<float>(std::chrono::steady_clock::now() - begin).count());
  }
  cudaGraphExecDestroy(made);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return static_cast<double>(best) / kKernels;
}

__global__ void join_often(int joins) {
  const auto grid = cooperative_groups::this_grid();
  for (int i = 0; i < joins; ++i) grid.sync();
}

// Of all blocks of a grid that waits for each other, one on each multiprocessor.
double join_seconds(int processors) {
  int many = 1000, none = 0;
  void *of_many[] = {&many}, *of_none[] = {&none};
  const auto run = [&](void** arguments) {
    return quickest(8, [&] {
      expect(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(join_often), processors, 256,
                                         arguments, 0, nullptr),
             "launching");
    });
  };
  return (run(of_many) - run(of_none)) * 1e-3 / many;
}

// Two bf16 of 1/16 to 1, of either sign: products with zeros take less power, and so are quicker.
__device__ unsigned any_pair(unsigned seed) {
  unsigned bits = seed * 0x9e37'79b9u + 0x7f4a'7c15u;
  bits = (bits ^ bits >> 15) * 0x85eb'ca6bu;
  bits ^= bits >> 13;
  return (bits & 0x81ff'81ffu) + 0x3d80'3d80u;
}

__global__ void multiply_often(int times, float* out) {
#if __CUDA_ARCH__ >= 800
  float sums[8][4] = {};
  const unsigned seed = threadIdx.x * 8;
  const unsigned a[4] = {any_pair(seed), any_pair(seed + 1), any_pair(seed + 2), any_pair(seed + 3)},
                 b[2] = {any_pair(seed + 4), any_pair(seed + 5)};
  for (int i = 0; i < times; ++i)
#pragma unroll
    for (auto& d : sums)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  float all = 0;
  for (const auto& d : sums) all += d[0] + d[1] + d[2] + d[3];
  if (all == 1.5f) *out = all;
#endif
}

// Multiply-adds times two, of mma.sync on bf16.
double tensor_flops_per_second(int processors) {
  constexpr int kTimes = 20000, kWarps = 16;
  float* out = nullptr;
  expect(cudaMalloc(&out, sizeof *out), "allocating");
  const float milliseconds = quickest(8, [&] { multiply_often<<<processors, kWarps * 32>>>(kTimes, out); });
  cudaFree(out);
  return 2.0 * 16 * 8 * 16 * 8 * kTimes * kWarps * processors / (milliseconds * 1e-3);
}

// The same by warpgroups, their second factor in shared memory.
constexpr int kGroupColumns = 128, kGroupDepth = 16;
__global__ void multiply_by_warpgroups_often(int times, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using namespace nib::cuda;
  struct Panel {
    Words4 at[kGroupColumns * kPanelColumnBytes / 16];
  };
  auto& panel = shared_memory<Panel>();
  for (unsigned i = threadIdx.x; i < kGroupColumns * kPanelColumnBytes / 16; i += blockDim.x)
    panel.at[i] = {{any_pair(4 * i), any_pair(4 * i + 1), any_pair(4 * i + 2), any_pair(4 * i + 3)}};
  show_to_products();
  sync_block();
  const std::uint64_t columns = panel_at(place_of(panel.at));
  const unsigned seed = threadIdx.x * 4;
  const std::uint32_t a[4] = {any_pair(seed), any_pair(seed + 1), any_pair(seed + 2), any_pair(seed + 3)};
  float sums[kGroupColumns / 8][4] = {};
  for (int i = 0; i < times; ++i) {
    begin_products();
#pragma unroll
    for (int product = 0; product < 4; ++product) multiply_warpgroup(sums, a, of_product(columns, product));
    close_products();
    wait_for_products<1>();
  }
  finish_products(sums);
  float all = 0;
  for (const auto& d : sums) all += d[0] + d[1] + d[2] + d[3];
  if (all == 1.5f) *out = all;
#endif
}

// Multiply-adds times two, of wgmma on bf16; zero for a device without.
double warpgroup_flops_per_second(const cudaDeviceProp& device) {
  if (device.major != 9 || device.minor != 0) return 0;
  constexpr int kTimes = 5000, kWarpgroups = 2, kShared = kGroupColumns * 128;
  float* out = nullptr;
  expect(cudaMalloc(&out, sizeof *out), "allocating");
  const float milliseconds = quickest(8, [&] {
    multiply_by_warpgroups_often<<<device.multiProcessorCount, kWarpgroups * 128, kShared>>>(kTimes, out);
  });
  cudaFree(out);
  return 2.0 * 64 * kGroupColumns * kGroupDepth * 4 * kTimes * kWarpgroups * device.multiProcessorCount /
         (milliseconds * 1e-3);
}

}  // namespace

int main(int argc, char** argv) {
  const int device = argc > 1 ? std::atoi(argv[1]) : 0;
  cudaDeviceProp properties;
  expect(cudaGetDeviceProperties(&properties, device), "asking what the device is");
  expect(cudaSetDevice(device), "choosing the device");
  const int processors = properties.multiProcessorCount;
  int driver = 0, clock = 0;
  expect(cudaDriverGetVersion(&driver), "asking for the driver");
  expect(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, device), "asking for the clock");
  std::printf(
      "{\n  \"device\": \"%s\",\n  \"compute\": \"%d.%d\",\n  \"processors\": %d,\n  \"memory_bytes\": "
      "%llu,\n",
      properties.name, properties.major, properties.minor, processors,
      static_cast<unsigned long long>(properties.totalGlobalMem));
  std::printf("  \"driver_cuda\": \"%d.%d\",\n  \"clock_hertz\": %lld,\n", driver / 1000, driver % 1000 / 10,
              static_cast<long long>(clock) * 1000);
  std::printf("  \"read_bytes_per_second\": %.4g,\n  \"upload_bytes_per_second\": %.4g,\n",
              read_bytes_per_second(processors), upload_bytes_per_second());
  std::printf(
      "  \"launch_seconds\": %.3g,\n  \"launch_of_all_seconds\": %.3g,\n  \"overlapped_launch_seconds\": "
      "%.3g,\n",
      launch_seconds(1, false), launch_seconds(2 * processors, false),
      properties.major >= 9 ? launch_seconds(2 * processors, true) : 0.0);
  std::printf(
      "  \"join_seconds\": %.3g,\n  \"tensor_flops_per_second\": %.4g,\n"
      "  \"warpgroup_flops_per_second\": %.4g\n}\n",
      join_seconds(processors), tensor_flops_per_second(processors), warpgroup_flops_per_second(properties));
}
