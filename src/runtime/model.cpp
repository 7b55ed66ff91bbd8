#include "explain.hpp"
#include "opened.hpp"
#include "state.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/runtime/vocabulary.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

// A number of generation_config.json, or what it was before.
float number(const Json& config, std::string_view key, float otherwise) {
  const Json* value = config.find(key);
  return value && value->is_number() ? static_cast<float>(value->as_double()) : otherwise;
}

Result<ModelDefaults> read_defaults(const Checkpoint& checkpoint) {
  ModelDefaults defaults;
  NIB_ASSIGN(defaults.stop_ids, read_stop_ids(checkpoint));
  if (checkpoint.chat_template) defaults.chat_template = *checkpoint.chat_template;
  if (checkpoint.gguf)
    if (const auto bos = checkpoint.gguf->find("tokenizer.ggml.bos_token_id"))
      if (const auto id = bos->as_unsigned(); id && *id <= UINT32_MAX) defaults.bos = static_cast<Token>(*id);
  if (!checkpoint.generation_config) return defaults;
  const Json& json = *checkpoint.generation_config;
  const std::string name = join_path(checkpoint.directory, "generation_config.json");
  if (const Json* bos = json.find("bos_token_id"); bos && bos->is_integer() && bos->as_integer() >= 0)
    defaults.bos = static_cast<Token>(bos->as_integer());
  SamplerOptions& sampler = defaults.sampler;
  const Json* do_sample = json.find("do_sample");
  sampler.greedy = do_sample && do_sample->is_bool() && !do_sample->as_bool();
  sampler.temperature = number(json, "temperature", sampler.temperature);
  sampler.top_p = number(json, "top_p", sampler.top_p);
  sampler.min_p = number(json, "min_p", sampler.min_p);
  sampler.repetition_penalty = number(json, "repetition_penalty", sampler.repetition_penalty);
  if (const Json* top_k = json.find("top_k"); top_k && top_k->is_integer() && top_k->as_integer() > 0)
    sampler.top_k = static_cast<std::uint32_t>(std::min<std::int64_t>(top_k->as_integer(), UINT32_MAX));
  if (Status status = validate(sampler); !status.ok())
    return Status(Code::format, concat(name, ": ", status.message()));
  return defaults;
}

// The device of the plan, which has room for it.
Result<std::unique_ptr<Device>> open_device(const Runtime& runtime, const Plan& plan) {
  Result<std::unique_ptr<Device>> device = runtime.open_device(plan.model.device);
  if (!device.ok())
    return Status(device.status().code(),
                  concat(plan.path, ": is placed on a device: ", device.status().message()));
  NIB_ASSIGN(const std::uint64_t free, (*device)->free_memory());
  if (plan.summary.device_bytes > free)
    return Status(Code::device_memory,
                  concat(plan.path, ": needs ", plan.summary.device_bytes, " bytes of the memory of ",
                         (*device)->facts().name, ", but ", free, " are free; fewer layers there need less"));
  return device;
}

}  // namespace

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;
const ModelInfo& Model::info() const { return state_->info; }
const ModelDefaults& Model::defaults() const { return state_->defaults; }
const Tokenizer* Model::tokenizer() const { return state_->tokenizer ? &*state_->tokenizer : nullptr; }
const Memory& Model::memory() const { return state_->memory; }
const Memory* Model::device_memory() const {
  return state_->device_memory ? &*state_->device_memory : nullptr;
}
std::span<const ExplainItem> Model::explain() const { return state_->explained; }
const std::shared_ptr<Runtime>& Model::runtime() const { return state_->runtime; }

void Model::time_ops(OpTimes* times) {
  const std::lock_guard lock(state_->forward);
  if (state_->transformer) state_->transformer->time_ops(times);
}

Result<std::shared_ptr<Model>> Model::open(std::shared_ptr<Runtime> runtime, std::string_view path,
                                           const ModelOptions& options, const SessionOptions& session) {
  NIB_ASSIGN(const Plan plan, make_plan(*runtime, path, options, session));
  return open(std::move(runtime), plan);
}

Result<std::shared_ptr<Model>> Model::open(std::shared_ptr<Runtime> runtime, const Plan& plan) {
  const PlanSummary& summary = plan.summary;
  if (summary.device_budget && summary.device_bytes > summary.device_budget)
    return Status(Code::budget,
                  concat(plan.path, ": needs ", summary.device_bytes, " bytes of the device's memory, but ",
                         summary.device_budget, " are allowed; fewer layers there need less"));
  if (!summary.fits)
    return Status(Code::budget,
                  concat(plan.path, ": needs ", plan.summary.host_bytes, " bytes of memory, but ",
                         plan.summary.host_budget, " are allowed; the longest context that fits is ",
                         plan.summary.longest_context));
  const FileSystem& files = plan.model.files ? *plan.model.files : disk_file_system();
  NIB_ASSIGN(OpenedHeaders opened,
             open_headers(*runtime, plan.path, plan.model, plan.session, plan.sessions));
  auto state = std::make_unique<State>(runtime);
  state->plan = plan;
  state->config = std::move(opened.config);
  state->rows = opened.rows;
  NIB_ASSIGN(state->tokenizer, read_tokenizer(opened.checkpoint, state->config.vocabulary, files));
  NIB_ASSIGN(state->defaults, read_defaults(opened.checkpoint));
  if (state->tokenizer)
    state->defaults.special_tokens = read_special_names(opened.checkpoint, *state->tokenizer);
  ModelInfo& info = state->info;
  info.path = plan.path;
  info.backend = opened.backend->name;
  state->backend = opened.backend;
  info.numerics = plan.model.numerics;
  info.kv_format = resolve(plan.model.kv_format, plan.model.numerics);
  if (plan.model.vocabulary_only) {
    if (!state->tokenizer) return Status(Code::not_found, concat(plan.path, ": there is no tokenizer"));
    return std::shared_ptr<Model>(new Model(std::move(state)));
  }

  const ModelConfig& config = state->config;
  info.architecture = config.architecture->name;
  info.layers = config.layers;
  info.hidden = config.hidden;
  info.vocabulary = config.vocabulary;
  info.experts = config.routed ? config.experts : 0;
  info.experts_per_token = config.routed ? config.experts_per_token : 0;
  info.max_context = config.max_context;
  info.parameters = plan.summary.parameters;
  info.decode_bytes = plan.summary.decode_bytes;
  info.prefill_flops = plan.summary.prefill_flops;

  if (opened.placement.uses_device()) {
    NIB_ASSIGN(state->device, open_device(*runtime, plan));
    state->device_memory.emplace(state->device->allocator());
    info.device = state->device->facts().name;
  }
  for (const Purpose purpose :
       {Purpose::weights, Purpose::kv_cache, Purpose::activations, Purpose::staging}) {
    state->memory.set_ceiling(purpose, plan.bytes(purpose));
    if (state->device_memory) state->device_memory->set_ceiling(purpose, plan.bytes(purpose, Place::device));
  }
  Pool& pool = runtime->pool();
  const DeviceMemory device{state->device.get(), state->device_memory ? &*state->device_memory : nullptr};
  NIB_ASSIGN(state->weights,
             opened.weights->load(opened.checkpoint, config, *opened.backend, plan.model.numerics,
                                  state->memory, pool, plan.model.progress, plan.model.cancel, device));
  const bool is_fast = device.device && opened.placement.may_be_fast && device.device->facts().fast != 0;
  state->explained = nib::explain(opened.weights->parts(config, state->weights), plan, *opened.backend,
                                  info.kv_format, is_fast);
  state->kv = std::move(opened.kv);
  for (std::size_t kind = 0; kind < state->kv.kinds.size(); ++kind) {
    const bool there = state->kv.kinds[kind].place == Place::device;
    state->pools.push_back(std::make_unique<PagePool>(
        there ? *device.memory : state->memory, state->kv.page_bytes(kind), there ? device.device : nullptr));
  }
  NIB_ASSIGN(state->workspace,
             Workspace::make(config, state->rows, opened.logit_rows, pool.threads(), state->memory));
  if (device.device) {
    const std::uint64_t pages =
        kv_cache_pages(state->kv, Place::device, opened.context, opened.rows) * plan.sessions;
    NIB_ASSIGN(state->workspace.on_device,
               DeviceWorkspace::make(*device.device, config, state->kv, state->rows, opened.logit_rows, pages,
                                     *device.memory));
  }
  state->transformer.emplace(config, state->weights, state->kv, *opened.backend, plan.model.numerics, pool,
                             opened.placement, device.device);
  return std::shared_ptr<Model>(new Model(std::move(state)));
}

}  // namespace nib::inline v0
