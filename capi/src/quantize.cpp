// Room capi: nib_quantize.
#include "handles.hpp"
#include "versioned.hpp"
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/prepare.hpp>
#include <nibble/model/quantize.hpp>

#include <memory>
#include <string>
#include <string_view>

static_assert(NIB_SCALE_RULE_USUAL == static_cast<int>(nib::ScaleRule::usual));
static_assert(NIB_SCALE_RULE_FLOOR == static_cast<int>(nib::ScaleRule::floor));
static_assert(NIB_SCALE_RULE_ROUND_UP == static_cast<int>(nib::ScaleRule::round_up));
static_assert(NIB_SCALE_RULE_LEAST_ERROR == static_cast<int>(nib::ScaleRule::least_error));

namespace nib::capi {
namespace {

// A caller's nib_quantize_options. `options` points to the other members: stay in place.
struct QuantizeRequest {
  QuantizeOptions options;
  std::shared_ptr<Cancel> cancel;  // the caller may free his while the call is at work
  ProgressCall progress;

  // Errors: argument, version.
  Status read(const nib_quantize_options* options_given);
  bool prepare() const { return !options.format; }
};

Status QuantizeRequest::read(const nib_quantize_options* options_given) {
  nib_quantize_options given;
  NIB_TRY(read_struct(options_given, "nib_quantize_options", given));
  NIB_TRY(check_flags(given.flags, NIB_QUANTIZE_OVERWRITE | NIB_QUANTIZE_PREPARE, "nib_quantize_options"));
  NIB_TRY(check_reserved(given.reserved, "nib_quantize_options"));
  NIB_ASSIGN(const std::string_view name, read_text(given.format, given.format_size, "format"));
  const bool prepare = (given.flags & NIB_QUANTIZE_PREPARE) != 0;
  if (prepare && (!name.empty() || given.scale_rule != NIB_SCALE_RULE_USUAL || given.choose))
    return {Code::argument,
            "NIB_QUANTIZE_PREPARE keeps every format; format, scale_rule and choose must not be given"};
  options.format = find_target_format(name);
  if (!options.format && !prepare)
    return {Code::argument, concat("format is \"", name, "\", expected a name from nib_quantize_get_target")};
  if (given.scale_rule > NIB_SCALE_RULE_LEAST_ERROR)
    return {Code::argument,
            concat("scale_rule is ", given.scale_rule, ", expected a NIB_SCALE_RULE_ value up to ",
                   static_cast<int>(NIB_SCALE_RULE_LEAST_ERROR))};
  options.scale_rule = static_cast<ScaleRule>(given.scale_rule);
  if (given.choose)
    options.only = [choose = given.choose, user = given.choose_user](std::string_view tensor) {
      return choose(user, tensor.data(), tensor.size()) != 0;
    };
  options.overwrite = given.flags & NIB_QUANTIZE_OVERWRITE ? Overwrite::yes : Overwrite::no;
  if (given.most_shard_bytes) options.most_shard_bytes = given.most_shard_bytes;
  progress = {given.on_progress, given.on_progress_user};
  options.progress = progress.sink();
  if (given.cancel) cancel = given.cancel->shared;
  options.cancel = cancel.get();
  return {};
}

void give(const QuantizeReport& report, nib_quantize_report* out) {
  nib_quantize_report value = NIB_QUANTIZE_REPORT_INIT;
  value.notes = static_cast<std::uint32_t>(report.notes.size());
  value.tensors = report.tensors;
  value.quantized = report.quantized;
  value.weights = report.weights;
  value.weight_bytes = report.weight_bytes;
  value.bytes_before = report.bytes_before;
  value.bytes_after = report.bytes_after;
  value.signal = report.signal;
  value.noise = report.noise;
  write_struct(value, out);
}

// Of a model that was prepared.
void give(const PrepareReport& report, const Checkpoint& checkpoint, nib_quantize_report* out) {
  QuantizeReport as;
  as.tensors = report.matrices + report.others;
  for (const CheckpointTensor& tensor : checkpoint.tensors) as.bytes_before += stored_bytes(tensor);
  as.bytes_after = report.bytes;
  give(as, out);
}

}  // namespace
}  // namespace nib::capi

using namespace nib;
using namespace nib::capi;

extern "C" {

nib_status nib_quantize_get_target(uint32_t index, nib_target_info* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(check_output(out, "nib_target_info"));
    const auto formats = target_formats();
    if (index >= formats.size()) return {Code::end, ""};
    const TargetFormat& format = formats[index];
    nib_target_info value = NIB_TARGET_INFO_INIT;
    if (format.safetensors != Format::none) value.flags |= NIB_TARGET_SAFETENSORS;
    if (format.gguf != Format::none) value.flags |= NIB_TARGET_GGUF;
    if (format.has_rules) value.flags |= NIB_TARGET_HAS_RULES;
    value.name = format.name;
    value.name_size = std::string_view(format.name).size();
    value.meaning = format.meaning;
    value.meaning_size = std::string_view(format.meaning).size();
    write_struct(value, out);
    return {};
  });
}

nib_status nib_quantize(nib_runtime* runtime, const char* path, size_t path_size, const char* target,
                        size_t target_size, const nib_quantize_options* options, nib_quantize_report* out,
                        nib_error* error) {
  return guard(error, [&]() -> Status {
    NIB_TRY(usable_here(runtime, "runtime"));
    if (out) NIB_TRY(check_output(out, "nib_quantize_report"));
    NIB_ASSIGN(const std::string_view from, read_path(path, path_size));
    NIB_ASSIGN(const std::string_view to, read_path(target, target_size));
    QuantizeRequest request;
    NIB_TRY(request.read(options));
    NIB_ASSIGN(const Checkpoint checkpoint, open_checkpoint(std::string(from)));
    const Host& host = *runtime->host;
    Pool& pool = host.runtime->pool();
    if (request.prepare()) {
      const QuantizeOptions& with = request.options;
      NIB_ASSIGN(const PrepareReport report,
                 prepare_checkpoint(checkpoint, std::string(to), {with.overwrite, with.progress, with.cancel},
                                    pool));
      if (out) give(report, checkpoint, out);
      return {};
    }
    NIB_ASSIGN(const QuantizeReport report,
               quantize_checkpoint(checkpoint, std::string(to), request.options, pool));
    for (const std::string& note : report.notes) host.log(NIB_LOG_WARNING, note);
    if (out) give(report, out);
    return {};
  });
}

}  // extern "C"
