#include "explain.hpp"

#include <nibble/base/concat.hpp>

namespace nib::inline v0 {
namespace {

KernelKind kernel_of(const WeightPart& part, bool is_fast) {
  if (part.weight && part.place == Place::device) {
    const DeviceForm form = device_form(*part.weight);
    const bool has_many_rows = part.op != "route" && part.op != "head";
    if (is_fast && has_many_rows && has_fast_kernel(form)) return KernelKind::wgmma;
    return form == DeviceForm::tiles ? KernelKind::chain : KernelKind::tiles;
  }
  if (part.weight) return part.weight->tiled() ? KernelKind::tiles : KernelKind::records;
  return part.op == "embed" ? KernelKind::lookup : KernelKind::vector;
}

Format format_of(KvFormat kept) {
  switch (kept) {
    case KvFormat::bf16:
      return Format::bf16;
    case KvFormat::int8:
      return Format::int8;
    case KvFormat::fp8:
      return Format::fp8_e4m3;
    default:
      return Format::f32;
  }
}

}  // namespace

std::vector<ExplainItem> explain(std::vector<WeightPart> parts, const Plan& plan, const Backend& backend,
                                 KvFormat kv_format, bool is_fast) {
  const Format rounded = rounds_to_bf16(plan.model.numerics) ? Format::bf16 : Format::f32;
  const auto inputs_of = [&](const WeightPart& part) {
    if (!part.weight) return Format::f32;
    if (part.place == Place::device) return Format::bf16;
    return part.weight->kernel->x == ActivationLayout::bytes ? Format::int8 : rounded;
  };
  const auto device_of = [&](Place place) {
    return place == Place::host ? std::string("host") : concat("cuda:", plan.model.device);
  };
  const auto instructions_of = [&](bool on_host) {
    return on_host ? std::string_view(backend.name) : std::string_view("cuda");
  };
  std::vector<ExplainItem> items;
  for (WeightPart& part : parts)
    items.push_back({std::move(part.name), part.op, Purpose::weights, part.format, inputs_of(part),
                     kernel_of(part, is_fast), instructions_of(part.place == Place::host),
                     device_of(part.place), part.bytes, part.decode_bytes, part.slots, part.locked_bytes});
  for (const PlanItem& item : plan.items)
    if (item.purpose == Purpose::kv_cache)
      items.push_back({item.name, "attention", Purpose::kv_cache, format_of(kv_format), rounded,
                       KernelKind::cache, instructions_of(item.device == "host"), item.device, item.bytes,
                       0});
  return items;
}

}  // namespace nib::inline v0
