#include "../bodies/folded_norm.cuh"
#include "../kv_pages.hpp"
#include "../rows.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/formats/small_floats.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kMostHeadDim = 256;

// ---- norms: a block for a row. A thread's sum runs over every 256th number, then come lanes, then warps.

NIB_DEVICE float sum_of_block(float x, float (&of_warps)[kWarps]) {
  const float sum = sum_of_warp(x);
  sync_block();  // nobody still reads what was there
  if (thread_index() % 32 == 0) of_warps[thread_index() / 32] = sum;
  sync_block();
  float total = of_warps[0];
  NIB_UNROLL
  for (int i = 1; i < kWarps; ++i) total += of_warps[i];
  return total;
}

struct NormShared {
  float of_warps[kWarps];
};

NIB_KERNEL void NIB_FITS(kThreads, 2) norm_kernel(NormRows call) {
  wait_for_kernel_before();
  auto& shared = shared_memory<NormShared>();
  const std::int64_t row = block_index(), stride = bf16_stride(call.width);
  const float* const x = call.x + (call.picked ? call.picked[row] : row) * call.x_stride;
  const auto count = static_cast<float>(call.width);
  float mean = 0;
  if (call.norm.kind == NormKind::layer) {
    float sum = 0;
    for (std::int64_t i = thread_index(); i < call.width; i += kThreads) sum += x[i];
    mean = sum_of_block(sum, shared.of_warps) / count;
  }
  float squares = 0;
  for (std::int64_t i = thread_index(); i < call.width; i += kThreads)
    squares = fused_multiply_add(x[i] - mean, x[i] - mean, squares);
  const float scale = 1.0f / std::sqrt(sum_of_block(squares, shared.of_warps) / count + call.norm.epsilon);
  for (std::int64_t i = thread_index(); i < stride; i += kThreads) {
    float y = 0;
    if (i < call.width) {
      y = (x[i] - mean) * scale * call.norm.weight[i];
      if (call.norm.bias) y += call.norm.bias[i];
    }
    call.out[row * stride + i] = round_to_bf16(y);
  }
}

// The same sums as those of leave_folded.
NIB_KERNEL void NIB_FITS(kThreads, 2)
    fold_kernel(const float* all, std::int64_t x_stride, const std::int32_t* picked, FoldedRows to) {
  wait_for_kernel_before();
  const std::int64_t row = block_index(), stride = bf16_stride(to.norm.width);
  float* const squares = to.norm.squares + row * to.norm.stride();
  const float* const x = all + (picked ? picked[row] : row) * x_stride;
  for (std::int64_t i = thread_index(); i < stride; i += kThreads) {
    const bool is_one = i < to.norm.width;
    const float number = is_one ? x[i] : 0;
    to.rows[row * stride + i] = is_one ? round_to_bf16(number * to.weight[i]) : std::uint16_t{0};
    const float sum = sum_of_part(number * number);
    if (is_one && i % kNormPart == 0) squares[i / kNormPart] = sum;
  }
  sync_block();
  if (thread_index() >= 32) return;
  const float factor = row_factor(to.norm, row, thread_index());
  if (thread_index() == 0) squares[to.norm.parts()] = factor;
}

// ---- heads of q, k and v: a warp for each

struct PlaceShared {
  float heads[kWarps][kMostHeadDim];
};

// The norm of a head, and its rotation. Lane l has every 32nd of its numbers, then of its pairs.
NIB_DEVICE void finish_head(const QkvArgs& args, const float* weight, int row, float* head, int lane) {
  const int dim = args.kv.head_dim, rotary = args.rotary ? args.rotary : dim, half = rotary / 2;
  if (weight) {
    float squares = 0;
    for (int d = lane; d < dim; d += 32) squares = fused_multiply_add(head[d], head[d], squares);
    const float scale = 1.0f / std::sqrt(sum_of_warp(squares) / static_cast<float>(dim) + args.norm.epsilon);
    for (int d = lane; d < dim; d += 32) head[d] = head[d] * scale * weight[d];
    sync_warp();
  }
  const float *const cos = args.cos + std::int64_t{row} * half, *const sin =
                                                                    args.sin + std::int64_t{row} * half;
  for (int i = lane; i < half; i += 32) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
  sync_warp();
}

NIB_DEVICE std::uint8_t encode_int8(float x) {
  return static_cast<std::uint8_t>(static_cast<std::int8_t>(std::rint(x)));
}

// Writes a key or a value to its place in a block; `place` is key_place or value_place. Bytes: the largest
// magnitude becomes the largest code. Below 2^-100 all codes are zero; what is not finite leaves a scale that
// is not.
template <class Place>
NIB_DEVICE void write_head(const KvLayout& kv, std::byte* block, int slot, const float* head, int lane,
                           Place place) {
  const int dim = kv.head_dim, padded = kv.padded_dim();
  const auto x = [&](int d) { return d < dim ? head[d] : 0.0f; };
  if (kv.format == KvFormat::f32) {
    for (int d = lane; d < padded; d += 32) *reinterpret_cast<float*>(block + place(4, slot, d)) = x(d);
    return;
  }
  if (!kv.scaled()) {
    for (int d = lane; d < padded; d += 32)
      *reinterpret_cast<std::uint16_t*>(block + place(2, slot, d)) = round_to_bf16(x(d));
    return;
  }
  const float largest_code = kv.format == KvFormat::int8 ? 127 : 448;
  float most = 0;
  for (int d = lane; d < dim; d += 32)
    if (const float size = std::fabs(head[d]); size > most || size != size) most = size;
  for (int by = 1; by < 32; by *= 2) {
    const float other = shuffle_xor(most, by);
    if (other > most || other != other) most = other;  // a NaN stays
  }
  const bool is_small = most < 0x1p-100f, is_finite = most <= std::numeric_limits<float>::max();
  const float inverse = is_small || !is_finite ? 0 : largest_code / most;
  if (lane == 0) reinterpret_cast<float*>(block + kv.code_bytes())[slot] = is_small ? 0 : most / largest_code;
  for (int d = lane; d < padded; d += 32) {
    std::uint8_t code = 0;
    if (inverse != 0)
      code = kv.format == KvFormat::int8 ? encode_int8(x(d) * inverse) : E4M3::encode(x(d) * inverse);
    block[place(1, slot, d)] = static_cast<std::byte>(code);
  }
}

// Head `head` of a row: those of q stay where they are, a key goes to the page with its value.
NIB_KERNEL void NIB_FITS(kThreads, 2) place_kernel(QkvArgs args) {
  wait_for_kernel_before();
  auto& shared = shared_memory<PlaceShared>();
  const int warp = thread_index() / 32, lane = thread_index() % 32, dim = args.kv.head_dim;
  const int kv_heads = args.kv.kv_heads, heads = args.heads + kv_heads;
  const std::int64_t item = std::int64_t{block_index()} * kWarps + warp;
  if (item >= args.rows * heads) return;
  const auto row = static_cast<int>(item / heads);
  const auto head = static_cast<int>(item % heads);
  const bool is_key = head >= args.heads;
  float* const from =
      args.qkv + row * row_stride(std::int64_t{args.heads + 2 * kv_heads} * dim) + std::int64_t{head} * dim;
  float* const numbers = shared.heads[warp];
  for (int d = lane; d < dim; d += 32) numbers[d] = from[d];
  sync_warp();
  finish_head(args, is_key ? args.k_norm : args.q_norm, row, numbers, lane);
  for (int d = lane; d < dim; d += 32) from[d] = numbers[d];
  if (!is_key) return;
  const KvRow& kv = args.kv_rows[row];
  const auto slot = static_cast<int>(kv.position % kPagePositions);
  std::byte* const block = kv.pages[kv.position / kPagePositions - kv.first_page] + args.layer_offset +
                           static_cast<std::size_t>(head - args.heads) * 2 * args.kv.block_bytes();
  write_head(args.kv, block, slot, numbers, lane, [](int b, int s, int d) { return key_place(b, s, d); });
  write_head(args.kv, block + args.kv.block_bytes(), slot, from + std::int64_t{kv_heads} * dim, lane,
             [](int b, int s, int d) { return value_place(b, s, d); });
}

}  // namespace

Status norm_rows(const Queue& queue, const NormRows& call) {
  if (call.rows == 0) return {};
  return launch(norm_kernel, {static_cast<int>(call.rows), kThreads, sizeof(NormShared)}, queue.stream, call);
}

Status norm_for_next(const Queue& queue, const float* x, std::int64_t rows, std::int64_t width,
                     const NextNorm& next) {
  return norm_picked(queue, x, nullptr, rows, width, next);
}

Status norm_picked(const Queue& queue, const float* x, const std::int32_t* picked, std::int64_t rows,
                   std::int64_t width, const NextNorm& next) {
  if (rows == 0 || !next.normed) return {};
  const FoldedRows to = FoldedRows::of(next, width);
  if (to.norm.squares)
    return launch(fold_kernel, {static_cast<int>(rows), kThreads, 0}, queue.stream, x, row_stride(width),
                  picked, to);
  return norm_rows(queue, {.x = x,
                           .x_stride = row_stride(width),
                           .picked = picked,
                           .rows = rows,
                           .width = width,
                           .norm = next.norm,
                           .out = to.rows});
}

Status place_qkv(const Queue& queue, const QkvArgs& args) {
  if (args.rows == 0) return {};
  if (args.kv.head_dim > kMostHeadDim)
    return Status(Code::unsupported, concat("heads on a device: expected a width up to ", kMostHeadDim,
                                            ", found ", args.kv.head_dim));
  const std::int64_t items = args.rows * (args.heads + args.kv.kv_heads);
  return launch(place_kernel,
                {static_cast<int>((items + kWarps - 1) / kWarps), kThreads, sizeof(PlaceShared)},
                queue.stream, args);
}

}  // namespace nib::inline v0::cuda
