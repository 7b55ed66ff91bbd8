#include "opening.hpp"

#include "memory_limit.hpp"
#include "numbers.hpp"
#include "paths.hpp"
#include "terminal.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/measure.hpp>

#include <algorithm>
#include <random>

namespace nib::program {
namespace {

constexpr const char* kLessThere =
    "Less goes there with a smaller -ngl, with --cpu-moe or --expert-cache, or with a shorter context: -c N.";

bool too_large_for_device(const PlanSummary& summary) {
  return summary.device_budget && summary.device_bytes > summary.device_budget;
}

// Why a plan does not fit, and what would.
Status too_large(const Plan& plan) {
  const PlanSummary& summary = plan.summary;
  const bool there = too_large_for_device(summary);
  return Status(Code::budget,
                concat(plan.path, " needs ", bytes_text(there ? summary.device_bytes : summary.host_bytes),
                       there ? concat(" of the memory of cuda:", plan.model.device) : " of memory",
                       " with a context of ", summary.context, " tokens, but ",
                       bytes_text(there ? summary.device_budget : summary.host_budget), " may be used"));
}

std::string advice_about(const Plan& plan) {
  constexpr std::uint32_t kWorthwhile = 128;
  if (plan.summary.longest_context < kWorthwhile)
    return too_large_for_device(plan.summary) ? kLessThere
                                              : "Nothing but more memory helps: see nibble inspect.";
  return concat("A context of up to ", plan.summary.longest_context, " tokens would fit: -c ",
                plan.summary.longest_context);
}

// What can be done when a model with a part for a device could not be opened.
std::string advice_about_device(const Status& status) {
  if (status.code() == Code::stopped) return {};
  if (status.code() == Code::device_memory) return kLessThere;
  return "nibble doctor says which devices there are; without -ngl the processor computes everything.";
}

}  // namespace

ModelOptions model_options(const ModelFlags& flags) {
  ModelOptions options;
  options.backend = flags.backend;
  options.numerics = flags.numerics;
  options.allow_fallback = flags.allow_fallback;
  options.kv_format = flags.kv_format;
  options.host_budget = flags.memory ? flags.memory : read_memory_limits().usable().value_or(0);
  options.device_layers = flags.gpu_layers;
  options.host_experts = flags.host_experts;
  options.device = flags.device;
  options.device_budget = flags.device_memory;
  options.expert_cache_bytes = flags.expert_cache;
  options.may_be_fast = flags.may_be_fast;
  return options;
}

SamplerOptions sampler_options(const SamplerOptions& wishes, const SamplingFlags& flags) {
  SamplerOptions options = wishes;
  if (flags.temperature) {
    options.temperature = *flags.temperature;
    options.greedy = *flags.temperature == 0;
  }
  options.top_k = flags.top_k.value_or(options.top_k);
  options.top_p = flags.top_p.value_or(options.top_p);
  options.min_p = flags.min_p.value_or(options.min_p);
  options.repetition_penalty = flags.repeat_penalty.value_or(options.repetition_penalty);
  // 32 bits are enough to be different, and short enough to be typed again.
  options.seed = flags.seed ? *flags.seed : std::random_device()();
  return options;
}

Result<Opened> open_for(const ModelFlags& flags, const Cancel* cancel, std::string& advice,
                        const Needs& needs) {
  Opened opened;
  auto found = find_model(flags.model);
  if (!found.ok()) {
    advice = advice_about(std::string_view(flags.model));
    return found.status();
  }
  opened.shipped = found->shipped;
  opened.runtime = needs.runtime;
  if (!opened.runtime) {
    NIB_ASSIGN(opened.runtime,
               Runtime::create({.threads = flags.threads, .cuda_library = cuda_library(flags.cuda_library)}));
  }
  ModelOptions options = model_options(flags);
  ProgressLine progress;
  options.progress = progress.sink();
  options.cancel = cancel;
  options.logit_rows = needs.logit_rows;
  auto planned = make_plan(*opened.runtime, found->path, options, {.context = flags.context}, needs.sessions);
  if (!planned.ok()) {
    if (planned.status().code() == Code::unsupported && options.device_layers == 0 &&
        options.numerics == Numerics::int8)
      advice = "--allow-fallback allows it.";
    return planned.status();
  }
  const Plan plan = std::move(planned).take();
  if (!plan.summary.fits) {
    advice = advice_about(plan);
    return too_large(plan);
  }
  opened.summary = plan.summary;
  auto model = Model::open(opened.runtime, plan);
  if (!model.ok()) {
    if (plan.summary.device_bytes > 0) advice = advice_about_device(model.status());
    return model.status();
  }
  opened.model = model.take();
  if (needs.tokenizer && !opened.model->tokenizer())
    return Status(Code::not_found,
                  concat(found->path, ": there is no tokenizer.json, so there can be no text"));
  return opened;
}

double measured_bandwidth(const Runtime& runtime, double seconds, std::uint64_t most_bytes) {
  constexpr std::uint64_t kLeast = std::uint64_t{32} << 20;  // less says more about caches than about memory
  const std::uint64_t room = read_memory_limits().usable().value_or(runtime.machine().memory) / 4;
  if (room < kLeast) return 0;
  ProgressLine progress;
  progress.show("measuring how fast memory can be read ...");
  const auto measured = measure_read_bandwidth(runtime, seconds, std::min(room, most_bytes));
  return measured.ok() ? measured.value() : 0;
}

double roughly_measured_bandwidth(const Runtime& runtime) {
  return measured_bandwidth(runtime, 0.1, std::uint64_t{256} << 20);
}
double roughly_measured_bandwidth(const Model& model) {
  return model.info().device.empty() ? roughly_measured_bandwidth(*model.runtime()) : 0;
}

std::string computed_by(const Model& model) {
  const ModelInfo& info = model.info();
  if (info.device.empty()) return info.backend;
  std::uint64_t all = 0, there = 0;
  for (const ExplainItem& item : model.explain()) {
    if (item.purpose != Purpose::weights) continue;
    all += item.bytes;
    if (item.device != "host") there += item.bytes;
  }
  return concat(info.backend, " and ", info.device, " (", bytes_text(there), " of ", bytes_text(all),
                " of weights)");
}

std::string timing_text(const Timing& timing, double read_bytes_per_second, std::uint64_t decode_bytes) {
  const auto part = [](std::string_view what, std::uint64_t count, std::uint64_t timed, double seconds) {
    return concat(what, count, count == 1 ? " token" : " tokens",
                  timed == count ? "" : concat(", ", timed, " computed"), " at ",
                  number_text(seconds > 0 ? static_cast<double>(timed) / seconds : 0), "/s");
  };
  std::string text =
      concat(part("prompt ", timing.prompt_tokens, timing.computed_tokens, timing.prompt_seconds), ", ",
             part("answer ", timing.answer_tokens, timing.answer_tokens, timing.answer_seconds));
  if (read_bytes_per_second > 0 && decode_bytes > 0)
    text += concat(" (memory at ", byte_rate_text(read_bytes_per_second), " allows ",
                   number_text(read_bytes_per_second / static_cast<double>(decode_bytes)), "/s)");
  return text;
}

}  // namespace nib::program
