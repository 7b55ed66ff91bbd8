// The ops, made of products and of what is done to rows between them.
#include "device_queue.hpp"
#include "logits.hpp"
#include "multiply.hpp"
#include "rows.hpp"

#include <algorithm>

namespace nib::inline v0::cuda {
namespace {

// bf16 rows that one op leaves and the next one reads, where the processor has f32.
std::uint16_t* as_bf16(float* rows) { return reinterpret_cast<std::uint16_t*>(rows); }
const std::uint16_t* as_bf16(const float* rows) { return reinterpret_cast<const std::uint16_t*>(rows); }

// Rows of x for the products of `args`, unless whoever wrote x has left them.
template <class Args>
Status norm_for_products(DeviceQueue& queue, const Args& args, std::int64_t width) {
  if (args.is_normed) return {};
  return norm_for_next(queue, args.x, args.rows, width, {args.norm, args.normed, args.squares});
}

}  // namespace

Status run_qkv(DeviceQueue& queue, const OpContext& context, const QkvArgs& args) {
  const std::int64_t hidden = args.weight->k;
  NIB_TRY(norm_for_products(queue, args, hidden));
  const std::int64_t width = std::int64_t{args.heads + 2 * args.kv.kv_heads} * args.kv.head_dim;
  const std::int64_t dim = args.kv.head_dim;
  const auto in_pairs = [&](const PackedWeight& part) {
    return heads_in_pairs(part, dim, args.rotary ? args.rotary : dim);
  };
  // Norms of heads want all of a head, and so do scales.
  const bool places = !args.q_norm && !args.k_norm && !args.kv.scaled() &&
                      std::all_of(args.weight, args.weight + args.parts, [&](const PackedWeight& part) {
                        return in_pairs(part) && multiply_goes_on(part, args.rows);
                      });
  std::int64_t column = 0;
  for (const PackedWeight* part = args.weight; part < args.weight + args.parts; ++part) {
    HeadRows heads{};
    if (in_pairs(*part))
      heads = {static_cast<int>(dim), static_cast<int>(column / dim),  args.heads, args.kv,
               args.layer_offset,     places ? args.kv_rows : nullptr, args.cos,   args.sin};
    NIB_TRY(multiply(queue, context,
                     {.weight = part,
                      .x = as_bf16(args.normed),
                      .x_stride = bf16_stride(hidden),
                      .rows = args.rows,
                      .bias = args.bias ? args.bias + column : nullptr,
                      .out = args.qkv + column,
                      .out_stride = row_stride(width),
                      .norm = FoldedNorm::of(args.norm, args.squares, hidden),
                      .may_be_fast = context.may_be_fast,
                      .heads = heads}));
    column += part->rows;
  }
  return places ? Status() : place_qkv(queue, args);
}

Status run_attention(DeviceQueue& queue, const OpContext& context, const AttentionArgs& args) {
  return attention(queue, context, args);
}

Status run_project(DeviceQueue& queue, const OpContext& context, const ProjectArgs& args) {
  const std::int64_t hidden = args.weight->rows;
  const bool folds = multiply_goes_on(*args.weight, args.rows) && args.next.norm.kind == NormKind::rms;
  const bool routes = folds && args.route && multiply_routes(*args.weight, *args.route);
  NIB_TRY(multiply(queue, context,
                   {.weight = args.weight,
                    .x = as_bf16(args.in),
                    .x_stride = bf16_stride(args.weight->k),
                    .rows = args.rows,
                    .bias = args.bias,
                    .out = args.x,
                    .out_stride = row_stride(hidden),
                    .add = true,
                    .may_be_fast = context.may_be_fast,
                    .next = folds ? FoldedRows::of(args.next, hidden) : FoldedRows{},
                    .route = routes ? args.route : nullptr}));
  if (!folds) NIB_TRY(norm_for_next(queue, args.x, args.rows, hidden, args.next));
  return args.route && !routes ? route(queue, context, *args.route) : Status();
}

Status run_route(DeviceQueue& queue, const OpContext& context, const RouteArgs& args) {
  const std::int64_t hidden = args.weight ? args.weight->k : args.width;
  NIB_TRY(norm_for_products(queue, args, hidden));
  return route(queue, context, args);
}

Status run_experts(DeviceQueue& queue, const OpContext& context, const ExpertsArgs& args) {
  return experts(queue, context, args);
}

Status run_head(DeviceQueue& queue, const OpContext& context, const HeadArgs& args) {
  const std::int64_t hidden = args.weight->k;
  if (!args.is_normed)
    NIB_TRY(
        norm_picked(queue, args.x, args.picked, args.count, hidden, {args.norm, args.normed, args.squares}));
  return multiply(queue, context,
                  {.weight = args.weight,
                   .x = as_bf16(args.normed),
                   .x_stride = bf16_stride(hidden),
                   .rows = args.count,
                   .bias = nullptr,
                   .out = args.logits,
                   .out_stride = row_stride(args.weight->rows),
                   .norm = FoldedNorm::of(args.norm, args.squares, hidden)});
}

Status run_digest(DeviceQueue& queue, const OpContext&, const DigestArgs& args) {
  return digest_logits(queue, args);
}

}  // namespace nib::inline v0::cuda
