// Room capi: reading options.
#include "options.hpp"

#include "guard.hpp"
#include "handles.hpp"
#include "versioned.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstring>
#include <optional>
#include <vector>

static_assert(NIB_NUMERICS_BF16 == static_cast<int>(nib::Numerics::bf16));
static_assert(NIB_NUMERICS_F32 == static_cast<int>(nib::Numerics::f32));
static_assert(NIB_NUMERICS_INT8 == static_cast<int>(nib::Numerics::int8));
static_assert(NIB_KV_AUTO == static_cast<int>(nib::KvFormat::automatic));
static_assert(NIB_KV_BF16 == static_cast<int>(nib::KvFormat::bf16));
static_assert(NIB_KV_F32 == static_cast<int>(nib::KvFormat::f32));
static_assert(NIB_KV_INT8 == static_cast<int>(nib::KvFormat::int8));
static_assert(NIB_KV_FP8 == static_cast<int>(nib::KvFormat::fp8));
static_assert(NIB_STAGE_READ == static_cast<int>(nib::Stage::read));
static_assert(NIB_STAGE_PACK == static_cast<int>(nib::Stage::pack));
static_assert(NIB_STAGE_PREFILL == static_cast<int>(nib::Stage::prefill));
static_assert(NIB_STAGE_QUANTIZE == static_cast<int>(nib::Stage::quantize));

namespace nib::capi {
namespace {

int call_progress(void* self, const Progress& progress) {
  const auto& to = *static_cast<const ProgressCall*>(self);
  nib_progress event{};
  event.struct_size = sizeof event;
  event.stage = static_cast<std::uint32_t>(progress.stage);
  event.done = progress.done;
  event.total = progress.total;
  event.name = not_null(progress.name);
  event.name_size = progress.name.size();
  return to.call(to.user, &event);
}

// The number of "cuda:N"; none for another name.
std::optional<int> cuda_index(std::string_view device) {
  constexpr std::string_view kCuda = "cuda:";
  if (!device.starts_with(kCuda)) return {};
  const char *first = device.data() + kCuda.size(), *last = device.data() + device.size();
  int index = 0;
  const auto [end, error] = std::from_chars(first, last, index);
  if (error != std::errc() || end != last || index < 0) return {};
  return index;
}

Status read_budgets(const nib_model_options& given, ModelOptions& out) {
  if (given.budget_count == 0) return {};
  NIB_TRY(require(given.budgets, "budgets"));
  constexpr int kHost = -1;
  std::vector<int> seen;
  for (std::size_t i = 0; i < given.budget_count; ++i) {
    nib_budget budget;
    NIB_TRY(read_element(reinterpret_cast<const char*>(given.budgets) + i * given.budget_size,
                         given.budget_size, "nib_budget (budget_size)", budget));
    NIB_ASSIGN(const std::string_view device,
               read_text(budget.device, budget.device_size, "the device of a budget"));
    const std::optional<int> index = device.empty() || device == "host" ? kHost : cuda_index(device);
    if (!index)
      return {Code::not_found,
              concat("a budget is for device '", device, "', expected 'host', 'cuda:0', 'cuda:1', ...")};
    if (std::find(seen.begin(), seen.end(), *index) != seen.end())
      return {Code::argument, concat("device '", device.empty() ? "host" : device, "' has two budgets")};
    seen.push_back(*index);
    if (*index == kHost) out.host_budget = budget.bytes;
    if (*index == out.device) out.device_budget = budget.bytes;
  }
  return {};
}

}  // namespace

Result<std::string_view> read_text(const char* data, std::size_t size, std::string_view name) {
  if (data) return std::string_view(data, size == NIB_NUL ? std::strlen(data) : size);
  if (size == 0) return std::string_view("");
  return Status(Code::argument, concat(name, " is NULL, but its size is not 0"));
}

Result<std::string_view> read_path(const char* data, std::size_t size) {
  NIB_ASSIGN(const std::string_view path, read_text(data, size, "path"));
  if (path.empty()) return Status(Code::argument, "path is empty");
  if (path.find('\0') != path.npos) return Status(Code::argument, "path has a NUL inside");
  return path;
}

Result<Numerics> read_numerics(std::uint32_t value) {
  if (value <= NIB_NUMERICS_INT8) return static_cast<Numerics>(value);
  return Status(Code::argument, concat("numerics is ", value, ", expected a NIB_NUMERICS_ value up to ",
                                       static_cast<int>(NIB_NUMERICS_INT8)));
}

ProgressSink ProgressCall::sink() const {
  return call ? ProgressSink{call_progress, const_cast<ProgressCall*>(this)} : ProgressSink{};
}

Status ModelRequest::read(const nib_model_options* options_given) {
  nib_model_options given;
  NIB_TRY(read_struct(options_given, "nib_model_options", given));
  NIB_TRY(check_flags(
      given.flags,
      NIB_MODEL_VOCABULARY_ONLY | NIB_MODEL_ALLOW_FALLBACK | NIB_MODEL_HOST_EXPERTS | NIB_MODEL_MAY_BE_FAST,
      "nib_model_options"));
  NIB_TRY(check_reserved(given.reserved, "nib_model_options"));
  NIB_ASSIGN(options.backend, read_text(given.backend, given.backend_size, "backend"));
  NIB_ASSIGN(options.numerics, read_numerics(given.numerics));
  if (given.kv_format > NIB_KV_FP8)
    return {Code::argument, concat("kv_format is ", given.kv_format, ", expected a NIB_KV_ value up to ",
                                   static_cast<int>(NIB_KV_FP8))};
  options.kv_format = static_cast<KvFormat>(given.kv_format);
  options.device_layers = given.device_layers;
  options.host_experts = (given.flags & NIB_MODEL_HOST_EXPERTS) != 0;
  options.may_be_fast = (given.flags & NIB_MODEL_MAY_BE_FAST) != 0;
  if (given.device > INT_MAX) return {Code::argument, concat("device is ", given.device)};
  options.device = static_cast<int>(given.device);
  options.expert_cache_bytes = given.expert_cache_bytes;
  NIB_TRY(read_budgets(given, options));
  options.prefill_rows = given.prefill_rows;
  options.vocabulary_only = (given.flags & NIB_MODEL_VOCABULARY_ONLY) != 0;
  options.allow_fallback = (given.flags & NIB_MODEL_ALLOW_FALLBACK) != 0;
  if (given.sessions) sessions = given.sessions;
  context = given.session_context;
  progress = {given.on_progress, given.on_progress_user};
  options.progress = progress.sink();
  if (given.cancel) cancel = given.cancel->shared;
  options.cancel = cancel.get();
  return {};
}

Status SessionRequest::read(const nib_session_options* options_given, const SamplerOptions& wish) {
  nib_session_options given;
  NIB_TRY(read_struct(options_given, "nib_session_options", given));
  NIB_TRY(check_flags(given.flags,
                      NIB_SESSION_GREEDY | NIB_SESSION_IGNORE_MODEL_STOPS | NIB_SESSION_SHOW_SPECIALS,
                      "nib_session_options"));
  options.context = given.context;
  options.ignore_model_stops = (given.flags & NIB_SESSION_IGNORE_MODEL_STOPS) != 0;
  options.show_specials = (given.flags & NIB_SESSION_SHOW_SPECIALS) != 0;

  SamplerOptions& sampler = options.sampler;
  sampler = wish;
  const bool asks_to_draw =
      given.temperature != 0 || given.top_k != 0 || given.top_p != 0 || given.min_p != 0;
  if (asks_to_draw) sampler.greedy = false;
  if (given.flags & NIB_SESSION_GREEDY) sampler.greedy = true;
  if (given.temperature != 0) sampler.temperature = given.temperature;
  if (given.top_k != 0) sampler.top_k = given.top_k;
  if (given.top_p != 0) sampler.top_p = given.top_p;
  if (given.min_p != 0) sampler.min_p = given.min_p;
  if (given.repetition_penalty != 0) sampler.repetition_penalty = given.repetition_penalty;
  sampler.seed = given.seed;

  if (given.stop_id_count) NIB_TRY(require(given.stop_ids, "stop_ids"));
  options.stop_ids.assign(given.stop_ids, given.stop_ids + given.stop_id_count);
  if (given.stop_text_count) NIB_TRY(require(given.stop_texts, "stop_texts"));
  for (std::size_t i = 0; i < given.stop_text_count; ++i) {
    const nib_string& text = given.stop_texts[i];
    NIB_ASSIGN(const std::string_view stop, read_text(text.data, text.size, "a stop text"));
    if (stop.empty()) return {Code::argument, concat("stop text number ", i, " is empty")};
    options.stop_texts.emplace_back(stop);
  }
  progress = {given.on_progress, given.on_progress_user};
  if (given.cancel) cancel = given.cancel->shared;
  return {};
}

}  // namespace nib::capi
