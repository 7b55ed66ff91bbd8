#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/memory.hpp>

#include <cstdlib>

#include <sys/mman.h>

namespace nib::inline v0 {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Mapped blocks are aligned to a huge page by mapping one page more and trimming both ends.
void* map_huge(std::size_t bytes) {
  if (bytes > SIZE_MAX - 2 * kHugePage) return nullptr;
  const std::size_t length = round_up(bytes, kHugePage);
  const std::size_t padded = length + kHugePage;
  void* raw = mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(raw);
  const std::uintptr_t aligned = round_up(address, std::uintptr_t{kHugePage});
  if (aligned > address) munmap(raw, aligned - address);
  const std::uintptr_t end = address + padded;
  if (end > aligned + length) munmap(reinterpret_cast<void*>(aligned + length), end - aligned - length);
  void* block = reinterpret_cast<void*>(aligned);
  wish_huge_pages(block, length);
  return block;
}

void* system_allocate(void*, std::size_t bytes, std::size_t alignment) {
  if (bytes >= kHugePage) return map_huge(bytes);
  return std::aligned_alloc(alignment, round_up(bytes, alignment));
}

void system_release(void*, void* pointer, std::size_t bytes) {
  if (bytes >= kHugePage)
    munmap(pointer, round_up(bytes, kHugePage));
  else
    std::free(pointer);
}

}  // namespace

void wish_huge_pages(void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = round_up(begin, std::uintptr_t{kHugePage}),
                       end = (begin + bytes) / kHugePage * kHugePage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}

Allocator system_allocator() { return {system_allocate, system_release, nullptr}; }

Result<void*> Memory::take(std::size_t bytes, Purpose purpose, std::string_view what, const Allocator& from) {
  Account& of = account(purpose);
  // Charged only if it fits, in one step: what is refused never stands in the way of what another thread may
  // have.
  std::uint64_t before = of.used.load();
  do {
    const std::uint64_t ceiling = of.ceiling.load();
    if (before > ceiling || bytes > ceiling - before)
      return Status(Code::budget,
                    concat(what, ": needs ", bytes, " bytes, but the plan allows ", ceiling, " bytes for ",
                           purpose_name(purpose), " and ", before, " are in use"));
  } while (!of.used.compare_exchange_weak(before, before + bytes));
  void* pointer = from.allocate(from.user, bytes, 64);
  if (!pointer) {
    of.used.fetch_sub(bytes);
    return Status(Code::memory, concat(what, ": cannot allocate ", bytes, " bytes"));
  }
  const std::uint64_t used = before + bytes;
  for (std::uint64_t peak = of.peak.load(); peak < used && !of.peak.compare_exchange_weak(peak, used);) {
  }
  return pointer;
}

void Memory::give_back(void* pointer, std::size_t bytes, Purpose purpose, const Allocator& to) noexcept {
  to.release(to.user, pointer, bytes);
  account(purpose).used.fetch_sub(bytes);
}

Result<Buffer> Buffer::make(std::size_t bytes, Memory& memory, Purpose purpose, std::string_view what,
                            const Allocator& from) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  NIB_ASSIGN(void* pointer, memory.take(bytes, purpose, what, from));
  buffer.data_ = static_cast<std::byte*>(pointer);
  buffer.size_ = bytes;
  buffer.memory_ = &memory;
  buffer.purpose_ = purpose;
  buffer.from_ = from;
  return buffer;
}

void Buffer::reset() {
  if (data_) memory_->give_back(data_, size_, purpose_, from_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace nib::inline v0
