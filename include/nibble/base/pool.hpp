// Room base: Pool: a team of threads that does one parallel phase at a time, with a static split.
//
// The calling thread works too, and takes over parts of threads that have not begun when it is done with its
// own. Between phases the others spin for a moment and then sleep, so a pool that shares its cores with
// others does not burn them. Which thread does what never changes a result: threads split outputs, never a
// sum.
#pragma once

#include <nibble/base/float_scope.hpp>
#include <nibble/base/status.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace nib::inline v0 {

// A host's own threads instead of ours. run must call task(arg, i) once for each i in [0, threads), on any
// threads, and return when all have returned. The tasks may not wait for one another.
struct ThreadRunner {
  void (*run)(void* user, int threads, void (*task)(void* arg, int index), void* arg) = nullptr;
  void* user = nullptr;
  int threads = 0;
};

// A half-open range of work.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

// Part `index` of `parts` of [0, total), cut at multiples of `grain`; parts differ by at most one grain.
[[gnu::always_inline]] constexpr Range split(std::int64_t total, int index, int parts,
                                             std::int64_t grain = 1) {
  const std::int64_t grains = (total + grain - 1) / grain;
  const std::int64_t begin = grains * index / parts * grain;
  const std::int64_t end = grains * (index + 1) / parts * grain;
  return {begin < total ? begin : total, end < total ? end : total};
}

class Pool {
 public:
  // `threads` counts the caller: 1 means no thread is started. Errors: memory when a thread cannot be
  // started.
  static Result<std::unique_ptr<Pool>> start(int threads);
  // Uses the host's threads.
  static std::unique_ptr<Pool> borrow(ThreadRunner runner);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // Calls of run so far that woke the threads.
  std::uint64_t phases() const { return phases_.load(std::memory_order_relaxed); }

  // Calls body(index, threads()) once for each index, in parallel, and returns when all are done. The body
  // may not throw and may not call run of the same pool. Any thread may call run: phases of several callers
  // take turns. Every body runs under a FloatScope.
  template <class Body>
  void run(Body&& body) {
    auto task = [](void* arg, int index, int count) {
      (*static_cast<std::remove_reference_t<Body>*>(arg))(index, count);
    };
    run_task(task, &body);
  }

  // The same, on the calling thread alone when the work is too small to be worth waking the others for.
  template <class Body>
  void run_if(bool worth, Body&& body) {
    if (worth) return run(std::forward<Body>(body));
    const FloatScope scope;
    body(0, 1);
  }

 private:
  using Task = void (*)(void* arg, int index, int count);
  struct Team;
  Pool();
  void run_task(Task task, void* arg);

  int threads_ = 1;
  std::atomic<std::uint64_t> phases_{0};
  ThreadRunner runner_;
  std::unique_ptr<Team> team_;
};

}  // namespace nib::inline v0
