// Room cuda: the words that kernels are written in. Everything that C++ does not know of a CUDA thread stands
// here and nowhere else: where it is, what it shares, how lanes exchange values, and the instructions that
// the language has no name for. A kernel's body includes this and is plain C++ otherwise, so that a compiler
// without CUDA makes an emulated kernel of it (emulator/words.hpp).
//
// Every exchange between lanes is one of a whole warp: there are no masks, and blocks are whole warps.
#pragma once

#include <nibble/base/float16.hpp>

#include <cstddef>
#include <cstdint>

#if !defined(__CUDACC__)
#include "emulator/words.hpp"
#else

#define NIB_KERNEL __global__
#define NIB_DEVICE __device__ __forceinline__
// Of a kernel: its threads, and how many blocks of it one multiprocessor has to hold.
#define NIB_FITS(threads, blocks) __launch_bounds__(threads, blocks)
// Of the loop that follows: written out in full, four times, or not at all.
#define NIB_UNROLL _Pragma("unroll")
#define NIB_UNROLL_4 _Pragma("unroll 4")
#define NIB_ROLLED _Pragma("unroll 1")

namespace nib::inline v0::cuda {

// The two ways to compute products (bodies/slice.cuh), and which of them there is code of for the device that
// is compiled for: with tensor cores, where it has those of bf16; without them where it has not, and for
// tests on a device, which compare both.
#if defined(__CUDA_ARCH__)
inline constexpr bool kHasTensorCode = __CUDA_ARCH__ >= 800;
#if defined(NIBBLE_SIMT_EVERYWHERE)
inline constexpr bool kHasSimtCode = true;
#else
inline constexpr bool kHasSimtCode = __CUDA_ARCH__ < 800;
#endif
#else
inline constexpr bool kHasTensorCode = true, kHasSimtCode = true;
#endif
// What a kernel does where it has no code.
NIB_DEVICE void fail_without_code() { __trap(); }

// Sixteen bytes: the widest load of a thread.
struct alignas(16) Words4 {
  std::uint32_t at[4];
};

NIB_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
NIB_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
NIB_DEVICE int block_count() { return static_cast<int>(gridDim.x); }
NIB_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }

// The block's shared memory, from its beginning; the launch asks for sizeof(T) bytes at least.
template <class T>
NIB_DEVICE T& shared_memory() {
  extern __shared__ __align__(1024) unsigned char nib_shared[];
  return *reinterpret_cast<T*>(nib_shared);
}

// All threads of the block are here; what each wrote to memory, all of the block see.
NIB_DEVICE void sync_block() { __syncthreads(); }
// The same of a warp.
NIB_DEVICE void sync_warp() { __syncwarp(); }

// The value that another lane brings: lane `from`; this one minus, plus, or exclusive-or `lanes`. Beyond the
// warp: this lane's own.
template <class T>
NIB_DEVICE T shuffle(T value, int from) {
  return __shfl_sync(0xffff'ffffu, value, from);
}
template <class T>
NIB_DEVICE T shuffle_up(T value, int lanes) {
  return __shfl_up_sync(0xffff'ffffu, value, static_cast<unsigned>(lanes));
}
template <class T>
NIB_DEVICE T shuffle_down(T value, int lanes) {
  return __shfl_down_sync(0xffff'ffffu, value, static_cast<unsigned>(lanes));
}
template <class T>
NIB_DEVICE T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(0xffff'ffffu, value, lanes);
}

// Kernels overlap (launch_list.hpp). Every thread of every kernel calls this, once at least: the kernel
// before has ended then, and what it wrote is there; and the next one may begin, as soon as there is room for
// it. Before that, nothing may be written, and nothing read that the kernel before has written. What the one
// before that has written may be, by read_past_cache(), for it had ended when this one began; and so may
// weights.
NIB_DEVICE void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Adds to an integer in global memory and returns what was there. What this thread wrote to memory before is
// seen by whoever sees the sum, and what others wrote before they added is seen by this thread after; so is
// what reached either of them through a sync before. (A fence before an addition and one behind it would say
// more than that: each waits until everybody agrees.)
NIB_DEVICE std::int32_t add_in_order(std::int32_t* counter, std::int32_t amount) {
  std::int32_t before = 0;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(counter)), "r"(amount)
               : "memory");
  return before;
}

// A number in global memory, from the cache of all multiprocessors, not from this one's own: for what is read
// before wait_for_kernel_before(), which rids the latter of numbers that were since written elsewhere.
NIB_DEVICE std::int32_t read_past_cache(const std::int32_t* from) { return __ldcg(from); }

// Brings the line of 128 bytes in global memory that this address is in from the device's memory to its
// cache, in the background: for weights.
NIB_DEVICE void ask_for_line(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// Sixteen bytes of memory that is read once, by nobody else: the host's, which is far away.
NIB_DEVICE Words4 read_once(const Words4* from) {
  const uint4 read = __ldcs(reinterpret_cast<const uint4*>(from));
  return {{read.x, read.y, read.z, read.w}};
}

// A place in shared memory, as copies in the background take it; kept in a register.
struct SharedPlace {
  std::uint32_t address;
};
NIB_DEVICE SharedPlace place_of(const Words4* in_shared) {
  auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(in_shared));
  asm("" : "+r"(address));  // or it would be computed anew each time
  return {address};
}

NIB_DEVICE SharedPlace further(SharedPlace place, int words) { return {place.address + 16 * words}; }

// Sixteen bytes of global memory to those at `place` + 16 `words` in shared memory, in the background; both
// at multiples of sixteen. They are there after the wait, for this thread; for others after a sync, too.
// Groups end in the order in which they were closed. sm_75 copies at once.
NIB_DEVICE void begin_copy(SharedPlace place, int words, const Words4* from) {
  const std::uint32_t to = place.address + 16 * words;
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#else
  const Words4 read = *from;
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(read.at[0]), "r"(read.at[1]),
               "r"(read.at[2]), "r"(read.at[3])
               : "memory");
#endif
}
NIB_DEVICE void close_copy_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most so many closed groups are still under way.
template <int groups_that_may_remain>
NIB_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_that_may_remain) : "memory");
#endif
}

// x & mask | with. In one instruction, which has room for one constant, and keeps the other in a register;
// the compiler would take two.
NIB_DEVICE std::uint32_t masked_with(std::uint32_t x, std::uint32_t mask, std::uint32_t with) {
  std::uint32_t out = 0;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(x), "r"(mask), "r"(with));
  return out;
}

// Byte i of a word, 0 the lowest.
NIB_DEVICE std::uint32_t byte_of(std::uint32_t word, int i) { return __byte_perm(word, 0, 0x4440u | i); }

// a b + c, rounded once.
NIB_DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// e^x, within two units of the last place.
NIB_DEVICE float exponential(float x) { return expf(x); }
// The complement of the error function, within four.
NIB_DEVICE float error_complement(float x) { return erfcf(x); }

// The nearest bf16, ties to even.
NIB_DEVICE std::uint16_t round_to_bf16(float x) { return to_bf16(x).bits; }

// Two products of bf16, rounded to nearest even; subnormal factors and products are kept.
NIB_DEVICE std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
#if __CUDA_ARCH__ >= 900
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
#elif __CUDA_ARCH__ >= 800
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x8000'8000u));  // plus -0
#else
  __trap();  // no bf16 here
#endif
  return product;
}

// Two differences of bf16 that bf16 holds.
NIB_DEVICE std::uint32_t subtract_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t difference = 0;
#if __CUDA_ARCH__ >= 800
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(difference) : "r"(b), "r"(0xbf80'bf80u), "r"(a));  // b times -1
#else
  __trap();                                                                                  // no bf16 here
#endif
  return difference;
}

// The lower (half 0) or upper f16 of a pair.
NIB_DEVICE float f16_of(std::uint32_t pair, int half) {
  float value = 0;
  if (half == 0)
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(value) : "r"(pair));
  else
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(value) : "r"(pair));
  return value;
}

// d[16][8] += a[16][16] b[16][8] of bf16, in f32, by the tensor core. With group = lane / 4, in_group = lane
// % 4, each pair lower index first:
//   a[0], a[1]  rows group, group + 8, columns 2 in_group, + 1       a[2], a[3]  the same, columns + 8
//   b[0], b[1]  column group, rows 2 in_group, + 1; the same, + 8
//   d[0], d[1]  row group, columns 2 in_group, + 1                   d[2], d[3]  row group + 8
// (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".)
NIB_DEVICE void multiply_tile(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// Four matrices of 8 x 8 words of two bytes from shared memory: lane 8 i + r brings the address of row r of
// matrix i, a multiple of sixteen; it gets of each matrix the words 2 (lane % 4), + 1 of row lane / 4.
NIB_DEVICE void load_matrices(std::uint32_t (&out)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

}  // namespace nib::inline v0::cuda

#endif
