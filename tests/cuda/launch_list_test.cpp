// LaunchList against a CUDA runtime that is a few functions here: what is handed over when, and what is left
// where the runtime refuses.
#include "cuda/launch_list.hpp"

#include <vector>

#include <doctest/doctest.h>

namespace {

// What the runtime was asked for, and what it will refuse.
struct Runtime {
  std::vector<int> launched;  // first arguments of kernels, not of recorded ones
  int graphs = 0, graphs_alive = 0;
  bool is_recording = false;
  int launches_until_refusal = -1;
  bool refuses_to_record = false, refuses_to_make = false, refuses_graphs = false;
};
Runtime runtime;

}  // namespace

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(1);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (runtime.refuses_to_record) return cudaErrorStreamCaptureUnsupported;
  runtime.is_recording = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  runtime.is_recording = false;
  *graph = reinterpret_cast<cudaGraph_t>(2);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t, unsigned long long) {
  *graph = reinterpret_cast<cudaGraphExec_t>(3);  // means nothing unless it succeeds
  if (runtime.refuses_to_make) return cudaErrorMemoryAllocation;
  ++runtime.graphs_alive;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  --runtime.graphs_alive;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  if (runtime.refuses_graphs) return cudaErrorMemoryAllocation;
  ++runtime.graphs;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void** arguments) {
  if (runtime.launches_until_refusal-- == 0) return cudaErrorLaunchOutOfResources;
  if (!runtime.is_recording) runtime.launched.push_back(*static_cast<int*>(arguments[0]));
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 99 * 1024;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "refused"; }
}

namespace nib::test {
namespace {

// A list on that runtime.
struct Rig {
  cuda::LaunchList list;
  Rig() {
    runtime = {};
    REQUIRE(list.open(true).ok());
  }
  ~Rig() {
    list.close();
    CHECK(runtime.graphs_alive == 0);
    CHECK_FALSE(runtime.is_recording);
  }
  // Kernels with these arguments. What is launched by itself for it goes to `launched`.
  Status give(const std::vector<int>& arguments) {
    runtime.launched.clear();
    for (const int argument : arguments) list.add(&runtime, 1, 32, 0, argument, 2.0);
    return list.flush();
  }
};
using Ints = std::vector<int>;

TEST_CASE("a list that comes again becomes a graph: another one does not") {
  Rig rig;
  CHECK(rig.give({1, 2, 3}).ok());
  CHECK(runtime.launched == Ints{1, 2, 3});
  CHECK(rig.give({1, 2, 3}).ok());
  CHECK(rig.give({1, 2, 3}).ok());
  CHECK(runtime.launched.empty());
  CHECK(runtime.graphs == 2);
  CHECK(rig.give({}).ok());
  CHECK(runtime.graphs == 2);
  CHECK(rig.give({1, 2, 4}).ok());
  CHECK(runtime.launched == Ints{1, 2, 4});
  CHECK(runtime.graphs_alive == 0);
}

TEST_CASE("what was refused is told once and not launched later") {
  Rig rig;
  runtime.launches_until_refusal = 2;
  CHECK(rig.give({1, 2, 3, 4}).code() == Code::device);
  CHECK(runtime.launched == Ints{1, 2});
  CHECK(rig.give({5}).ok());
  CHECK(runtime.launched == Ints{5});
}

TEST_CASE("where no graph is to be had kernels go one by one") {
  Rig rig;
  CHECK(rig.give({1, 2}).ok());
  SUBCASE("nothing can be recorded") { runtime.refuses_to_record = true; }
  SUBCASE("a kernel cannot be recorded") { runtime.launches_until_refusal = 1; }
  SUBCASE("there is no memory to make it") { runtime.refuses_to_make = true; }
  SUBCASE("there is no memory to launch it") { runtime.refuses_graphs = true; }
  for (int i = 0; i < 2; ++i) {
    CHECK(rig.give({1, 2}).ok());
    CHECK(runtime.launched == Ints{1, 2});
  }
  CHECK(runtime.graphs == 0);
}

}  // namespace
}  // namespace nib::test
