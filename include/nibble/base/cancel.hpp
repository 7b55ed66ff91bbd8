// Room base: Cancel and Progress: how a host stops long work, and how it hears of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace nib::inline v0 {

// A sticky flag that anyone may hold: trigger from any thread or signal handler; work under it ends with
// Code::stopped within one layer of a forward pass or one tensor of a load.
class Cancel {
 public:
  void trigger() noexcept { flag_.store(true, std::memory_order_relaxed); }
  void reset() noexcept { flag_.store(false, std::memory_order_relaxed); }
  bool triggered() const noexcept { return flag_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> flag_{false};
};

enum class Stage : std::uint8_t { read, pack, prefill, quantize };

// done and total count bytes while loading and quantizing, and rows (tokens) in a prefill. `name` is the tensor at hand,
// borrowed for the call.
struct Progress {
  Stage stage;
  std::uint64_t done, total;
  std::string_view name;
};

// Called on the thread that called the library, never concurrently. Returning non-zero asks to stop.
struct ProgressSink {
  int (*call)(void* user, const Progress&) = nullptr;
  void* user = nullptr;
  bool operator()(const Progress& progress) const { return call && call(user, progress) != 0; }
};

}  // namespace nib::inline v0
