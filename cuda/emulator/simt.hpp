// Emulator: the threads, warps and blocks of one kernel launch, on one thread of the system. One fiber is one
// CUDA thread; blocks run one after another, in an order drawn from the seed, as are the turns of threads
// between two points where they wait for each other. In every second block one warp, drawn too, gets its
// turns only while nobody else can go on: what others may overtake, they do. Shared memory begins as NaN.
//
// What real hardware answers with a hang, or not at all, ends the launch with a sentence here: a barrier or
// an exchange between lanes that some threads never reach or reach at different places, shared memory beyond
// what the launch asked for, copies and products that nobody waits for, a kernel that may overlap
// the one before it and never waits for it. Not emulated: time, memory ordering, blocks side
// by side.
#pragma once

#include "fiber.hpp"
#include "warp_products.hpp"
#include <nibble/base/status.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nib::inline v0::simt {

// What a launch asks for. Threads: a multiple of 32, at most 1024, so that every warp is whole. overlaps: on
// a device it may begin before the kernel before it has ended, and each of its threads has to wait for that.
struct Shape {
  int blocks, threads;
  std::size_t shared_bytes = 0;
  bool overlaps = false;
};

// One launch after another; they share nothing but the seed's sequence. One thread at a time.
class Emulator {
 public:
  explicit Emulator(std::uint64_t seed);
  ~Emulator();

  // Runs kernel(arguments...) for every thread of every block. Errors: argument (a shape that no device
  // takes), device (the kernel broke a rule; the message says where).
  template <class Kernel, class... Arguments>
  Status run(const Shape& shape, Kernel kernel, const Arguments&... arguments) {
    auto body = [&] { kernel(arguments...); };
    return run_body(
        shape, [](void* call) { (*static_cast<decltype(body)*>(call))(); }, &body);
  }

  // How many it ran, or tried to.
  std::int64_t launches() const { return launches_; }

  // After so many more, one launch does nothing, and is answered with Code::device.
  void refuse_after(std::int64_t launches) { refused_ = launches_ + launches; }

  // The rest is for the words of arch.cuh, called by the thread whose turn it is.
  static Emulator& current();
  int thread_index() const { return running_->index; }
  int block_index() const { return block_; }
  const Shape& shape() const { return shape_; }
  std::byte* shared() const { return shared_; }
  // True if all of [address, address + bytes) is shared memory of this launch.
  bool is_shared(const void* address, std::size_t bytes) const;

  void wait_for_kernel_before() { running_->has_waited = true; }
  void wait_for_block(Place where);

  // All lanes of a warp bring `in` and get `out`; the last to arrive calls execute(in of all, out of all) for
  // them.
  using Exchange = void (*)(const void* const* in, void* const* out);
  void exchange(const char* name, Exchange execute, const void* in, void* out, Place where);

  // A copy to shared memory that takes place when its thread waits for it. Until then its target is NaN.
  void begin_copy(void* to, const void* from, std::size_t bytes, Place where);
  void close_copy_group();
  void wait_for_copies(int groups_that_may_remain);

  // Products of warpgroups (warpgroup.hpp). Whether every thread, before the barrier of the block that came
  // last, has shown them what it wrote.
  void show_to_products() { running_->has_shown = true; }
  bool was_shown() const { return was_shown_; }
  // Of this thread's warp.
  WarpProducts& products() { return warps_[static_cast<std::size_t>(running_->index / kWarpLanes)].products; }
  // What product `number` of this thread's warpgroup is: `name`, if no warp came there before.
  const ProductName& name_product(std::int64_t number, const ProductName& name);

  // Ends the launch: "thread 3 <what it did> (here) <meanwhile> (there)". What is on its stack is left there,
  // so these are not strings.
  struct Other {
    const char* meanwhile;
    Place where;
  };
  [[noreturn]] void fail(const char* what, Place where, Other other = {nullptr, {}});

 private:
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    std::int64_t group;
    Place where;
  };
  struct Thread {
    Fiber fiber;
    Emulator* emulator = nullptr;
    int index = 0;
    bool done = false, has_waited = false, has_shown = false;
    const char* waits_for = nullptr;  // null: it is ready, or done
    Place where;
    std::vector<Copy> copies;
    std::int64_t copy_group = 0;
  };
  struct Warp {
    int arrived = 0;
    Exchange execute = nullptr;
    Place where;
    const void* in[kWarpLanes];
    void* out[kWarpLanes];
    WarpProducts products;
  };

  Status run_body(const Shape& shape, void (*call)(void*), void* body);
  void run_block();
  void finish_thread();
  void pause(const char* waits_for, Place where);
  void release(int thread);
  void make_ready(int thread);
  std::string what_failed() const;
  std::string who_waits() const;
  std::uint64_t draw(std::uint64_t below);

  std::uint64_t random_;
  std::int64_t launches_ = 0, refused_ = -1;  // refused_: the number of one
  Shape shape_{};
  int block_ = 0;
  void (*call_)(void*) = nullptr;
  void* body_ = nullptr;
  Fiber scheduler_;
  std::vector<std::unique_ptr<Thread>> threads_;  // as many as the largest launch had
  std::vector<Warp> warps_;
  std::vector<std::vector<ProductName>> product_names_;  // of each warpgroup
  bool was_shown_ = false;
  std::vector<int> ready_;
  std::vector<int> last_;  // those ready of the warp that comes last
  int last_warp_ = -1;     // or none
  std::vector<int> at_barrier_;
  Place barrier_where_;
  int done_ = 0;
  Thread* running_ = nullptr;
  std::unique_ptr<std::byte[]> shared_store_;
  std::byte* shared_ = nullptr;  // in it, aligned
  struct Broken {
    const char* what;
    Place where;
    Other other;
  };
  std::optional<Broken> broken_;
  std::string failure_;  // what run answers; empty: nothing failed
};

}  // namespace nib::inline v0::simt
