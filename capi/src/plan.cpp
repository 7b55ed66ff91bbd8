// Room capi: nib_plan.
#include "handles.hpp"
#include "versioned.hpp"

static_assert(NIB_PURPOSE_WEIGHTS == static_cast<int>(nib::Purpose::weights));
static_assert(NIB_PURPOSE_KV_CACHE == static_cast<int>(nib::Purpose::kv_cache));
static_assert(NIB_PURPOSE_ACTIVATIONS == static_cast<int>(nib::Purpose::activations));
static_assert(NIB_PURPOSE_STAGING == static_cast<int>(nib::Purpose::staging));
static_assert(nib::kPurposes == 4);

using namespace nib;
using namespace nib::capi;

extern "C" {

nib_status nib_plan_create(nib_runtime* runtime, const char* path, size_t path_size,
                           const nib_model_options* model, const nib_session_options* session, nib_plan** out,
                           nib_error* error) {
  if (out) *out = nullptr;
  return guard(error, [&]() -> Status {
    NIB_TRY(require(out, "out"));
    NIB_TRY(usable_here(runtime, "runtime"));
    NIB_ASSIGN(const std::string_view where, read_path(path, path_size));
    auto plan = std::make_unique<nib_plan>();
    plan->host = runtime->host;
    NIB_TRY(plan->request.read(model));
    SessionRequest planned;
    NIB_TRY(planned.read(session, SamplerOptions()));
    if (planned.options.context == 0) planned.options.context = plan->request.context;
    NIB_ASSIGN(plan->plan, make_plan(*runtime->host->runtime, where, plan->request.options, planned.options,
                                     plan->request.sessions));
    *out = plan.release();
    return {};
  });
}

nib_status nib_plan_get_item(const nib_plan* plan, uint32_t index, nib_plan_item* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(usable_here(plan, "plan"));
    NIB_TRY(check_output(out, "nib_plan_item"));
    if (index >= plan->plan.items.size()) return {Code::end, ""};
    const PlanItem& item = plan->plan.items[index];
    nib_plan_item value = NIB_PLAN_ITEM_INIT;
    value.purpose = static_cast<uint32_t>(item.purpose);
    value.bytes = item.bytes;
    value.device = item.device.c_str();
    value.device_size = item.device.size();
    value.name = item.name.c_str();
    value.name_size = item.name.size();
    write_struct(value, out);
    return {};
  });
}

nib_status nib_plan_get_summary(const nib_plan* plan, nib_plan_summary* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(usable_here(plan, "plan"));
    NIB_TRY(check_output(out, "nib_plan_summary"));
    const PlanSummary& summary = plan->plan.summary;
    nib_plan_summary value = NIB_PLAN_SUMMARY_INIT;
    value.flags = summary.fits ? NIB_PLAN_FITS : 0;
    value.host_bytes = summary.host_bytes;
    value.host_budget = summary.host_budget;
    value.context = summary.context;
    value.longest_context = summary.longest_context;
    value.kv_bytes_per_token = summary.kv_bytes_per_token;
    value.decode_bytes = summary.decode_bytes;
    value.prefill_flops = summary.prefill_flops;
    value.device_bytes = summary.device_bytes;
    value.device_budget = summary.device_budget;
    write_struct(value, out);
    return {};
  });
}

nib_status nib_plan_predict(const nib_plan* plan, const nib_machine_rates* machine, nib_predicted_rates* out,
                            nib_error* error) {
  return guard(error, [&]() -> Status {
    NIB_TRY(usable_here(plan, "plan"));
    NIB_TRY(require(machine, "machine"));
    NIB_TRY(check_output(out, "nib_predicted_rates"));
    nib_machine_rates rates;
    NIB_TRY(read_struct(machine, "nib_machine_rates", rates));
    NIB_TRY(check_reserved(rates.reserved, "nib_machine_rates"));
    const PredictedRates predicted =
        plan->plan.predict({rates.read_bytes_per_second, rates.dot_flops_per_second});
    nib_predicted_rates value = NIB_PREDICTED_RATES_INIT;
    value.prefill_tokens_per_second = predicted.prefill_tokens_per_second;
    value.decode_tokens_per_second = predicted.decode_tokens_per_second;
    write_struct(value, out);
    return {};
  });
}

void nib_plan_free(nib_plan* plan) { free_here(plan); }

}  // extern "C"
