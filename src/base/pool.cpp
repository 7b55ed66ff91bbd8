#include <nibble/base/float_scope.hpp>
#include <nibble/base/pool.hpp>

#include <atomic>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace nib::inline v0 {
namespace {

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 20 microseconds of spinning covers the gap between two phases of a forward pass; whoever waits longer
// sleeps.
constexpr int kSpins = 2000;

}  // namespace

// The hand-over of a phase: `phase` is bumped when a task is set, `pending` counts parts that are not done.
//
// A part belongs to the thread of its index, but whoever is done first takes what nobody has begun: a worker
// that the system does not let run, because a neighbour has its core, costs no more than its share of the
// work. A part is taken by moving its seat from the phase before to this one, so a worker that comes late
// finds its seat beyond the phase it woke up for and touches nothing.
struct Pool::Team {
  struct alignas(64) Seat {
    std::atomic<std::uint32_t> phase{0};
  };
  alignas(64) std::atomic<std::uint32_t> phase{0};
  alignas(64) std::atomic<std::int32_t> pending{0};
  Task task = nullptr;
  void* arg = nullptr;
  std::atomic<bool> leaving{false};
  int spins = kSpins;
  std::vector<Seat> seats;
  std::mutex one_caller;
  std::vector<std::thread> workers;

  template <class T>
  void wait_while(const std::atomic<T>& value, T old) const {
    for (int i = 0; i < spins; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
  }

  void work(int index) {
    const FloatScope scope;
    std::uint32_t seen = 0;
    for (;;) {
      wait_while(phase, seen);
      seen = phase.load(std::memory_order_acquire);
      if (leaving.load(std::memory_order_relaxed)) return;
      if (take_parts(seen, index)) pending.notify_one();
    }
  }

  // Does the parts of phase `now` that nobody has begun, that of `index` first. True when these were the
  // last.
  bool take_parts(std::uint32_t now, int index) {
    const int count = static_cast<int>(seats.size());
    std::int32_t done = 0;
    for (int i = 0; i < count; ++i) {
      const int part = index + i < count ? index + i : index + i - count;
      std::uint32_t before = now - 1;
      if (!seats[static_cast<std::size_t>(part)].phase.compare_exchange_strong(before, now,
                                                                               std::memory_order_relaxed))
        continue;
      task(arg, part, count);
      ++done;
    }
    return done > 0 && pending.fetch_sub(done, std::memory_order_acq_rel) == done;
  }

  std::uint32_t begin_phase() {
    pending.store(static_cast<std::int32_t>(seats.size()), std::memory_order_relaxed);
    const std::uint32_t now = phase.fetch_add(1, std::memory_order_release) + 1;
    phase.notify_all();
    return now;
  }
};

Pool::Pool() = default;

Result<std::unique_ptr<Pool>> Pool::start(int threads) {
  std::unique_ptr<Pool> pool(new Pool);
  pool->threads_ = threads < 1 ? 1 : threads;
  pool->team_ = std::make_unique<Team>();
  // More threads than cores: whoever spins keeps somebody else from working.
  if (static_cast<unsigned>(pool->threads_) > std::thread::hardware_concurrency()) pool->team_->spins = 0;
  Team& team = *pool->team_;
  try {
    team.seats = std::vector<Team::Seat>(static_cast<std::size_t>(pool->threads_));
    team.workers.reserve(static_cast<std::size_t>(pool->threads_ - 1));
    for (int i = 1; i < pool->threads_; ++i) team.workers.emplace_back([&team, i] { team.work(i); });
  } catch (const std::system_error&) {
    return Status(Code::memory, "threads: the system refused to start another thread");
  }
  return pool;
}

std::unique_ptr<Pool> Pool::borrow(ThreadRunner runner) {
  std::unique_ptr<Pool> pool(new Pool);
  pool->threads_ = runner.threads < 1 ? 1 : runner.threads;
  pool->runner_ = runner;
  pool->team_ = std::make_unique<Team>();
  return pool;
}

Pool::~Pool() {
  if (!team_ || team_->workers.empty()) return;
  team_->leaving.store(true, std::memory_order_relaxed);
  team_->begin_phase();
  for (std::thread& worker : team_->workers) worker.join();
}

void Pool::run_task(Task task, void* arg) {
  Team& team = *team_;
  const std::lock_guard lock(team.one_caller);
  phases_.fetch_add(1, std::memory_order_relaxed);
  team.task = task;
  team.arg = arg;
  if (runner_.run) {
    struct Call {
      Task task;
      void* arg;
      int count;
    } call{task, arg, threads_};
    runner_.run(
        runner_.user, threads_,
        [](void* raw, int index) {
          const FloatScope scope;
          const Call& that = *static_cast<const Call*>(raw);
          that.task(that.arg, index, that.count);
        },
        &call);
    return;
  }
  const FloatScope scope;
  if (team.workers.empty()) return task(arg, 0, 1);
  team.take_parts(team.begin_phase(), 0);
  for (std::int32_t left; (left = team.pending.load(std::memory_order_acquire)) != 0;)
    team.wait_while(team.pending, left);
}

}  // namespace nib::inline v0
