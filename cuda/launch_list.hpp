// Room cuda: LaunchList: kernels that were asked for and not yet given to the device. A decoded token asks
// for hundreds, and for the same ones, with the same arguments, as the token before it: numbers that change
// lie in memory of the device. So whoever waits for the device, or copies, hands over the whole list: as a
// graph where it is a list that was handed over before, which costs the device about half as much as one
// launch after the other.
//
// A pass is one list where all of it that the device computes stands together, and as many as there are
// visits of the host where it does not. So lists are remembered, those that were handed over last, each with
// its graph if it has come again: of all visits, and of batches of several sizes that take turns.
#pragma once

#include "answer.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <unordered_set>
#include <vector>

namespace nib::inline v0::cuda {

class LaunchList {
 public:
  // On the device that is current. overlaps: it can begin a kernel before the one before it has ended
  // (sm_90).
  Status open(bool overlaps) {
    overlaps_ = overlaps;
    remembered_.reserve(kMostLists);
    return status_of(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  }
  void close() {
    while (!remembered_.empty()) forget(remembered_.size() - 1);
    if (!stream_) return;
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
    stream_ = nullptr;
  }
  cudaStream_t stream() const { return stream_; }

  template <class... Arguments>
  void add(const void* kernel, int blocks, int threads, std::size_t shared_bytes,
           const Arguments&... arguments) {
    static_assert((std::is_trivially_copyable_v<Arguments> && ...));
    static_assert(sizeof...(arguments) <= kMostArguments);
    const std::size_t first = now_.offsets.size();
    (now_.keep(arguments), ...);
    // Last, so that where memory runs out there is no kernel without its arguments.
    now_.kernels.push_back({kernel, blocks, threads, shared_bytes, first, sizeof...(arguments)});
  }

  // To the device, in order. Errors: those of launches; what had not been launched then never will be.
  Status flush();

  // What is remembered at most: lists, and kernels of them all, which bounds the memory of graphs. (A longer
  // list is remembered alone.) Room for the lists of a hundred layers and several sizes of batches, or for
  // ten sizes where each is one list.
  static constexpr std::size_t kMostLists = 512, kMostKernels = 4096;

 private:
  static constexpr std::size_t kMostArguments = 8;
  struct Kernel {
    const void* function;
    int blocks, threads;
    std::size_t shared_bytes, first_argument, arguments;
    bool operator==(const Kernel&) const = default;
  };
  struct List {
    std::vector<Kernel> kernels;
    std::vector<std::size_t> offsets;  // of arguments
    std::vector<std::byte> bytes;      // of them all

    template <class T>
    void keep(T argument) {
#if __has_builtin(__builtin_clear_padding)
      __builtin_clear_padding(&argument);  // or equal lists would differ in what nobody reads
#endif
      const std::size_t at = (bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T);
      bytes.resize(at + sizeof(T));
      std::memcpy(bytes.data() + at, &argument, sizeof(T));
      offsets.push_back(at);
    }
    void clear() {
      kernels.clear();
      offsets.clear();
      bytes.clear();
    }
    bool operator==(const List&) const = default;
  };

  struct Remembered {
    List list;
    cudaGraphExec_t graph = nullptr;  // of it, or none
    std::uint64_t used = 0;           // the last flush that handed it over
  };

  Status allow_shared_memory(const Kernel& kernel);
  Status launch_each(List& list);
  Status make_graph(Remembered& of);
  std::size_t find() const;  // an index into remembered_, of a list like now_; its size if there is none
  void remember();           // now_, at expected_
  void forget(std::size_t index);
  static void forget_graph(Remembered& of) {
    if (of.graph) cudaGraphExecDestroy(of.graph);
    of.graph = nullptr;
  }

  cudaStream_t stream_ = nullptr;
  bool overlaps_ = false, graphs_work_ = true;
  List now_;
  // A list that was new stands behind the one that was handed over before it, so that `expected_`, where the
  // search for the next one begins, is mostly where it ends, too.
  std::vector<Remembered> remembered_;
  std::size_t expected_ = 0, kernels_ = 0;  // kernels_: of all that are remembered
  std::uint64_t flushes_ = 0;
  std::unordered_set<const void*> known_;  // kernels that were told how much shared memory they may take
};

}  // namespace nib::inline v0::cuda
