// Room cuda: the words of sm_90a that no other device has: products of a warpgroup, four warps that follow
// each other, whose number begins at a multiple of four. They go on in the background, and read their second
// factor from shared memory. Everything that arch.cuh says of itself holds here.
#pragma once

#include "arch.cuh"
#include "swizzled_columns.hpp"

#if !defined(__CUDACC__)
#include "emulator/warpgroup.hpp"
#else

namespace nib::inline v0::cuda {

// The line of 128 bytes there will be read soon.
NIB_DEVICE void prefetch_line(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

// What describes the panel of columns at `place`, a multiple of 1024.
NIB_DEVICE std::uint64_t panel_at(SharedPlace place) { return describe_panel(place.address); }

// What this thread has written to shared memory, products find there: before the sync behind which they
// begin.
NIB_DEVICE void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first of a group of products: what registers hold now, they will see.
NIB_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// d[64][N] += a[64][16] b[N][16] of bf16, in f32, by the warpgroup: a warp has sixteen rows, of which its
// lanes hold a and d[i], that of columns 8 i .. + 7, as multiply_tile has them. b: of_product(panel_at()).
// Until wait_for_products() says that it has ended, nobody touches a, d, or the panel; products of one d
// follow each other. (PTX ISA, "Asynchronous wgmma Instructions", "Register Fragments for
// wgmma.mma_async.m64nNk16".)
#define NIB_EIGHT(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
NIB_DEVICE void multiply_warpgroup(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
      : NIB_EIGHT(d[0]), NIB_EIGHT(d[1]), NIB_EIGHT(d[2]), NIB_EIGHT(d[3]), NIB_EIGHT(d[4]), NIB_EIGHT(d[5]),
        NIB_EIGHT(d[6]), NIB_EIGHT(d[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
NIB_DEVICE void multiply_warpgroup(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
      : NIB_EIGHT(d[0]), NIB_EIGHT(d[1]), NIB_EIGHT(d[2]), NIB_EIGHT(d[3]), NIB_EIGHT(d[4]), NIB_EIGHT(d[5]),
        NIB_EIGHT(d[6]), NIB_EIGHT(d[7]), NIB_EIGHT(d[8]), NIB_EIGHT(d[9]), NIB_EIGHT(d[10]),
        NIB_EIGHT(d[11]), NIB_EIGHT(d[12]), NIB_EIGHT(d[13]), NIB_EIGHT(d[14]), NIB_EIGHT(d[15])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef NIB_EIGHT

// Ends a group of products.
NIB_DEVICE void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most so many closed groups are still under way.
template <int groups_that_may_remain>
NIB_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups_that_may_remain) : "memory");
}
// Waits for all, after which d may be read.
template <int kWide>
NIB_DEVICE void finish_products(float (&d)[kWide][4]) {
  wait_for_products<0>();
  NIB_UNROLL
  for (int i = 0; i < kWide; ++i)
    asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

}  // namespace nib::inline v0::cuda

#endif
