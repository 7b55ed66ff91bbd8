// The ops, made of products and of what is done to rows between them.
#include "device_queue.hpp"
#include "logits.hpp"
#include "multiply.hpp"
#include "rows.hpp"

namespace nib::inline v0::cuda {
namespace {

// bf16 rows that one op leaves and the next one reads, where the processor has f32.
std::uint16_t* as_bf16(float* rows) { return reinterpret_cast<std::uint16_t*>(rows); }
const std::uint16_t* as_bf16(const float* rows) { return reinterpret_cast<const std::uint16_t*>(rows); }

// Rows of x, or those that are picked, normed for the products that follow.
Status norm_for_products(DeviceQueue& queue, const float* x, const std::int32_t* picked, std::int64_t rows,
                         std::int64_t width, const Norm& norm, float* normed) {
  return norm_rows(queue, {.x = x,
                           .x_stride = row_stride(width),
                           .picked = picked,
                           .rows = rows,
                           .width = width,
                           .norm = norm,
                           .out = as_bf16(normed)});
}

}  // namespace

Status run_qkv(DeviceQueue& queue, const OpContext& context, const QkvArgs& args) {
  const std::int64_t hidden = args.weight->k;
  NIB_TRY(norm_for_products(queue, args.x, nullptr, args.rows, hidden, args.norm, args.normed));
  const std::int64_t width = std::int64_t{args.heads + 2 * args.kv.kv_heads} * args.kv.head_dim;
  std::int64_t column = 0;
  for (const PackedWeight* part = args.weight; part < args.weight + args.parts; ++part) {
    NIB_TRY(multiply(queue, context,
                     {.weight = part,
                      .x = as_bf16(args.normed),
                      .x_stride = bf16_stride(hidden),
                      .rows = args.rows,
                      .bias = args.bias ? args.bias + column : nullptr,
                      .out = args.qkv + column,
                      .out_stride = row_stride(width)}));
    column += part->rows;
  }
  return place_qkv(queue, args);
}

Status run_attention(DeviceQueue& queue, const OpContext& context, const AttentionArgs& args) {
  return attention(queue, context, args);
}

Status run_project(DeviceQueue& queue, const OpContext& context, const ProjectArgs& args) {
  return multiply(queue, context,
                  {.weight = args.weight,
                   .x = as_bf16(args.in),
                   .x_stride = bf16_stride(args.weight->k),
                   .rows = args.rows,
                   .bias = args.bias,
                   .out = args.x,
                   .out_stride = row_stride(args.weight->rows),
                   .add = true});
}

Status run_route(DeviceQueue& queue, const OpContext& context, const RouteArgs& args) {
  const std::int64_t hidden = args.weight ? args.weight->k : args.width;
  NIB_TRY(norm_for_products(queue, args.x, nullptr, args.rows, hidden, args.norm, args.normed));
  return route(queue, context, args);
}

Status run_experts(DeviceQueue& queue, const OpContext& context, const ExpertsArgs& args) {
  return experts(queue, context, args);
}

Status run_head(DeviceQueue& queue, const OpContext& context, const HeadArgs& args) {
  NIB_TRY(norm_for_products(queue, args.x, args.picked, args.count, args.weight->k, args.norm, args.normed));
  return multiply(queue, context,
                  {.weight = args.weight,
                   .x = as_bf16(args.normed),
                   .x_stride = bf16_stride(args.weight->k),
                   .rows = args.count,
                   .bias = nullptr,
                   .out = args.logits,
                   .out_stride = row_stride(args.weight->rows)});
}

Status run_digest(DeviceQueue& queue, const OpContext&, const DigestArgs& args) {
  return digest_logits(queue, args);
}

}  // namespace nib::inline v0::cuda
