// The six ops, made of products and of what is done to rows between them.
#include "device_queue.hpp"
#include "multiply.hpp"
#include "rows.hpp"

namespace nib::inline v0::cuda {
namespace {

// bf16 rows that one op leaves and the next one reads, where the processor has f32.
std::uint16_t* as_bf16(float* rows) { return reinterpret_cast<std::uint16_t*>(rows); }
const std::uint16_t* as_bf16(const float* rows) { return reinterpret_cast<const std::uint16_t*>(rows); }

}  // namespace

Status run_qkv(DeviceQueue& queue, const OpContext& context, const QkvArgs& args) {
  const std::int64_t hidden = args.weight->k;
  NIB_TRY(norm_rows(queue, {.x = args.x,
                            .x_stride = row_stride(hidden),
                            .picked = nullptr,
                            .rows = args.rows,
                            .width = hidden,
                            .norm = args.norm,
                            .out = as_bf16(args.normed)}));
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
  NIB_TRY(norm_rows(queue, {.x = args.x,
                            .x_stride = row_stride(hidden),
                            .picked = nullptr,
                            .rows = args.rows,
                            .width = hidden,
                            .norm = args.norm,
                            .out = as_bf16(args.normed)}));
  return route(queue, context, args);
}

Status run_experts(DeviceQueue& queue, const OpContext& context, const ExpertsArgs& args) {
  return experts(queue, context, args);
}

Status run_head(DeviceQueue& queue, const OpContext& context, const HeadArgs& args) {
  NIB_TRY(norm_rows(queue, {.x = args.x,
                            .x_stride = row_stride(args.weight->k),
                            .picked = args.picked,
                            .rows = args.count,
                            .width = args.weight->k,
                            .norm = args.norm,
                            .out = as_bf16(args.normed)}));
  return multiply(queue, context,
                  {.weight = args.weight,
                   .x = as_bf16(args.normed),
                   .x_stride = bf16_stride(args.weight->k),
                   .rows = args.count,
                   .bias = nullptr,
                   .out = args.logits,
                   .out_stride = row_stride(args.weight->rows)});
}

}  // namespace nib::inline v0::cuda
