#include "simt.hpp"

#include <nibble/base/concat.hpp>

#include <algorithm>
#include <cfenv>
#include <cstring>
#include <numeric>
#include <string_view>
#include <utility>

namespace nib::inline v0::simt {
namespace {

thread_local Emulator* current_emulator = nullptr;

constexpr std::size_t kSharedAlignment = 1024;
// Before and behind shared memory: what a launch did not ask for.
constexpr std::size_t kMarginBytes = 1024;
constexpr std::byte kMargin{0xc5};
constexpr std::byte kPoison{0xff};  // NaN in every float format
// What a block may ask for on the newest devices.
constexpr std::size_t kMostShared = 227 << 10;
constexpr int kMostThreads = 1024;
constexpr int kWarpgroupWarps = 4;

std::string place(Place where) {
  std::string_view file = where.file;
  file.remove_prefix(file.rfind('/') + 1);  // npos + 1 is 0
  return concat(file, ":", where.line);
}

bool same_place(const Place& a, const Place& b) {
  return a.line == b.line && std::string_view(a.file) == b.file;
}

}  // namespace

Emulator::Emulator(std::uint64_t seed) : random_(seed) {}
Emulator::~Emulator() = default;

Emulator& Emulator::current() { return *current_emulator; }

// splitmix64.
std::uint64_t Emulator::draw(std::uint64_t below) {
  std::uint64_t bits = random_ += 0x9e37'79b9'7f4a'7c15u;
  bits = (bits ^ (bits >> 30)) * 0xbf58'476d'1ce4'e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d0'49bb'1331'11ebu;
  return (bits ^ (bits >> 31)) % below;
}

Status Emulator::run_body(const Shape& shape, void (*call)(void*), void* body) {
  if (shape.blocks < 1)
    return Status(Code::argument, concat("blocks: expected 1 or more, found ", shape.blocks));
  if (shape.threads < kWarpLanes || shape.threads > kMostThreads || shape.threads % kWarpLanes)
    return Status(Code::argument, concat("threads of a block: expected a multiple of ", kWarpLanes, " up to ",
                                         kMostThreads, ", found ", shape.threads));
  if (shape.shared_bytes > kMostShared)
    return Status(Code::argument, concat("shared memory: expected at most ", kMostShared, " bytes, found ",
                                         shape.shared_bytes));
  if (launches_++ == refused_) return Status(Code::device, "launching a kernel: refused");
  shape_ = shape;
  call_ = call;
  body_ = body;
  failure_.clear();
  const auto threads = static_cast<std::size_t>(shape.threads);
  while (threads_.size() < threads) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->emulator = this;
    threads_.back()->index = static_cast<int>(threads_.size()) - 1;
  }
  const std::size_t store = shape.shared_bytes + 2 * kMarginBytes + kSharedAlignment;
  shared_store_ = std::make_unique_for_overwrite<std::byte[]>(store);
  const auto begin = reinterpret_cast<std::uintptr_t>(shared_store_.get()) + kMarginBytes;
  shared_ = shared_store_.get() + kMarginBytes + (-begin & (kSharedAlignment - 1));

  std::vector<int> order(static_cast<std::size_t>(shape.blocks));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draw(i)]);
  Emulator* const outer = std::exchange(current_emulator, this);
  std::fenv_t callers;  // may flush subnormals, which a device keeps
  std::fegetenv(&callers);
  std::fesetenv(FE_DFL_ENV);
  for (const int block : order) {
    block_ = block;
    run_block();
    if (!failure_.empty()) break;
  }
  std::fesetenv(&callers);
  current_emulator = outer;
  return failure_.empty() ? Status() : Status(Code::device, failure_);
}

void Emulator::run_block() {
  std::fill_n(shared_ - kMarginBytes, shape_.shared_bytes + 2 * kMarginBytes, kMargin);
  std::fill_n(shared_, shape_.shared_bytes, kPoison);
  warps_.assign(static_cast<std::size_t>(shape_.threads / kWarpLanes), Warp{});
  product_names_.assign((warps_.size() + kWarpgroupWarps - 1) / kWarpgroupWarps, {});
  was_shown_ = false;
  ready_.clear();
  last_.clear();
  last_warp_ = draw(2) ? static_cast<int>(draw(static_cast<std::uint64_t>(shape_.threads / kWarpLanes))) : -1;
  at_barrier_.clear();
  done_ = 0;
  broken_.reset();
  for (int i = 0; i < shape_.threads; ++i) {
    Thread& thread = *threads_[static_cast<std::size_t>(i)];
    thread.done = thread.has_waited = thread.has_shown = false;
    thread.waits_for = nullptr;
    thread.copies.clear();
    thread.copy_group = 0;
    thread.fiber.prepare(
        [](void* argument) {
          Emulator& emulator = *static_cast<Thread*>(argument)->emulator;
          emulator.call_(emulator.body_);
          emulator.finish_thread();
        },
        &thread);
    make_ready(i);
  }
  while (!broken_) {
    std::vector<int>& from = ready_.empty() ? last_ : ready_;
    if (from.empty()) break;
    std::swap(from[draw(from.size())], from.back());
    running_ = threads_[static_cast<std::size_t>(from.back())].get();
    from.pop_back();
    scheduler_.switch_to(running_->fiber);
  }
  failure_ = what_failed();
}

std::string Emulator::what_failed() const {
  if (broken_) {
    const auto& [what, where, other] = *broken_;
    return concat(
        "block ", block_, ": thread ", running_->index, " ", what, " (", place(where), ")",
        other.meanwhile ? concat(" ", other.meanwhile, " (", place(other.where), ")") : std::string());
  }
  if (done_ < shape_.threads) return who_waits();
  const auto marked = [](std::byte byte) { return byte == kMargin; };
  for (std::size_t i = 0; i < warps_.size(); ++i)
    if (warps_[i].products.count != static_cast<std::int64_t>(product_names_[i / kWarpgroupWarps].size()))
      return concat("block ", block_, ": warp ", i, " left out products that others of its warpgroup did");
  const std::byte* const end = shared_ + shape_.shared_bytes;
  if (!std::all_of(shared_ - kMarginBytes, shared_, marked) || !std::all_of(end, end + kMarginBytes, marked))
    return concat("block ", block_, " wrote beside the ", shape_.shared_bytes,
                  " bytes of shared memory that its launch asked for");
  for (int i = 0; i < shape_.threads; ++i)
    if (!threads_[static_cast<std::size_t>(i)]->fiber.stack_is_whole())
      return concat("block ", block_, ": thread ", i, " overran its stack");
  return {};
}

// A sentence of the first thread that waits, and of how many it waits for.
std::string Emulator::who_waits() const {
  for (int i = 0; i < shape_.threads; ++i) {
    const Thread& waiting = *threads_[static_cast<std::size_t>(i)];
    if (!waiting.waits_for) continue;
    const bool whole_block = std::find(at_barrier_.begin(), at_barrier_.end(), i) != at_barrier_.end();
    const int arrived = whole_block ? static_cast<int>(at_barrier_.size())
                                    : warps_[static_cast<std::size_t>(i / kWarpLanes)].arrived;
    return concat("block ", block_, ": thread ", i, " waits at ", waiting.waits_for, " (",
                  place(waiting.where), ") which ", (whole_block ? shape_.threads : kWarpLanes) - arrived,
                  " of ", whole_block ? shape_.threads : kWarpLanes, " threads never reach");
  }
  return concat("block ", block_, ": a thread vanished");
}

void Emulator::finish_thread() {
  if (!running_->copies.empty())
    fail("ended before it waited for a copy to shared memory", running_->copies.back().where);
  if (!products().factors.empty())
    fail("ended before it waited for a product", products().factors.back().of.where);
  if (shape_.overlaps && !running_->has_waited)
    fail("ended and never waited for the kernel before it", running_->where);
  running_->done = true;
  ++done_;
  running_->fiber.end_in(scheduler_);
}

void Emulator::fail(const char* what, Place where, Other other) {
  broken_ = {what, where, other};
  running_->fiber.end_in(scheduler_);
}

void Emulator::pause(const char* waits_for, Place where) {
  running_->waits_for = waits_for;
  running_->where = where;
  running_->fiber.switch_to(scheduler_);
}

void Emulator::release(int thread) {
  threads_[static_cast<std::size_t>(thread)]->waits_for = nullptr;
  make_ready(thread);
}

void Emulator::make_ready(int thread) {
  (thread / kWarpLanes == last_warp_ ? last_ : ready_).push_back(thread);
}

void Emulator::wait_for_block(Place where) {
  if (!at_barrier_.empty() && !same_place(where, barrier_where_))
    fail("reached a barrier of the block", where, {"while others wait at another one", barrier_where_});
  barrier_where_ = where;
  at_barrier_.push_back(running_->index);
  if (static_cast<int>(at_barrier_.size()) == shape_.threads) {
    was_shown_ = std::all_of(at_barrier_.begin(), at_barrier_.end(), [&](int thread) {
      return std::exchange(threads_[static_cast<std::size_t>(thread)]->has_shown, false);
    });
    for (const int thread : at_barrier_) release(thread);  // this one too: its turn ends here
    at_barrier_.clear();
    running_->fiber.switch_to(scheduler_);
  } else {
    pause("a barrier of the block", where);
  }
}

void Emulator::exchange(const char* name, Exchange execute, const void* in, void* out, Place where) {
  const int warp_index = running_->index / kWarpLanes, lane = running_->index % kWarpLanes;
  Warp& warp = warps_[static_cast<std::size_t>(warp_index)];
  if (warp.arrived && (warp.execute != execute || !same_place(warp.where, where)))
    fail("reached an exchange with its warp", where, {"while others wait at another one", warp.where});
  warp.execute = execute;
  warp.where = where;
  warp.in[lane] = in;
  warp.out[lane] = out;
  if (++warp.arrived < kWarpLanes) return pause(name, where);
  execute(warp.in, warp.out);
  warp.arrived = 0;
  for (int i = 0; i < kWarpLanes; ++i) release(warp_index * kWarpLanes + i);
  running_->fiber.switch_to(scheduler_);
}

const ProductName& Emulator::name_product(std::int64_t number, const ProductName& name) {
  std::vector<ProductName>& names =
      product_names_[static_cast<std::size_t>(running_->index / kWarpLanes / kWarpgroupWarps)];
  if (number == static_cast<std::int64_t>(names.size())) names.push_back(name);
  return names[static_cast<std::size_t>(number)];
}

bool Emulator::is_shared(const void* address, std::size_t bytes) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address),
             begin = reinterpret_cast<std::uintptr_t>(shared_);
  return at >= begin && bytes <= shape_.shared_bytes && at - begin <= shape_.shared_bytes - bytes;
}

void Emulator::begin_copy(void* to, const void* from, std::size_t bytes, Place where) {
  if (!is_shared(to, bytes)) fail("copies to where the launch has no shared memory", where);
  if (reinterpret_cast<std::uintptr_t>(to) % bytes || reinterpret_cast<std::uintptr_t>(from) % bytes)
    fail("copies between addresses that are no multiples of the bytes copied", where);
  std::memset(to, static_cast<int>(kPoison), bytes);
  running_->copies.push_back({to, from, bytes, running_->copy_group, where});
}

void Emulator::close_copy_group() { ++running_->copy_group; }

void Emulator::wait_for_copies(int groups_that_may_remain) {
  auto& copies = running_->copies;
  const std::int64_t first_open = running_->copy_group - groups_that_may_remain;
  const auto landing = [&](const Copy& copy) { return copy.group < first_open; };
  for (const Copy& copy : copies)
    if (landing(copy)) std::memcpy(copy.to, copy.from, copy.bytes);
  std::erase_if(copies, landing);
}

}  // namespace nib::inline v0::simt
