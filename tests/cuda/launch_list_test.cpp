// LaunchList against a CUDA runtime that is a few functions here: what is handed over when, and what is left
// where the runtime refuses.
#include "cuda/launch_list.hpp"

#include <cstdint>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

namespace {

// What the runtime was asked for, and what it will refuse. Kernels are known by their first arguments.
struct Runtime {
  std::vector<int> launched;  // by themselves
  std::vector<int> replayed;  // by graphs
  std::vector<int> recorded;  // since the last recording began
  // Of graphs by number, of which there is one after the other; those that are no more are empty.
  std::vector<std::vector<int>> graphs;
  int graphs_alive = 0;
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
  runtime.recorded.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  runtime.is_recording = false;
  *graph = reinterpret_cast<cudaGraph_t>(2);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* graph, cudaGraph_t, unsigned long long) {
  *graph = reinterpret_cast<cudaGraphExec_t>(runtime.graphs.size() + 1);  // nothing, unless it succeeds
  if (runtime.refuses_to_make) return cudaErrorMemoryAllocation;
  runtime.graphs.push_back(runtime.recorded);
  ++runtime.graphs_alive;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  runtime.graphs[reinterpret_cast<std::uintptr_t>(graph) - 1].clear();
  --runtime.graphs_alive;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  if (runtime.refuses_graphs) return cudaErrorMemoryAllocation;
  const auto& kernels = runtime.graphs[reinterpret_cast<std::uintptr_t>(graph) - 1];
  runtime.replayed.insert(runtime.replayed.end(), kernels.begin(), kernels.end());
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void** arguments) {
  if (runtime.launches_until_refusal-- == 0) return cudaErrorLaunchOutOfResources;
  (runtime.is_recording ? runtime.recorded : runtime.launched).push_back(*static_cast<int*>(arguments[0]));
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
  // Kernels with these arguments. `launched` and `replayed` are of this list then.
  Status give(const std::vector<int>& arguments) {
    runtime.launched.clear();
    runtime.replayed.clear();
    for (const int argument : arguments) list.add(&runtime, 1, 32, 0, argument, 2.0);
    return list.flush();
  }
};
using Ints = std::vector<int>;

TEST_CASE("a list that comes again becomes a graph: another one does not") {
  Rig rig;
  CHECK(rig.give({1, 2, 3}).ok());
  CHECK(runtime.launched == Ints{1, 2, 3});
  for (int i = 0; i < 2; ++i) {
    CHECK(rig.give({1, 2, 3}).ok());
    CHECK(runtime.launched.empty());
    CHECK(runtime.replayed == Ints{1, 2, 3});
  }
  CHECK(rig.give({}).ok());
  CHECK(runtime.replayed.empty());
  CHECK(rig.give({1, 2, 4}).ok());
  CHECK(runtime.launched == Ints{1, 2, 4});
  CHECK(rig.give({1, 2}).ok());
  CHECK(runtime.launched == Ints{1, 2});
  CHECK(runtime.graphs_alive == 1);
}

// A pass of three visits of the host, and one of another batch, as they come in a server's steps.
TEST_CASE("every list of a pass becomes a graph, and passes take turns") {
  Rig rig;
  const std::vector<Ints> small = {{1, 2}, {3, 4}, {5}}, large = {{11, 2}, {13, 4}, {5}};
  for (const auto* pass : {&small, &large, &small, &large, &large, &small}) {
    for (const Ints& list : *pass) CHECK(rig.give(list).ok());
  }
  CHECK(runtime.graphs_alive == 5);  // {5} is of both
  for (const auto* pass : {&large, &small, &small})
    for (const Ints& list : *pass) {
      CHECK(rig.give(list).ok());
      CHECK(runtime.launched.empty());
      CHECK(runtime.replayed == list);
    }
  CHECK(runtime.graphs.size() == 5);
}

Ints kernels(int first, std::size_t count) {
  Ints out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

TEST_CASE("those that were handed over last are remembered: so many lists, and so many kernels") {
  Rig rig;
  std::size_t each = 0, room = 0;
  SUBCASE("lists") { each = 2, room = cuda::LaunchList::kMostLists; }
  SUBCASE("kernels") { each = 300, room = cuda::LaunchList::kMostKernels / 300; }
  SUBCASE("one that is too long is remembered alone") { each = cuda::LaunchList::kMostKernels + 1, room = 1; }
  const auto list = [&](std::size_t i) { return kernels(static_cast<int>(i * each), each); };
  const auto is_replayed = [&](std::size_t i) {
    CHECK(rig.give(list(i)).ok());
    CHECK((runtime.launched.empty() ? runtime.replayed : runtime.launched) == list(i));
    return runtime.launched.empty();
  };
  for (int pass = 0; pass < 3; ++pass)
    for (std::size_t i = 0; i < room; ++i) CHECK(is_replayed(i) == (pass > 0));
  CHECK(runtime.graphs_alive == static_cast<int>(room));
  // One more takes the place of that which was not seen for the longest time.
  CHECK(is_replayed(0));
  CHECK_FALSE(is_replayed(room));
  CHECK(is_replayed(room));
  CHECK(runtime.graphs_alive == static_cast<int>(room));
  CHECK(is_replayed(0) == (room > 1));
  CHECK_FALSE(is_replayed(room > 1 ? 1 : room));
  // More than there is room for, in turn, are never graphs, and never more than that.
  for (int pass = 0; pass < 2; ++pass)
    for (std::size_t i = 0; i <= room; ++i)
      if (is_replayed(2 * room + i)) FAIL("list " << i << " was remembered in pass " << pass);
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
  CHECK(runtime.replayed.empty());
  CHECK(runtime.graphs_alive == 0);
}

TEST_CASE("a graph that is refused leaves those that there are") {
  Rig rig;
  for (int i = 0; i < 2; ++i) CHECK(rig.give({1, 2}).ok());
  CHECK(rig.give({3, 4}).ok());
  runtime.refuses_to_make = true;
  CHECK(rig.give({3, 4}).ok());
  CHECK(runtime.launched == Ints{3, 4});
  CHECK(rig.give({1, 2}).ok());
  CHECK(runtime.replayed == Ints{1, 2});
}

}  // namespace
}  // namespace nib::test
