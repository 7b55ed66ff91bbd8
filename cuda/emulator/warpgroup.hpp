// Emulator: the words of arch_sm90a.cuh as ordinary functions. Their meaning is documented there. Products
// take place at once, but their sums are NaN until they are waited for; by then no factor may have changed,
// in registers or in shared memory. All four warps of a warpgroup have to multiply by the same, in the same
// order, but not at the same time.
#pragma once

#include "../swizzled_columns.hpp"
#include "words.hpp"

#include <cstddef>
#include <cstdint>

namespace nib::inline v0::cuda {

inline void prefetch_line(const void*) {}

inline std::uint64_t panel_at(SharedPlace place) {
  return describe_panel(static_cast<std::uint32_t>(reinterpret_cast<const std::byte*>(place.words) -
                                                   simt::Emulator::current().shared()));
}

inline void show_to_products() { simt::Emulator::current().show_to_products(); }

void begin_products(simt::Place where = simt::Place::here());
void close_products(simt::Place where = simt::Place::here());
// d: [columns / 8][4].
void multiply_warpgroup(float* d, int columns, const std::uint32_t (&a)[4], std::uint64_t b,
                        simt::Place where);
void wait_for_products(int groups_that_may_remain, simt::Place where);

template <int kWide>
void multiply_warpgroup(float (&d)[kWide][4], const std::uint32_t (&a)[4], std::uint64_t b,
                        simt::Place where = simt::Place::here()) {
  static_assert(kWide == 8 || kWide == 16);
  multiply_warpgroup(d[0], kWide * 8, a, b, where);
}
template <int groups_that_may_remain>
void wait_for_products(simt::Place where = simt::Place::here()) {
  wait_for_products(groups_that_may_remain, where);
}
template <int kWide>
void finish_products(float (&)[kWide][4], simt::Place where = simt::Place::here()) {
  wait_for_products(0, where);
}

}  // namespace nib::inline v0::cuda
