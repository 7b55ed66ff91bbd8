#include "conversion.hpp"
#include "model_directory.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::int64_t kBitsandbytesBlock = 64;

constexpr TargetFormat kTargets[] = {
    {"mxfp4",
     "OCP MXFP4: 32 values share a power of two",
     Format::mxfp4,
     Format::gguf_mxfp4,
     {},
     false,
     true},
    {"nvfp4", "NVFP4: 16 values share an FP8 scale", Format::nvfp4, Format::none, {}, false, true},
    {"nf4", "bitsandbytes NF4, blocks of 64", Format::nf4, Format::none,
     ScaleSharing::per_run(kBitsandbytesBlock)},
    {"nf4-double", "NF4, its scales quantized too", Format::nf4, Format::none,
     ScaleSharing::per_run(kBitsandbytesBlock), true},
    {"fp4", "bitsandbytes FP4, blocks of 64", Format::bnb_fp4, Format::none,
     ScaleSharing::per_run(kBitsandbytesBlock)},
    {"fp4-double", "FP4, its scales quantized too", Format::bnb_fp4, Format::none,
     ScaleSharing::per_run(kBitsandbytesBlock), true},
    {"llm-int8", "bitsandbytes LLM.int8", Format::llm_int8, Format::none, ScaleSharing::per_row()},
    {"int8", "int8, a scale a row", Format::int8, Format::none, ScaleSharing::per_row()},
    {"fp8", "FP8 E4M3, a scale for 128 x 128", Format::fp8_e4m3, Format::none,
     ScaleSharing::per_tile(128, 128)},
    {"fp8-row", "FP8 E4M3, a scale a row", Format::fp8_e4m3, Format::none, ScaleSharing::per_row()},
    {"fp8-tensor", "FP8 E4M3, a scale a tensor", Format::fp8_e4m3, Format::none, ScaleSharing::per_tensor()},
    {"q4_0", "GGUF's 4 bits", Format::none, Format::q4_0},
    {"q4_1", "4 bits and a minimum", Format::none, Format::q4_1},
    {"q5_0", "5 bits", Format::none, Format::q5_0},
    {"q5_1", "5 bits and a minimum", Format::none, Format::q5_1},
    {"q8_0", "8 bits", Format::none, Format::q8_0},
    {"bf16", "not quantized", Format::bf16, Format::bf16},
    {"f16", "not quantized", Format::f16, Format::f16},
    {"f32", "not quantized", Format::f32, Format::f32},
};

bool is_gguf(const std::string& path) { return path.ends_with(".gguf"); }

Status check(const Checkpoint& checkpoint, const std::string& path, const QuantizeOptions& options) {
  if (!options.format) return {Code::argument, "no format to quantize to was given"};
  const TargetFormat& format = *options.format;
  const Format inside = is_gguf(path) ? format.gguf : format.safetensors;
  if (inside == Format::none)
    return {Code::unsupported,
            concat(path, ": ", is_gguf(path) ? "GGUF files hold" : "safetensors files hold", " no ",
                   format.name, "; give a ", is_gguf(path) ? "directory" : "name that ends in .gguf")};
  if (!has_scale_rule(inside, options.scale_rule))
    return {Code::argument, concat(format.name, " has a scale rule of its own, another cannot be chosen")};
  return check_rewritable(checkpoint, path, !is_gguf(path));
}

}  // namespace

std::span<const TargetFormat> target_formats() { return kTargets; }

const TargetFormat* find_target_format(std::string_view name) {
  for (const TargetFormat& format : kTargets)
    if (format.name == name) return &format;
  return nullptr;
}

bool Conversion::wanted(const WeightPlan& plan, Role role) const {
  if (role == Role::other && !is_plain(format)) return false;
  if (options.only)
    return std::all_of(plan.parts.begin(), plan.parts.end(),
                       [&](const CheckpointTensor* part) { return options.only(part->name); });
  if (is_plain(format)) return true;
  const bool experts_alone = config.routed && (format == Format::mxfp4 || format == Format::gguf_mxfp4);
  return role == Role::experts || (role == Role::matrix && !experts_alone);
}

std::string Conversion::obstacle(const WeightPlan& plan, Role role) const {
  const FormatInfo& info = format_info(format);
  if (plan.columns() % info.group != 0)
    return concat("rows of ", plan.columns(), " values are no whole number of groups of ", info.group);
  if (role == Role::embedding && !is_plain(format) && info.scales != Scales::inside)
    return concat("an embedding cannot be read from ", options.format->name);
  return {};
}

void Conversion::note_kept(const WeightPlan& plan, const std::string& why) {
  const CheckpointTensor& part = *plan.parts[0];
  note(plan, concat(why, ": stays ",
                    part.format == Format::none ? std::string(part.type_name)
                                                : std::string(format_name(part.format))));
}

void Conversion::note(const WeightPlan& plan, const std::string& what) {
  Kept& alike = kept[what];
  if (alike.tensors == 0) alike.first = plan.parts[0]->name;
  if (plan.first_matrix == 0) alike.tensors += plan.parts.size();  // once for a stack that is taken apart
}

void Conversion::finish_notes() {
  for (const auto& [reason, alike] : kept)
    report.notes.push_back(concat(
        "tensor ", alike.first,
        alike.tensors > 1 ? concat(" and ", alike.tensors - 1, " more") : std::string(), ": ", reason));
  kept.clear();
}

Status Conversion::nothing_to_quantize() {
  report.notes.clear();
  finish_notes();
  return {Code::argument,
          concat(checkpoint.path, ": no tensor is left that can become ", options.format->name,
                 report.notes.empty() ? std::string(options.only ? " (none of the names is meant)" : "")
                                      : "; " + report.notes.front())};
}

StreamHooks Conversion::hooks(std::uint64_t bytes, decltype(StreamHooks::write) write) {
  return {std::move(write), [this, bytes](std::int64_t at, std::int64_t of) -> Status {
            if (options.cancel && options.cancel->triggered())
              return {Code::stopped, concat(checkpoint.path, ": stopped while it was being quantized")};
            const double share = of > 0 ? static_cast<double>(at) / static_cast<double>(of) : 0;
            const auto now = done + static_cast<std::uint64_t>(share * static_cast<double>(bytes));
            if (options.progress({Stage::quantize, now, total, checkpoint.path}))
              return {Code::stopped, concat(checkpoint.path, ": stopped while it was being quantized")};
            return {};
          }};
}

Result<Encoded> Conversion::encode(const WeightPlan& plan, const Encoding& how,
                                   decltype(StreamHooks::write) write) {
  RowSource source(checkpoint, plan, pool);
  const StreamHooks with_progress = hooks(plan.stored_bytes(), std::move(write));
  NIB_ASSIGN(const Encoded encoded, encode_weight(source, plan, how, pool, with_progress));
  done += plan.stored_bytes();
  return encoded;
}

Status Conversion::copy(const WeightPlan& plan, Format to, decltype(StreamHooks::write) write) {
  RowSource source(checkpoint, plan, pool);
  const StreamHooks with_progress = hooks(plan.stored_bytes(), std::move(write));
  NIB_TRY(copy_weight(checkpoint, source, plan, to, pool, with_progress));
  done += plan.stored_bytes();
  return {};
}

void Conversion::count_quantized(const WeightPlan& plan, std::uint64_t bytes, const Noise& noise) {
  ++report.quantized;
  report.weights += plan.values();
  report.weight_bytes += bytes;
  const FloatScope scope;
  report.signal += noise.signal;
  report.noise += noise.noise;
}

Result<QuantizeReport> quantize_checkpoint(const Checkpoint& checkpoint, const std::string& path,
                                           const QuantizeOptions& options, Pool& pool,
                                           const FileSystem& files) {
  return within_memory(path, [&]() -> Result<QuantizeReport> {
    NIB_TRY(check(checkpoint, path, options));
    NIB_ASSIGN(const ModelConfig config, read_config(checkpoint));
    Conversion conversion{checkpoint, config, options, pool, files};
    conversion.format = is_gguf(path) ? options.format->gguf : options.format->safetensors;
    for (const CheckpointTensor& tensor : checkpoint.tensors) conversion.total += stored_bytes(tensor);
    conversion.report.bytes_before = conversion.total;
    NIB_TRY(is_gguf(path) ? write_gguf(conversion, path) : write_safetensors(conversion, path));
    conversion.finish_notes();
    // Too late to stop: whatever the answer is.
    options.progress({Stage::quantize, conversion.total, conversion.total, checkpoint.path});
    return std::move(conversion.report);
  });
}

}  // namespace nib::inline v0
