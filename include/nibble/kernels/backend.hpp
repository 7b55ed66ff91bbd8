// Room kernels: THE MACHINE DOOR. A Backend is plain data: a name, what it needs of the machine, its ops and
// its kernels. It is chosen once, when a model is opened; after that nothing asks what CPU this is.
#pragma once

#include <nibble/base/machine.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/kernels/canonical.hpp>
#include <nibble/kernels/numerics.hpp>
#include <nibble/kernels/ops.hpp>
#include <nibble/kernels/packed.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

namespace nib::inline v0 {

// How a kernel wants its activations; both in canonical order, in RowBlocks of at most `block_rows` rows
// [steps][rows of block].
enum class ActivationLayout : std::uint8_t {
  floats,  // one f32 a step, 8 steps an octet (rounded to bf16 first under bf16 numerics)
  pairs,   // one dword of two bf16 a step, 4 steps an octet: (k, k + 4)
  // For each group of 32 inputs (zeros past the last), q and scale as GroupInt8 has them: one dword of four
  // bytes q + 128 a step, 2 steps an octet: of even k, of odd k, lowest first; then the scale; then its
  // scaled_sum.
  bytes,
  // For each group of 32 inputs (zeros past the last), rounded to bf16: as floats or as pairs, then their sum
  // (sum_of_group).
  group_floats,
  group_pairs,
};
// Of a row and a group of 32; 0: it has no groups.
constexpr int group_dwords(ActivationLayout layout) {
  if (layout == ActivationLayout::bytes) return 8 + 2;
  if (layout == ActivationLayout::group_floats) return 32 + 1;
  return layout == ActivationLayout::group_pairs ? 16 + 1 : 0;
}
// Bytes that one row of k_padded inputs takes.
constexpr std::size_t activation_bytes(ActivationLayout layout, std::int64_t k_padded) {
  if (const int dwords = group_dwords(layout))
    return static_cast<std::size_t>(ceil_div(k_padded, kInt8Group) * dwords) * 4;
  return static_cast<std::size_t>(k_padded) * (layout == ActivationLayout::floats ? 4 : 2);
}

// The same in whatever layout takes most.
constexpr std::size_t most_activation_bytes(std::int64_t k_padded) {
  return activation_bytes(ActivationLayout::group_floats, k_padded);
}

// Rows of activations in blocks of at most `most`, as even as can be, the longer ones first: the few sums of
// a narrow block would wait for each other.
class RowBlocks {
 public:
  [[gnu::always_inline]] constexpr RowBlocks(std::int64_t rows, int most)
      : count_(static_cast<int>(ceil_div(rows, std::int64_t{most}))),
        shorter_(static_cast<int>(rows / std::max(count_, 1))),
        longer_(static_cast<int>(rows % std::max(count_, 1))) {}
  [[gnu::always_inline]] constexpr int count() const { return count_; }
  [[gnu::always_inline]] constexpr Range operator[](int block) const {
    return {begin(block), begin(block + 1)};
  }
  [[gnu::always_inline]] constexpr Range holding(std::int64_t row) const {
    const std::int64_t of_longer = std::int64_t{longer_} * (shorter_ + 1);
    return (*this)[static_cast<int>(row < of_longer ? row / (shorter_ + 1)
                                                    : longer_ + (row - of_longer) / shorter_)];
  }

 private:
  [[gnu::always_inline]] constexpr std::int64_t begin(int block) const {
    return std::int64_t{block} * shorter_ + std::min(block, longer_);
  }
  int count_, shorter_, longer_;
};

// out[row][16 * (strip - strip_begin) + lane] = sum over k of W[16 * strip + lane][k] * x[row][k], in
// canonical order, for all rows and the strips [strip_begin, strip_end) of one group of four. Same bits for
// every number of rows and every cut into strips. The order is that of chain_canonical, where activations are
// bytes that of chain_int8, where they are other groups that of chain_sums.
struct MatmulCall {
  const PackedWeight* weight;
  std::int64_t strip_begin, strip_end;
  const void* x;  // packed activations of `rows` rows, layout and blocks as the kernel says
  int rows;
  float* out;
  std::int64_t out_stride;  // floats from row to row
};

// A kernel: a function and the facts that choose it. Format::none: any format without tiles.
struct MatmulKernel {
  Format weight;
  ActivationLayout x;
  int block_rows;
  ScaleRange scales;  // the widest that it takes
  void (*run)(const MatmulCall&);
};

struct Ops;

// What sampling asks of logits, in blocks of so many. The same bits on every instruction set.
inline constexpr std::int64_t kLogitBlock = 256;
struct LogitScale {
  float largest, inverse_temperature;
  float least;  // logits below weigh nothing
};
struct LogitOps {
  // The largest finite logit of each block; minus infinity where there is none. maxima: [blocks].
  void (*maxima)(const float* logits, std::int64_t count, float* maxima);
  // weights[i] = e^((logits[i] - largest) * inverse_temperature), zero for what is no finite number; and the
  // sum of each block, sixteen chains and a tree. weights: [count], sums: [blocks].
  void (*weights)(const float* logits, std::int64_t count, const LogitScale& scale, float* weights,
                  float* sums);
};

struct Backend {
  const char* name;
  bool (*present)(const CpuFeatures&);
  const char* needs;  // what `present` looks for, in words
  // In order of preference: those that take bytes, and all others.
  std::span<const MatmulKernel> int8_kernels, kernels;
  Ops ops;
  LogitOps logits;
  // A run of `iterations` dependent-free dot instructions on one thread; returns the operations done, two a
  // product.
  double (*spin_dots)(Numerics, std::int64_t iterations);
};

// The first kernel of the backend that multiplies weights of this shape (format, k and scale_run matter, the
// address does not) and this range of scales under these numerics: of int8 one that takes bytes, or where
// there is none, one of bf16. Null when there is none at all.
const MatmulKernel* find_kernel(const Backend& backend, const PackedWeight& shape, Numerics numerics,
                                ScaleRange scales);

// Every backend of this build, best first.
std::span<const Backend* const> cpu_backends();

}  // namespace nib::inline v0
