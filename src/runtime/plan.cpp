#include "opened.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/outline.hpp>
#include <nibble/model/transformer.hpp>
#include <nibble/runtime/plan.hpp>
#include <nibble/runtime/vocabulary.hpp>

#include <algorithm>

namespace nib::inline v0 {
namespace {

constexpr std::uint32_t kDefaultContext = 4096;
constexpr std::uint32_t kDefaultRows = 256;
constexpr std::uint32_t kMostRows = 8192;
constexpr std::uint32_t kMostSessions = 4096;

constexpr const char* kHost = "host";

// Of a session: its logits, and what they weigh when one is drawn.
std::uint64_t logit_bytes(const ModelConfig& config) {
  return 2 * static_cast<std::uint64_t>(row_stride(config.vocabulary)) * sizeof(float);
}

}  // namespace

std::uint64_t kv_cache_bytes(const KvGeometry& kv, Place place, std::uint32_t context, std::uint32_t rows) {
  std::uint64_t bytes = 0;
  for (std::size_t kind = 0; kind < kv.kinds.size(); ++kind)
    if (kv.kinds[kind].place == place) bytes += kv.pages(kind, context, rows) * kv.page_bytes(kind);
  return bytes;
}

std::uint64_t kv_cache_pages(const KvGeometry& kv, Place place, std::uint32_t context, std::uint32_t rows) {
  std::uint64_t pages = 0;
  for (std::size_t kind = 0; kind < kv.kinds.size(); ++kind)
    if (kv.kinds[kind].place == place) pages += kv.pages(kind, context, rows);
  return pages;
}

namespace {

// What does not need the checkpoint: the backend, the budget, and options that cannot be.
Result<OpenedHeaders> check_options(const Runtime& runtime, const ModelOptions& model,
                                    std::uint32_t sessions) {
  if (model.prefill_rows > kMostRows)
    return Status(Code::argument,
                  concat("prefill_rows: expected at most ", kMostRows, ", found ", model.prefill_rows));
  if (sessions < 1 || sessions > kMostSessions)
    return Status(Code::argument, concat("sessions: expected 1 to ", kMostSessions, ", found ", sessions));
  OpenedHeaders opened;
  NIB_ASSIGN(opened.backend, runtime.backend(model.backend));
  opened.budget = model.host_budget ? model.host_budget : runtime.machine().memory;
  return opened;
}

// From opened.checkpoint to everything else.
Status understand(OpenedHeaders& opened, const ModelOptions& model, const SessionOptions& session,
                  std::uint32_t sessions) {
  NIB_ASSIGN(opened.config, read_config(opened.checkpoint));
  const ModelConfig& config = opened.config;
  opened.context = session.context ? session.context : std::min(kDefaultContext, config.max_context);
  if (opened.context > config.max_context)
    return Status(Code::argument, concat("context: ", opened.context, " positions asked for, but ",
                                         opened.checkpoint.path, " was made for ", config.max_context));
  opened.rows =
      std::max(sessions, std::min(model.prefill_rows ? model.prefill_rows : kDefaultRows, opened.context));
  opened.logit_rows = std::max(sessions, std::min(model.logit_rows, opened.rows));
  opened.placement = model.placement.uses_device()
                         ? model.placement
                         : Placement::of_last(config.layers, model.device_layers, model.host_experts);
  opened.placement.may_be_fast = opened.placement.may_be_fast || model.may_be_fast;
  if (opened.placement.uses_device() && model.numerics != Numerics::bf16)
    return Status(Code::unsupported,
                  concat(opened.checkpoint.path, ": ", numerics_name(model.numerics),
                         " numerics are not those of a device, which computes under bf16 alone"));
  NIB_ASSIGN(opened.weights,
             WeightLayout::make(opened.checkpoint, config, opened.placement, model.expert_cache_bytes));
  if (model.numerics == Numerics::int8 && !model.allow_fallback)
    NIB_TRY(opened.weights->check_int8(opened.checkpoint, *opened.backend));
  opened.kv = KvGeometry::make(config, resolve(model.kv_format, model.numerics), opened.placement);
  return {};
}

}  // namespace

Result<OpenedHeaders> open_headers(const Runtime& runtime, std::string_view path, const ModelOptions& model,
                                   const SessionOptions& session, std::uint32_t sessions) {
  NIB_ASSIGN(OpenedHeaders opened, check_options(runtime, model, sessions));
  const FileSystem& files = model.files ? *model.files : disk_file_system();
  if (model.vocabulary_only) {
    NIB_ASSIGN(opened.checkpoint, open_vocabulary(std::string(path), files));
    return opened;
  }
  NIB_ASSIGN(opened.checkpoint, open_checkpoint(std::string(path), files));
  NIB_TRY(understand(opened, model, session, sessions));
  return opened;
}

std::uint64_t Plan::bytes(Purpose purpose, Place place) const {
  std::uint64_t total = 0;
  for (const PlanItem& item : items)
    if (item.purpose == purpose && (item.device == kHost) == (place == Place::host)) total += item.bytes;
  return total;
}

PredictedRates Plan::predict(const MachineRates& rates) const {
  PredictedRates predicted;
  if (summary.device_bytes > 0) return predicted;
  if (summary.decode_bytes)
    predicted.decode_tokens_per_second =
        rates.read_bytes_per_second / static_cast<double>(summary.decode_bytes);
  if (summary.prefill_flops)
    predicted.prefill_tokens_per_second =
        rates.dot_flops_per_second / static_cast<double>(summary.prefill_flops);
  return predicted;
}

namespace {

Plan plan_of(const Runtime& runtime, const OpenedHeaders& opened, std::string_view path,
             const ModelOptions& model, const SessionOptions& session, std::uint32_t sessions) {
  Plan plan;
  plan.path = path;
  plan.model = model;
  plan.session = session;
  plan.session.context = opened.context;
  plan.sessions = sessions;
  plan.summary.host_budget = opened.budget;
  plan.summary.device_budget = model.device_budget;
  plan.summary.fits = true;
  if (model.vocabulary_only) return plan;

  const ModelConfig& config = opened.config;
  const WeightLayout& weights = *opened.weights;
  const int threads = runtime.pool().threads();
  const std::string device = concat("cuda:", model.device);
  const auto add = [&](Purpose purpose, std::string name, std::uint64_t bytes, Place place = Place::host) {
    const bool on_device = place == Place::device;
    plan.items.push_back({on_device ? device : kHost, purpose, std::move(name), bytes});
    (on_device ? plan.summary.device_bytes : plan.summary.host_bytes) += bytes;
  };
  std::uint64_t named[kPlaces] = {};
  PlanSummary& summary = plan.summary;
  for (const WeightGroup& group : weights.groups()) {
    add(Purpose::weights, group.name, group.bytes, group.place);
    plan.items.back().stored_bytes = group.stored_bytes;
    summary.stored_bytes += group.stored_bytes;
    summary.parameters += group.parameters;
    named[static_cast<int>(group.place)] += group.bytes;
    summary.decode_bytes += group.decode_bytes;
    summary.prefill_flops += 2 * group.active_parameters;
  }
  for (const Place place : {Place::host, Place::device}) {
    const std::uint64_t some = named[static_cast<int>(place)],
                        all = weights.bytes(place) + (place == Place::host ? weights.locked_bytes() : 0);
    if (all > some) add(Purpose::weights, "alignment", all - some, place);
  }
  add(Purpose::staging, "buffers for reading (while loading)", weights.staging_bytes(threads));
  for (std::size_t kind = 0; kind < opened.kv.kinds.size(); ++kind) {
    const LayerKind& layers = opened.kv.kinds[kind];
    const std::string_view plural = layers.layers == 1 ? "" : "s";
    const std::string what =
        layers.window
            ? concat("keys and values, ", layers.layers, " layer", plural, " of window ", layers.window)
            : concat("keys and values, ", layers.layers, " full layer", plural);
    add(Purpose::kv_cache, what,
        opened.kv.pages(kind, opened.context, opened.rows) * opened.kv.page_bytes(kind) * sessions,
        layers.place);
    if (!layers.window) summary.kv_bytes_per_token += opened.kv.page_bytes(kind) / kPagePositions;
  }
  add(Purpose::activations, "activations", Workspace::bytes(config, opened.rows, opened.logit_rows, threads));
  add(Purpose::activations, "logits of sessions", logit_bytes(config) * sessions);
  // There with room for the addresses of the cache's pages.
  const auto device_workspace = [&](std::uint32_t context) {
    return DeviceWorkspace::bytes(config, opened.kv, opened.rows, opened.logit_rows,
                                  kv_cache_pages(opened.kv, Place::device, context, opened.rows) * sessions);
  };
  if (opened.placement.uses_device())
    add(Purpose::activations, "activations", device_workspace(opened.context), Place::device);

  summary.context = opened.context;
  // What grows with the context, for so many positions in place of those that were planned.
  const auto growing = [&](Place place, std::uint32_t context) {
    return kv_cache_bytes(opened.kv, place, context, opened.rows) * sessions +
           (place == Place::device ? device_workspace(context) : 0);
  };
  const auto fits = [&](std::uint32_t context) {
    const auto fits_in = [&](Place place, std::uint64_t bytes, std::uint64_t budget) {
      const std::uint64_t others = bytes - growing(place, opened.context);
      return others <= budget && growing(place, context) <= budget - others;
    };
    return fits_in(Place::host, summary.host_bytes, opened.budget) &&
           (!summary.device_bytes || !summary.device_budget ||
            fits_in(Place::device, summary.device_bytes, summary.device_budget));
  };
  summary.fits = fits(opened.context);
  std::uint32_t low = 0, high = config.max_context;  // the largest context that fits lies in [low, high]
  while (low < high) {
    const std::uint32_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  summary.longest_context = low;
  return plan;
}

}  // namespace

Result<Plan> make_plan(const Runtime& runtime, std::string_view path, const ModelOptions& model,
                       const SessionOptions& session, std::uint32_t sessions) {
  NIB_TRY(validate(session.sampler));
  NIB_ASSIGN(const OpenedHeaders opened, open_headers(runtime, path, model, session, sessions));
  return plan_of(runtime, opened, path, model, session, sessions);
}

Result<Plan> make_plan_of_config(const Runtime& runtime, const Json& config, std::string_view name,
                                 const ModelOptions& model, const SessionOptions& session,
                                 std::uint32_t sessions) {
  NIB_TRY(validate(session.sampler));
  NIB_ASSIGN(OpenedHeaders opened, check_options(runtime, model, sessions));
  NIB_ASSIGN(opened.checkpoint, outline_checkpoint(config, std::string(name)));
  NIB_TRY(understand(opened, model, session, sessions));
  return plan_of(runtime, opened, name, model, session, sessions);
}

}  // namespace nib::inline v0
