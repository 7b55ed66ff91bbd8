// nibble inspect: what a model holds and whether it fits, from headers alone.
#include "exit_code.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "paths.hpp"
#include "plan_report.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/config.hpp>
#include <nibble/runtime/session.hpp>
#include <nibble/text/harmony.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

namespace nib::program {
namespace {

// Everything that could be found out. A model that nibble cannot run is still shown as far as it can be read.
struct Findings {
  Checkpoint checkpoint;
  std::optional<ModelConfig> config;
  std::shared_ptr<Model> vocabulary;  // null without a readable tokenizer
  std::optional<Plan> plan;
  std::string backend;
  std::string chat_format;  // "harmony", "Jinja"; empty without a chat template
  Status trouble;           // the first reason why something above is missing

  // A vocabulary alone is whole without weights and without an architecture that can be run.
  bool has_weights() const { return !checkpoint.tensors.empty(); }
  bool has_tokenizer() const {
    return checkpoint.tokenizer_path || (checkpoint.gguf && checkpoint.gguf->find("tokenizer.ggml.model"));
  }
};

// Messages in the format for which the vocabulary has its own tokens, or by the template that comes along.
std::string chat_format(const Model& vocabulary) {
  if (Harmony::make(*vocabulary.tokenizer()).ok()) return "harmony";
  return vocabulary.defaults().chat_template.empty() ? "" : "Jinja";
}

// With weights, else a vocabulary alone.
Result<Checkpoint> open_anything(const std::string& path) {
  auto whole = open_checkpoint(path);
  if (whole.ok() || whole.status().code() != Code::not_found) return whole;
  auto part = open_checkpoint(path, disk_file_system(), {.config = false, .weights = false});
  return part.ok() && (part->tokenizer_path || part->gguf) ? std::move(part) : std::move(whole);
}

std::uint64_t parameters(const CheckpointTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::uint64_t{1}, std::multiplies<>());
}

double bits_per_weight(std::uint64_t bytes, std::uint64_t count) {
  return count ? 8.0 * static_cast<double>(bytes) / static_cast<double>(count) : 0;
}

// As users write it: a weight format, or what the file calls the type of a tensor that is no weight.
std::string stored_as(const CheckpointTensor& tensor) {
  if (tensor.format == Format::none) return std::string(tensor.type_name);
  return concat(format_name(tensor.format), tensor.scaling.nested_scales.bytes ? "-double" : "");
}

// All tensors of one format together.
struct Stored {
  std::uint64_t tensors = 0, parameters = 0, bytes = 0;
};
std::map<std::string, Stored> by_format(const Checkpoint& checkpoint) {
  std::map<std::string, Stored> groups;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    Stored& group = groups[stored_as(tensor)];
    ++group.tensors;
    group.parameters += parameters(tensor);
    group.bytes += stored_bytes(tensor);
  }
  return groups;
}
Stored all_tensors(const Checkpoint& checkpoint) {
  Stored all;
  for (const auto& [format, group] : by_format(checkpoint)) {
    all.tensors += group.tensors;
    all.parameters += group.parameters;
    all.bytes += group.bytes;
  }
  return all;
}

Result<Findings> look_into(const std::string& path, const InspectFlags& flags) {
  Findings findings;
  const auto note = [&](const Status& status) {
    if (findings.trouble.ok()) findings.trouble = status;
  };
  NIB_ASSIGN(const auto runtime, Runtime::create({.threads = flags.model.threads}));
  NIB_ASSIGN(const Backend* backend, runtime->backend(flags.model.backend));
  for (const BackendInfo& info : runtime->backends())
    if (info.backend == backend) findings.backend = info.name;
  NIB_ASSIGN(findings.checkpoint, open_anything(path));

  ModelOptions options = model_options(flags.model);
  if (auto config = read_config(findings.checkpoint); config.ok())
    findings.config = config.take();
  else if (findings.has_weights())
    note(config.status());
  if (findings.has_weights()) {
    if (auto plan = make_plan(*runtime, path, options, {.context = flags.model.context}); plan.ok())
      findings.plan = plan.take();
    else
      note(plan.status());
  }
  options.vocabulary_only = true;
  if (findings.has_tokenizer()) {
    if (auto model = Model::open(runtime, path, options); model.ok())
      findings.vocabulary = model.take();
    else
      note(model.status());
  }
  if (findings.vocabulary) findings.chat_format = chat_format(*findings.vocabulary);
  return findings;
}

// ---- for people

std::string window_text(const ModelConfig& config) {
  const auto windowed =
      std::count_if(config.windows.begin(), config.windows.end(), [](auto w) { return w > 0; });
  if (windowed == 0) return "";
  return concat(", window ", *std::max_element(config.windows.begin(), config.windows.end()), " on ",
                windowed, " of them");
}

std::string sampler_text(const SamplerOptions& sampler) {
  if (sampler.greedy) return "the likeliest token";
  std::string text = concat("temperature ", sampler.temperature);
  if (sampler.top_k) text += concat(", top-k ", sampler.top_k);
  if (sampler.top_p < 1) text += concat(", top-p ", sampler.top_p);
  if (sampler.min_p > 0) text += concat(", min-p ", sampler.min_p);
  return text;
}

std::string stops_text(const Model& vocabulary) {
  std::string text;
  for (const Token id : vocabulary.defaults().stop_ids) {
    const std::string_view spelling = vocabulary.tokenizer()->bytes(id);
    text += concat(text.empty() ? "" : " ", spelling.empty() ? concat(id) : std::string(spelling));
  }
  return text.empty() ? "none" : text;
}

// As nibble calls it, else as the model's own files do; empty when they say nothing.
std::string architecture(const Findings& findings) {
  if (findings.config) return std::string(findings.config->architecture->name);
  const Checkpoint& checkpoint = findings.checkpoint;
  if (checkpoint.gguf)
    if (const auto value = checkpoint.gguf->find("general.architecture"))
      return std::string(value->as_string().value_or(""));
  const Json* type = checkpoint.config.find("model_type");
  return type && type->is_string() ? type->as_string() : "";
}

std::string counted(std::uint64_t count, std::string_view what) {
  return concat(count, " ", what, count == 1 ? "" : "s");
}

void describe_config(const ModelConfig& config, Table& table) {
  table.row({"layers", concat(config.layers, ", hidden size ", config.hidden, window_text(config))});
  table.row({"attention", concat(counted(config.heads, "query head"), ", ",
                                 counted(config.kv_heads, "key/value head"), " of ", config.head_dim)});
  if (config.routed)
    table.row({"experts", concat(config.experts, " in a layer, ", config.experts_per_token,
                                 " for each token, width ", config.expert_width)});
  else
    table.row({"feed-forward", concat("width ", config.expert_width)});
  table.row({"context", concat("up to ", config.max_context, " tokens")});
}

void describe_vocabulary(const Findings& findings, Table& table) {
  if (!findings.vocabulary) {
    if (!findings.has_tokenizer()) table.row({"tokenizer", "none"});
    return;
  }
  const Model& vocabulary = *findings.vocabulary;
  table.row(
      {"tokenizer", concat(vocabulary.tokenizer()->size(), " tokens, ", vocabulary.tokenizer()->kind())});
  const std::size_t size = vocabulary.defaults().chat_template.size();
  std::string chat = findings.chat_format.empty() ? "no template" : findings.chat_format;
  if (size)
    chat += concat(findings.chat_format == "Jinja" ? "" : ", and a Jinja template", " of ", size, " bytes");
  table.row({"chat", chat});
  table.row({"sampling", sampler_text(vocabulary.defaults().sampler)});
  table.row({"ends with", stops_text(vocabulary)});
}

std::string container(const Checkpoint& checkpoint) {
  if (checkpoint.prepared) return concat("prepared in layout ", checkpoint.prepared->layout);
  return checkpoint.gguf ? "GGUF" : "safetensors";
}

void describe_model(const Findings& findings, Table& table) {
  const Stored all = all_tensors(findings.checkpoint);
  table.row({"path", findings.checkpoint.path});
  std::string model = architecture(findings);
  if (model.empty())
    model = "unknown architecture";
  else if (!findings.config)
    model += " (not supported)";
  if (findings.has_weights())
    model += concat(", ", count_text(all.parameters), " parameters, ", bytes_text(all.bytes), " in ",
                    counted(all.tensors, "tensor"), ", ", container(findings.checkpoint));
  else
    model += ", a vocabulary alone: there are no weights";
  table.row({"model", model});
  if (findings.config) describe_config(*findings.config, table);
  describe_vocabulary(findings, table);
}

std::string bits_text(std::uint64_t bytes, std::uint64_t count) {
  return count ? number_text(bits_per_weight(bytes, count)) : "";
}

std::string tensors_text(const Findings& findings, bool every) {
  Table table(every ? "llrrr" : "lrrrr");
  if (every) {
    table.row({"tensor", "format", "shape", "size", "bits per weight"});
    for (const CheckpointTensor& tensor : findings.checkpoint.tensors)
      table.row({tensor.name, stored_as(tensor), shape_text(tensor.shape), bytes_text(stored_bytes(tensor)),
                 bits_text(stored_bytes(tensor), parameters(tensor))});
    return table.text();
  }
  table.row({"stored as", "tensors", "parameters", "size", "bits per weight"});
  for (const auto& [format, group] : by_format(findings.checkpoint))
    table.row({format, concat(group.tensors), count_text(group.parameters), bytes_text(group.bytes),
               bits_text(group.bytes, group.parameters)});
  return table.text();
}

std::string text_report(const Findings& findings, bool every_tensor) {
  Table model("ll");
  describe_model(findings, model);
  std::string text = model.text();
  if (findings.has_weights()) text += "\n" + tensors_text(findings, every_tensor);
  if (findings.plan) text += "\n" + plan_text(*findings.plan, findings.backend);
  return text;
}

// ---- for programs: keys are part of what the command line promises

Json config_json(const ModelConfig& config) {
  std::vector<Json> windows;
  for (const std::uint32_t window : config.windows) windows.push_back(json(window));
  return Json::object({{"architecture", json(config.architecture->name)},
                       {"layers", json(config.layers)},
                       {"hidden", json(config.hidden)},
                       {"vocabulary", json(config.vocabulary)},
                       {"heads", json(config.heads)},
                       {"kv_heads", json(config.kv_heads)},
                       {"head_dim", json(config.head_dim)},
                       {"experts", json(config.experts)},
                       {"experts_per_token", json(config.experts_per_token)},
                       {"routed", json(config.routed)},
                       {"expert_width", json(config.expert_width)},
                       {"max_context", json(config.max_context)},
                       {"windows", Json::array(std::move(windows))}});
}

Json vocabulary_json(const Findings& findings) {
  const Model& vocabulary = *findings.vocabulary;
  const ModelDefaults& defaults = vocabulary.defaults();
  std::vector<Json> stops;
  for (const Token id : defaults.stop_ids) stops.push_back(json(id));
  return Json::object(
      {{"tokens", json(vocabulary.tokenizer()->size())},
       {"kind", json(vocabulary.tokenizer()->kind())},
       {"chat_format", findings.chat_format.empty() ? Json() : json(findings.chat_format)},
       {"chat_template", json(!defaults.chat_template.empty())},
       {"stop_ids", Json::array(std::move(stops))},
       {"bos_id", defaults.bos ? json(*defaults.bos) : Json()},
       {"sampling", Json::object({{"greedy", json(defaults.sampler.greedy)},
                                  {"temperature", json(double{defaults.sampler.temperature})},
                                  {"top_k", json(defaults.sampler.top_k)},
                                  {"top_p", json(double{defaults.sampler.top_p})},
                                  {"min_p", json(double{defaults.sampler.min_p})},
                                  {"repeat_penalty", json(double{defaults.sampler.repetition_penalty})}})}});
}

Json stored_json(std::string_view format, const Stored& stored) {
  return Json::object({{"format", json(format)},
                       {"tensors", json(stored.tensors)},
                       {"parameters", json(stored.parameters)},
                       {"bytes", json(stored.bytes)},
                       {"bits_per_weight", json(bits_per_weight(stored.bytes, stored.parameters))}});
}

Json tensor_json(const CheckpointTensor& tensor) {
  std::vector<Json> shape;
  for (const std::uint64_t extent : tensor.shape) shape.push_back(json(extent));
  return Json::object({{"name", json(tensor.name)},
                       {"format", json(stored_as(tensor))},
                       {"shape", Json::array(std::move(shape))},
                       {"bytes", json(stored_bytes(tensor))},
                       {"bits_per_weight", json(bits_per_weight(stored_bytes(tensor), parameters(tensor)))}});
}

std::string json_report(const Findings& findings, bool every_tensor) {
  const Stored all = all_tensors(findings.checkpoint);
  std::vector<Json> formats, tensors;
  for (const auto& [format, group] : by_format(findings.checkpoint))
    formats.push_back(stored_json(format, group));
  if (every_tensor)
    for (const CheckpointTensor& tensor : findings.checkpoint.tensors) tensors.push_back(tensor_json(tensor));
  std::vector<Json::Member> members;
  members.emplace_back("path", json(findings.checkpoint.path));
  const std::string name = architecture(findings);
  members.emplace_back("architecture", name.empty() ? Json() : json(name));
  members.emplace_back("container", json(findings.checkpoint.prepared ? "prepared"
                                         : findings.checkpoint.gguf   ? "gguf"
                                                                      : "safetensors"));
  members.emplace_back("weights", json(findings.has_weights()));
  members.emplace_back("parameters", json(all.parameters));
  members.emplace_back("bytes", json(all.bytes));
  members.emplace_back("config", findings.config ? config_json(*findings.config) : Json());
  members.emplace_back("tokenizer", findings.vocabulary ? vocabulary_json(findings) : Json());
  members.emplace_back("formats", Json::array(std::move(formats)));
  if (every_tensor) members.emplace_back("tensors", Json::array(std::move(tensors)));
  members.emplace_back("plan",
                       findings.plan ? Json::object(plan_members(*findings.plan, findings.backend)) : Json());
  members.emplace_back("error", findings.trouble.ok() ? Json() : json(findings.trouble.message()));
  return write_json(Json::object(std::move(members)), true) + "\n";
}

}  // namespace

int inspect(const InspectFlags& flags) {
  auto found = find_model(flags.model.model);
  if (!found.ok()) return fail(found.status(), advice_about(flags.model.model));
  auto findings = look_into(found->path, flags);
  if (!findings.ok()) return fail(findings.status());
  const Status written =
      put(flags.json ? json_report(*findings, flags.tensors) : text_report(*findings, flags.tensors));
  if (!written.ok()) return fail(written);
  return findings->trouble.ok() ? kSuccess : fail(findings->trouble);
}

}  // namespace nib::program
