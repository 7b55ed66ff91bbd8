#include "plan_report.hpp"

#include "numbers.hpp"
#include "report.hpp"
#include <nibble/base/concat.hpp>

namespace nib::program {

std::string plan_text(const Plan& plan, const std::string& backend) {
  const PlanSummary& summary = plan.summary;
  std::string text = concat("Memory for a context of ", summary.context, " tokens (",
                            numerics_name(plan.model.numerics), ", ", backend, ")\n");
  Table table("lr", "  ");
  for (const PlanItem& item : plan.items) table.row({item.name, bytes_text(item.bytes)});
  table.row({"together", bytes_text(summary.host_bytes)});
  text += table.text();
  text += concat(summary.fits ? "Fits: " : "Does not fit: ", bytes_text(summary.host_budget), " may be used");
  text += summary.longest_context
              ? concat("; the longest context that fits is ", summary.longest_context, " tokens.\n")
              : std::string(".\n");
  return text;
}

std::vector<Json::Member> plan_members(const Plan& plan, const std::string& backend) {
  const PlanSummary& summary = plan.summary;
  std::vector<Json> items;
  for (const PlanItem& item : plan.items)
    items.push_back(Json::object({{"device", json(item.device)},
                                  {"purpose", json(purpose_name(item.purpose))},
                                  {"name", json(item.name)},
                                  {"bytes", json(item.bytes)},
                                  {"stored_bytes", json(item.stored_bytes)}}));
  return {{"backend", json(backend)},
          {"numerics", json(numerics_name(plan.model.numerics))},
          {"context", json(summary.context)},
          {"items", Json::array(std::move(items))},
          {"bytes", json(summary.host_bytes)},
          {"budget", json(summary.host_budget)},
          {"fits", json(summary.fits)},
          {"longest_context", json(summary.longest_context)},
          {"kv_bytes_per_token", json(summary.kv_bytes_per_token)},
          {"decode_bytes", json(summary.decode_bytes)},
          {"prefill_flops", json(summary.prefill_flops)},
          {"stored_bytes", json(summary.stored_bytes)},
          {"parameters", json(summary.parameters)}};
}

}  // namespace nib::program
