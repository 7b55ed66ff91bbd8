// The Hugging Face side of quantize_checkpoint: shards, their index, config.json, and what lies beside them.
#include "conversion.hpp"
#include "model_directory.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/output.hpp>
#include <nibble/io/quantized_parts.hpp>
#include <nibble/io/safetensors.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kWeight = ".weight";

bool is_matrix(const WeightPlan& plan) { return plan.shape.size() >= 2; }

// The module of a weight: its name without ".weight".
std::string module_of(const std::string& name) {
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

struct OutputPart {
  TensorSpec spec;
  Part part = Part::codes;
  std::string bytes;  // of Part::fixed
  Plane plane;        // of a tensor that goes over as it is
};

struct Item {
  WeightPlan plan;
  bool quantize = false;  // else its stored parts are copied
  bool already = false;   // it was meant, and is stored so
  QuantizedLayout layout;
  std::vector<OutputPart> parts;
  std::size_t shard = 0;

  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const OutputPart& part : parts) sum += tensor_bytes(part.spec.dtype, part.spec.shape).value_or(0);
    return sum;
  }
};

// The stored tensors behind those of a checkpoint, which has joined them.
class StoredParts {
 public:
  static Result<StoredParts> read(const Checkpoint& checkpoint) {
    StoredParts all;
    for (std::uint32_t i = 0; i < checkpoint.files.size(); ++i) {
      NIB_ASSIGN(SafetensorsHeader header, read_safetensors_header(*checkpoint.files[i]));
      for (const TensorEntry& entry : header.tensors) all.entries_.emplace(entry.name, Entry{entry, i});
    }
    return all;
  }

  // Those that `tensor` was made of: its planes by where they are, the rest by name.
  std::vector<OutputPart> of(const CheckpointTensor& tensor) const {
    std::vector<OutputPart> parts;
    const std::string module = module_of(tensor.name);
    for (auto at = entries_.lower_bound(module); at != entries_.end() && at->first.starts_with(module);
         ++at) {
      const auto& [entry, file] = at->second;
      const Plane plane{file, entry.offset, entry.bytes};
      if (is_plane(tensor, at->first, plane) ||
          describes(tensor.name, module, at->first, file == tensor.codes.file))
        parts.push_back({{entry.name, entry.dtype, entry.shape}, Part::codes, {}, plane});
    }
    return parts;
  }

 private:
  struct Entry {
    TensorEntry entry;
    std::uint32_t file;
  };

  static bool same(const Plane& a, const Plane& b) {
    return a.file == b.file && a.offset == b.offset && a.bytes == b.bytes;
  }
  static bool is_plane(const CheckpointTensor& tensor, const std::string& name, const Plane& plane) {
    const bool any =
        same(plane, tensor.codes) || same(plane, tensor.scales) || same(plane, tensor.scaling.nested_scales);
    // Planes without bytes may share a place; then names decide.
    return any && (plane.bytes > 0 || name == tensor.name);
  }
  static bool describes(const std::string& tensor, const std::string& module, const std::string& name,
                        bool near) {
    if (!near) return false;
    for (const std::string_view suffix : {".quant_map", ".nested_quant_map", "_global_scale", "_scale_2"})
      if (name == concat(tensor, suffix)) return true;
    return name.starts_with(concat(tensor, ".quant_state.bitsandbytes__")) ||
           name == module + ".weight_format";
  }

  std::multimap<std::string, Entry, std::less<>> entries_;
};

class SafetensorsConversion {
 public:
  explicit SafetensorsConversion(Conversion& conversion)
      : all_(conversion), checkpoint_(conversion.checkpoint), target_(*conversion.options.format) {}

  Status write(const std::string& path) {
    NIB_TRY(plan());
    // Before anything is computed: whether it may be written at all.
    NIB_ASSIGN(OutputDirectory directory, OutputDirectory::create(path, all_.options.overwrite));
    NIB_TRY(copy_companions(checkpoint_, all_.files, directory));
    NIB_TRY(write_config(directory));
    cut_into_shards();
    for (std::size_t shard = 0; shard < shards_; ++shard) NIB_TRY(write_shard(shard, directory));
    if (shards_ > 1) NIB_TRY(write_index(directory));
    NIB_TRY(read_back(directory));
    return directory.publish();
  }

 private:
  // --- what is written

  Status plan() {
    const TensorNames& names = dialect_of(checkpoint_, *all_.config.architecture);
    const auto roles = roles_of(names, all_.config);
    NIB_TRY(check_experts(names));
    NIB_ASSIGN(const StoredParts stored, StoredParts::read(checkpoint_));
    bool any = false;
    for (const CheckpointTensor& tensor : checkpoint_.tensors) {
      const auto found = roles.find(tensor.name);
      const Role role = found == roles.end() ? Role::other : found->second;
      Item& item = items_.emplace_back();
      item.plan = WeightPlan{tensor.name, tensor.shape, {&tensor}, {}, false, false};
      item.parts = stored.of(tensor);
      NIB_TRY(choose(item, role, names));
      any = any || item.quantize || item.already;
      if (item.quantize) continue;
      item.plan = WeightPlan{tensor.name, tensor.shape, {&tensor}, {}, false, false};
      if (is_plain(tensor.format) && is_matrix(item.plan)) plain_modules_.push_back(module_of(tensor.name));
      if (tensor.format == Format::none || is_plain(tensor.format)) continue;
      quantized_before_ = true;
      if (!item.already) other_kinds_ = true;
    }
    return any ? Status() : all_.nothing_to_quantize();
  }

  // MXFP4 is published for the stacked experts of gpt-oss alone.
  Status check_experts(const TensorNames& names) const {
    if (all_.format != Format::mxfp4 || all_.options.only || names.alternating()) return {};
    return {
        Code::unsupported,
        concat(checkpoint_.path, ": safetensors hold mxfp4 for the stacked experts of gpt-oss, and this is ",
               all_.config.architecture->name,
               "; write nvfp4, or a .gguf file, or name tensors, which programs other than nibble will not "
               "read")};
  }

  Status choose(Item& item, Role role, const TensorNames& names) {
    const CheckpointTensor& tensor = *item.plan.parts[0];
    if (tensor.format == Format::none || !all_.wanted(item.plan, role)) return {};
    // Experts of alternating gates and ups lie the other way round in a plain format.
    if (role == Role::experts && names.alternating() && is_plain(tensor.format) != is_plain(all_.format)) {
      if (tensor.shape.size() != 3)
        return {Code::format, concat(checkpoint_.path, ": tensor ", tensor.name, " has shape ",
                                     shape_text(tensor.shape), ", experts have three dimensions")};
      item.plan.turned = true;
      std::swap(item.plan.shape[1], item.plan.shape[2]);
    }
    std::string obstacle = all_.obstacle(item.plan, role);
    item.layout = {all_.format, item.plan.shape, target_.sharing, target_.nested, original(tensor)};
    if (obstacle.empty()) {
      auto parts = quantized_parts(tensor.name, item.layout);
      if (parts.ok()) {
        item.already = tensor.format == all_.format && same_specs(item.parts, *parts);
        if (item.already) return {};
        item.quantize = true;
        item.parts.clear();
        for (StoredPart& part : *parts)
          item.parts.push_back({std::move(part.spec), part.part, std::move(part.bytes), {}});
        return {};
      }
      if (parts.status().code() == Code::memory) return parts.status();
      obstacle = parts.status().message();
    }
    all_.note_kept(item.plan, obstacle);
    return {};
  }

  // Whether the tensor is stored as it would be written.
  static bool same_specs(const std::vector<OutputPart>& stored, const std::vector<StoredPart>& parts) {
    return std::all_of(parts.begin(), parts.end(), [&](const StoredPart& part) {
      return std::any_of(stored.begin(), stored.end(), [&](const OutputPart& old) {
        return old.spec.name == part.spec.name && old.spec.dtype == part.spec.dtype &&
               (old.spec.shape == part.spec.shape || part.part == Part::description);
      });
    });
  }

  // What the values were before, which bitsandbytes notes.
  DType original(const CheckpointTensor& tensor) const {
    if (is_plain(tensor.format)) return tensor.dtype;
    const Json* dtype = checkpoint_.config.find("dtype");
    if (!dtype) dtype = checkpoint_.config.find("torch_dtype");
    const std::string_view name = dtype && dtype->is_string() ? std::string_view(dtype->as_string()) : "";
    return name == "float16" ? DType::f16 : name == "float32" ? DType::f32 : DType::bf16;
  }

  // --- what lies beside the weights

  Status write_config(const OutputDirectory& directory) {
    Json quantization;
    bool plain = is_plain(all_.format), any = false;
    for (const Item& item : items_) {
      if (!item.quantize || any) continue;
      any = true;
      NIB_ASSIGN(quantization, quantization_config(item.layout, plain_modules_));
    }
    // A copy of what was so already keeps what is said of it, and so does what is left of another kind.
    const Json* old = checkpoint_.config.find("quantization_config");
    if (old && quantized_before_ && quantization.is_null()) quantization = *old;
    if (other_kinds_ && any && !plain)
      all_.report.notes.push_back(
          "weights of several formats are in the directory, and config.json has room for one; nibble reads "
          "them all");
    std::vector<Json::Member> members;
    bool typed = false;
    for (const auto& [key, value] : checkpoint_.config.members()) {
      if (key == "quantization_config") continue;
      const bool type = key == "dtype" || key == "torch_dtype";
      typed = typed || type;
      members.emplace_back(key, type && plain && !all_.options.only ? dtype_json() : value);
    }
    if (!typed && plain && !all_.options.only) members.emplace_back("torch_dtype", dtype_json());
    if (!quantization.is_null()) members.emplace_back("quantization_config", std::move(quantization));
    return write_file(directory.at("config.json"), write_json(Json::object(std::move(members)), true) + "\n");
  }

  Json dtype_json() const {
    return Json::of(std::string(all_.format == Format::f16    ? "float16"
                                : all_.format == Format::bf16 ? "bfloat16"
                                                              : "float32"));
  }

  // --- the weights

  // One shard after another, each filled until the next tensor would make it too large.
  void cut_into_shards() {
    std::uint64_t inside = 0;
    for (Item& item : items_) {
      const std::uint64_t bytes = item.bytes();
      if (inside > 0 && inside + bytes > all_.options.most_shard_bytes) {
        ++shards_;
        inside = 0;
      }
      item.shard = shards_ - 1;
      inside += bytes;
    }
  }

  std::string shard_name(std::size_t shard) const {
    if (shards_ == 1) return "model.safetensors";
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_);
    return name;
  }

  Status write_shard(std::size_t shard, const OutputDirectory& directory) {
    std::vector<TensorSpec> specs;
    for (const Item& item : items_)
      if (item.shard == shard)
        for (const OutputPart& part : item.parts) specs.push_back(part.spec);
    order_by_width(specs);
    NIB_ASSIGN(SafetensorsWriter writer,
               SafetensorsWriter::create(directory.at(shard_name(shard)), specs, {{"format", "pt"}}));
    for (const Item& item : items_) {
      if (item.shard != shard) continue;
      NIB_TRY(item.quantize ? write_quantized(item, writer) : write_kept(item, writer));
      all_.count(item.bytes());
    }
    return writer.finish();
  }

  Status write_quantized(const Item& item, SafetensorsWriter& writer) {
    const auto name_of_part = [&](Part part) -> std::string_view {
      for (const OutputPart& stored : item.parts)
        if (stored.part == part) return stored.spec.name;
      return {};
    };
    const auto write = [&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
      return writer.write(name_of_part(part), offset, bytes);
    };
    NIB_ASSIGN(const Encoded encoded, all_.encode(item.plan,
                                                  {.format = all_.format,
                                                   .sharing = target_.sharing,
                                                   .nested = target_.nested,
                                                   .rule = all_.options.scale_rule},
                                                  write));
    for (const OutputPart& part : item.parts) {
      if (part.part != Part::fixed && part.part != Part::description) continue;
      const std::string bytes =
          part.part == Part::fixed ? part.bytes : bitsandbytes_state(item.layout, encoded.nested_offset);
      NIB_TRY(writer.write(part.spec.name, 0, std::as_bytes(std::span(bytes))));
    }
    all_.count_quantized(item.plan, item.bytes(), encoded.noise);
    return {};
  }

  Status write_kept(const Item& item, SafetensorsWriter& writer) {
    for (const OutputPart& part : item.parts) {
      const auto write = [&](Part, std::uint64_t offset, std::span<const std::byte> bytes) {
        return writer.write(part.spec.name, offset, bytes);
      };
      NIB_TRY(copy_plane(checkpoint_, part.plane, all_.hooks(part.plane.bytes, write), Part::codes));
      all_.done += part.plane.bytes;
    }
    return {};
  }

  Status write_index(const OutputDirectory& directory) const {
    std::vector<Json::Member> map;
    std::uint64_t total = 0;
    for (const Item& item : items_) {
      for (const OutputPart& part : item.parts)
        map.emplace_back(part.spec.name, Json::of(shard_name(item.shard)));
      total += item.bytes();
    }
    std::sort(map.begin(), map.end(),
              [](const Json::Member& a, const Json::Member& b) { return a.first < b.first; });
    const Json index = Json::object(
        {{"metadata", Json::object({{"total_size", Json::of(static_cast<std::int64_t>(total))}})},
         {"weight_map", Json::object(std::move(map))}});
    return write_file(directory.at("model.safetensors.index.json"), write_json(index, true) + "\n");
  }

  // Headers alone: whether what was written is a checkpoint of the same tensors.
  Status read_back(const OutputDirectory& directory) const {
    NIB_ASSIGN(const Checkpoint written, open_checkpoint(directory_of(directory.at("config.json"))));
    for (const Item& item : items_) {
      const CheckpointTensor* tensor = written.find(item.plan.name);
      if (!tensor || tensor->shape != item.plan.shape)
        return {Code::internal, concat(checkpoint_.path, ": tensor ", item.plan.name,
                                       " was written so that it cannot be read")};
    }
    return {};
  }

  Conversion& all_;
  const Checkpoint& checkpoint_;
  const TargetFormat& target_;
  std::vector<Item> items_;
  std::vector<std::string> plain_modules_;
  std::size_t shards_ = 1;
  bool quantized_before_ = false;  // quantized tensors go over as they are
  bool other_kinds_ = false;       // and are not in the format asked for
};

}  // namespace

Status write_safetensors(Conversion& conversion, const std::string& path) {
  return SafetensorsConversion(conversion).write(path);
}

}  // namespace nib::inline v0
