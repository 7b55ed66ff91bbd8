#include "plan_report.hpp"

#include "numbers.hpp"
#include "report.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>

namespace nib::program {

std::vector<PlanRow> plan_rows(const Plan& plan) {
  std::vector<PlanRow> rows;
  for (const PlanItem& item : plan.items) {
    auto row = std::find_if(rows.begin(), rows.end(), [&](const PlanRow& r) { return r.name == item.name; });
    if (row == rows.end()) row = rows.insert(row, {.name = item.name});
    (item.device == "host" ? row->host_bytes : row->device_bytes) += item.bytes;
    row->stored_bytes += item.stored_bytes;
  }
  return rows;
}

std::string plan_text(const Plan& plan, const std::string& backend) {
  const PlanSummary& summary = plan.summary;
  const bool devices = summary.device_bytes > 0;
  const std::string device = concat("cuda:", plan.model.device);
  std::string text =
      concat("Memory for a context of ", summary.context, " tokens (", numerics_name(plan.model.numerics),
             ", ", backend, devices ? concat(" and ", device) : "", ")\n");
  Table table(devices ? "lrr" : "lr", "  ");
  const auto row = [&](const std::string& name, const std::string& here, const std::string& there) {
    table.row(devices ? std::vector{name, here, there} : std::vector{name, here});
  };
  const auto some = [](std::uint64_t bytes) { return bytes ? bytes_text(bytes) : std::string(); };
  if (devices) row("", "host", device);
  for (const PlanRow& each : plan_rows(plan)) row(each.name, some(each.host_bytes), some(each.device_bytes));
  row("together", bytes_text(summary.host_bytes), bytes_text(summary.device_bytes));
  text += table.text();
  text += concat(summary.fits ? "Fits: " : "Does not fit: ", bytes_text(summary.host_budget), " may be used");
  if (devices && summary.device_budget)
    text += concat(", and ", bytes_text(summary.device_budget), " on ", device);
  text += summary.longest_context
              ? concat("; the longest context that fits is ", summary.longest_context, " tokens.\n")
              : std::string(".\n");
  if (devices && !summary.device_budget)
    text += concat("What is free on ", device,
                   " is asked when the model is opened; --device-memory sets a limit.\n");
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
          {"device_bytes", json(summary.device_bytes)},
          {"device_budget", summary.device_budget ? json(summary.device_budget) : Json()},
          {"fits", json(summary.fits)},
          {"longest_context", json(summary.longest_context)},
          {"kv_bytes_per_token", json(summary.kv_bytes_per_token)},
          {"decode_bytes", json(summary.decode_bytes)},
          {"prefill_flops", json(summary.prefill_flops)},
          {"stored_bytes", json(summary.stored_bytes)},
          {"parameters", json(summary.parameters)}};
}

}  // namespace nib::program
