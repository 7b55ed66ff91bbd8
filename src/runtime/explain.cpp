#include "explain.hpp"

namespace nib::inline v0 {
namespace {

KernelKind kernel_of(const WeightPart& part) {
  if (part.weight) return part.weight->tiled() ? KernelKind::tiles : KernelKind::records;
  return part.op == "embed" ? KernelKind::lookup : KernelKind::vector;
}

}  // namespace

std::vector<ExplainItem> explain(std::vector<WeightPart> parts, const Plan& plan, const Backend& backend,
                                 KvFormat kv_format) {
  const Format rounded = plan.model.numerics == Numerics::bf16 ? Format::bf16 : Format::f32;
  std::vector<ExplainItem> items;
  for (WeightPart& part : parts)
    items.push_back({std::move(part.name), part.op, Purpose::weights, part.format,
                     part.weight ? rounded : Format::f32, kernel_of(part), backend.name, "host", part.bytes,
                     part.decode_bytes});
  const Format kept = kv_format == KvFormat::bf16 ? Format::bf16 : Format::f32;
  for (const PlanItem& item : plan.items)
    if (item.purpose == Purpose::kv_cache)
      items.push_back({item.name, "attention", Purpose::kv_cache, kept, rounded, KernelKind::cache,
                       backend.name, "host", item.bytes, 0});
  return items;
}

}  // namespace nib::inline v0
