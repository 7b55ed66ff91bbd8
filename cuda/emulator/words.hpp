// Emulator: the words of arch.cuh as ordinary functions. Their meaning is documented there.
#pragma once

#include "simt.hpp"
#include <nibble/base/float16.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#define NIB_KERNEL
#define NIB_DEVICE inline
#define NIB_FITS(threads, blocks)
#define NIB_UNROLL
#define NIB_UNROLL_4
#define NIB_ROLLED

namespace nib::inline v0::cuda {

inline constexpr bool kHasTensorCode = true, kHasSimtCode = true;
inline void fail_without_code() {}

struct alignas(16) Words4 {
  std::uint32_t at[4];
};

inline int thread_index() { return simt::Emulator::current().thread_index(); }
inline int block_index() { return simt::Emulator::current().block_index(); }
inline int block_count() { return simt::Emulator::current().shape().blocks; }
inline int block_threads() { return simt::Emulator::current().shape().threads; }

template <class T>
T& shared_memory(simt::Place where = simt::Place::here()) {
  simt::Emulator& emulator = simt::Emulator::current();
  if (!emulator.is_shared(emulator.shared(), sizeof(T)))
    emulator.fail("uses more shared memory than its launch asked for", where);
  return *reinterpret_cast<T*>(emulator.shared());
}

inline void wait_for_kernel_before() { simt::Emulator::current().wait_for_kernel_before(); }

inline void sync_block(simt::Place where = simt::Place::here()) {
  simt::Emulator::current().wait_for_block(where);
}
inline void sync_warp(simt::Place where = simt::Place::here()) {
  simt::Emulator::current().exchange(
      "a barrier of the warp", [](const void* const*, void* const*) {}, nullptr, nullptr, where);
}

// Shuffles: what each lane gets is source(lane, its second argument).
template <class T, class Source>
T exchange_lanes(const char* name, T value, int argument, Source, simt::Place where) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  struct Brought {
    T value;
    int argument;
  };
  const Brought brought{value, argument};
  T got{};
  simt::Emulator::current().exchange(
      name,
      [](const void* const* in, void* const* out) {
        for (int lane = 0; lane < simt::kWarpLanes; ++lane) {
          const int from = Source()(lane, static_cast<const Brought*>(in[lane])->argument);
          const bool inside = from >= 0 && from < simt::kWarpLanes;
          *static_cast<T*>(out[lane]) = static_cast<const Brought*>(in[inside ? from : lane])->value;
        }
      },
      &brought, &got, where);
  return got;
}
template <class T>
T shuffle(T value, int from, simt::Place where = simt::Place::here()) {
  const auto source = [](int, int lane) { return lane & (simt::kWarpLanes - 1); };
  return exchange_lanes("a shuffle", value, from, source, where);
}
template <class T>
T shuffle_up(T value, int lanes, simt::Place where = simt::Place::here()) {
  return exchange_lanes(
      "a shuffle up", value, lanes, [](int lane, int by) { return lane - by; }, where);
}
template <class T>
T shuffle_down(T value, int lanes, simt::Place where = simt::Place::here()) {
  return exchange_lanes(
      "a shuffle down", value, lanes, [](int lane, int by) { return lane + by; }, where);
}
template <class T>
T shuffle_xor(T value, int lanes, simt::Place where = simt::Place::here()) {
  return exchange_lanes(
      "a shuffle by exclusive or", value, lanes, [](int lane, int by) { return lane ^ by; }, where);
}

inline std::int32_t add_in_order(std::int32_t* counter, std::int32_t amount) {
  const std::int32_t before = *counter;
  *counter += amount;
  return before;
}

inline std::int32_t read_past_cache(const std::int32_t* from) { return *from; }
inline void ask_for_line(const void*) {}
inline Words4 read_once(const Words4* from) { return *from; }

struct SharedPlace {
  Words4* words;
};
inline SharedPlace place_of(Words4* in_shared) { return {in_shared}; }
inline SharedPlace further(SharedPlace place, int words) { return {place.words + words}; }
inline void begin_copy(SharedPlace place, int words, const Words4* from,
                       simt::Place where = simt::Place::here()) {
  simt::Emulator::current().begin_copy(place.words + words, from, sizeof(Words4), where);
}
inline void close_copy_group() { simt::Emulator::current().close_copy_group(); }
template <int groups_that_may_remain>
void wait_for_copies() {
  simt::Emulator::current().wait_for_copies(groups_that_may_remain);
}

inline std::uint32_t masked_with(std::uint32_t x, std::uint32_t mask, std::uint32_t with) {
  return (x & mask) | with;
}
inline std::uint32_t byte_of(std::uint32_t word, int i) { return word >> 8 * i & 0xff; }

inline float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }

inline float exponential(float x) { return std::exp(x); }
inline float error_complement(float x) { return std::erfc(x); }

inline std::uint16_t round_to_bf16(float x) { return to_bf16(x).bits; }

std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b);
std::uint32_t subtract_bf16x2(std::uint32_t a, std::uint32_t b);

inline float f16_of(std::uint32_t pair, int half) {
  return to_float(f16{static_cast<std::uint16_t>(pair >> 16 * half)});
}

void multiply_tile(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                   simt::Place where = simt::Place::here());

void load_matrices(std::uint32_t (&out)[4], const void* row, simt::Place where = simt::Place::here());

}  // namespace nib::inline v0::cuda
