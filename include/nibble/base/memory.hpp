// Room base: Memory and Buffer: where every large allocation of a model comes from, counted by purpose.
//
// A plan says how many bytes each purpose may take; Memory holds the model to it: an allocation past the
// ceiling is Code::budget, one that the host refuses is Code::memory, and both name what the bytes were for.
#pragma once

#include <nibble/base/status.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace nib::inline v0 {

// Host-supplied allocation, plain data as in the C ABI. Both functions may be called from any thread.
// allocate returns null when there is none; memory need not be zeroed.
struct Allocator {
  void* (*allocate)(void* user, std::size_t bytes, std::size_t alignment) = nullptr;
  void (*release)(void* user, void* pointer, std::size_t bytes) = nullptr;
  void* user = nullptr;
};

// Anonymous memory; blocks of 2 MiB and more are mapped with huge pages requested and go back to the system
// at once.
Allocator system_allocator();

// Asks the system for huge pages wherever a whole one lies in these bytes, which nobody has touched yet. A
// wish: refusal costs speed only.
void wish_huge_pages(void* data, std::size_t bytes);

enum class Purpose : std::uint8_t { weights, kv_cache, activations, staging };
inline constexpr int kPurposes = 4;
constexpr const char* purpose_name(Purpose purpose) {
  constexpr const char* names[] = {"weights", "kv cache", "activations", "staging"};
  return names[static_cast<int>(purpose)];
}

// The account of one model. Thread-safe. Outlives its buffers.
class Memory {
 public:
  explicit Memory(Allocator allocator = system_allocator()) : allocator_(allocator) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Bytes that a purpose may hold at any time. Unset means no ceiling.
  void set_ceiling(Purpose purpose, std::uint64_t bytes) { account(purpose).ceiling.store(bytes); }
  std::uint64_t in_use(Purpose purpose) const { return accounts_[static_cast<int>(purpose)].used.load(); }
  // The most that was ever in use at once.
  std::uint64_t peak(Purpose purpose) const { return accounts_[static_cast<int>(purpose)].peak.load(); }

  // What buffers come from where nothing else is said.
  const Allocator& allocator() const { return allocator_; }

  // Internal to Buffer: charge and allocate; release and credit.
  Result<void*> take(std::size_t bytes, Purpose purpose, std::string_view what, const Allocator& from);
  void give_back(void* pointer, std::size_t bytes, Purpose purpose, const Allocator& to) noexcept;

 private:
  struct Account {
    std::atomic<std::uint64_t> used{0}, peak{0}, ceiling{UINT64_MAX};
  };
  Account& account(Purpose purpose) { return accounts_[static_cast<int>(purpose)]; }

  Allocator allocator_;
  std::array<Account, kPurposes> accounts_;
};

// Owning bytes, aligned to 64, not zeroed. Movable.
class Buffer {
 public:
  Buffer() = default;
  // `what` is named when there is no room: "the weights of model.layers.3". Zero bytes give an empty buffer.
  static Result<Buffer> make(std::size_t bytes, Memory& memory, Purpose purpose, std::string_view what) {
    return make(bytes, memory, purpose, what, memory.allocator());
  }
  // On the account of `memory`, but from another source, which outlives it.
  static Result<Buffer> make(std::size_t bytes, Memory& memory, Purpose purpose, std::string_view what,
                             const Allocator& from);
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }
  void reset();

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(memory_, other.memory_);
    std::swap(purpose_, other.purpose_);
    std::swap(from_, other.from_);
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  Memory* memory_ = nullptr;
  Purpose purpose_ = Purpose::weights;
  Allocator from_;
};

}  // namespace nib::inline v0
