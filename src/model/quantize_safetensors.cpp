// The Hugging Face side of quantize_checkpoint: shards, their index, config.json, and what lies beside them.
#include "config_writer.hpp"
#include "conversion.hpp"
#include "hugging_face_files.hpp"
#include "model_directory.hpp"
#include "stored_parts.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/output.hpp>
#include <nibble/io/quantized_parts.hpp>
#include <nibble/io/safetensors.hpp>
#include <nibble/io/safetensors_writer.hpp>
#include <nibble/model/outline.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <utility>

namespace nib::inline v0 {
namespace {

bool is_matrix(const WeightPlan& plan) { return plan.shape.size() >= 2; }

struct Item {
  WeightPlan plan;
  enum Way : std::uint8_t {
    keep,      // its stored parts go over
    copy,      // its rows do
    encode,    // it cannot stay what it is
    quantize,  // it becomes what was asked for
  } way = keep;
  bool already = false;  // it was meant, and is stored so
  QuantizedLayout layout;
  std::vector<OutputPart> parts;
  std::size_t shard = 0;

  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const OutputPart& part : parts) sum += tensor_bytes(part.spec.dtype, part.spec.shape).value_or(0);
    return sum;
  }
};

class SafetensorsConversion {
 public:
  explicit SafetensorsConversion(Conversion& conversion)
      : all_(conversion), checkpoint_(conversion.checkpoint), target_(*conversion.options.format) {}

  Status write(const std::string& path) {
    NIB_TRY(checkpoint_.gguf ? plan_gguf() : plan_directory());
    // Before anything is computed: whether it may be written at all.
    NIB_ASSIGN(OutputDirectory directory, OutputDirectory::create(path, all_.options.overwrite));
    NIB_TRY(write_companions(directory));
    NIB_TRY(write_config(directory));
    cut_into_shards();
    for (std::size_t shard = 0; shard < shards_; ++shard) NIB_TRY(write_shard(shard, directory));
    if (shards_ > 1) NIB_TRY(write_index(directory));
    NIB_TRY(read_back(directory));
    return directory.publish();
  }

 private:
  // --- what is written

  Status plan_directory() {
    config_ = checkpoint_.config;
    const TensorNames& names = dialect_of(checkpoint_, *all_.config.architecture);
    const auto roles = roles_of(names, all_.config);
    NIB_TRY(check_experts(names));
    NIB_ASSIGN(const StoredParts stored, StoredParts::read(checkpoint_));
    bool any = false;
    for (const CheckpointTensor& tensor : checkpoint_.tensors) {
      const auto found = roles.find(tensor.name);
      const Role role = found == roles.end() ? Role::other : found->second;
      Item& item = items_.emplace_back();
      item.plan = WeightPlan{tensor.name, tensor.shape, {&tensor}, {}};
      item.parts = stored.of(tensor);
      NIB_TRY(choose(item, role, names));
      any = any || item.way == Item::quantize || item.already;
      if (item.way == Item::quantize) continue;
      item.plan = WeightPlan{tensor.name, tensor.shape, {&tensor}, {}};
      note_unquantized(item, tensor.format);
    }
    return any ? Status() : all_.nothing_to_quantize();
  }

  // Of a GGUF file nothing can stay as it is stored: names, the order of rows and most formats are others.
  Status plan_gguf() {
    const Architecture& architecture = *all_.config.architecture;
    const TensorNames& names = hugging_face_names(architecture);
    const CheckpointTensor* embedding = checkpoint_.find(dialect_of(checkpoint_, architecture).embedding);
    const Format plain = is_plain(all_.format)                      ? all_.format
                         : embedding && is_plain(embedding->format) ? embedding->format
                                                                    : Format::bf16;
    NIB_TRY(check_experts(names));
    NIB_ASSIGN(HuggingFaceFiles files,
               hugging_face_files(checkpoint_, all_.config, plain, all_.report.notes));
    NIB_ASSIGN(const Checkpoint expected, outline_checkpoint(files.config, checkpoint_.path));
    config_ = std::move(files.config);
    companions_ = std::move(files.companions);
    std::vector<std::string> unused;
    NIB_ASSIGN(std::vector<NamedWeight> weights, weights_named(names, checkpoint_, all_.config, unused));
    bool any = false;
    for (NamedWeight& weight : weights) {
      NIB_TRY(check_shape(weight, expected, names));
      Item& item = items_.emplace_back();
      item.plan = std::move(weight.plan);
      NIB_TRY(choose_of_gguf(item, weight.role, names));
      any = any || item.way == Item::quantize || item.already;
      if (item.way != Item::quantize) note_unquantized(item, item.layout.format);
    }
    for (const CheckpointTensor& tensor : expected.tensors)
      if (!written_.contains(tensor.name))
        return {Code::not_found, concat(checkpoint_.path, ": has no tensor that becomes ", tensor.name)};
    for (const std::string& name : unused)
      all_.report.notes.push_back(concat("tensor ", name, " is none that a directory of ", architecture.name,
                                         " has, and is left out"));
    return any ? Status() : all_.nothing_to_quantize();
  }

  // What is said of the weights that were not quantized.
  void note_unquantized(const Item& item, Format format) {
    if (is_plain(format) && is_matrix(item.plan)) plain_modules_.push_back(module_of(item.plan.name));
    if (format == Format::none || is_plain(format)) return;
    quantized_before_ = true;
    if (!item.already) other_kinds_ = true;
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

  // `expected` has what config.json alone says, where nothing is quantized.
  Status check_shape(const NamedWeight& weight, const Checkpoint& expected, const TensorNames& names) {
    const CheckpointTensor* tensor = expected.find(weight.plan.name);
    std::vector<std::uint64_t> shape = weight.plan.shape;
    if (weight.role == Role::experts && names.alternating()) std::swap(shape[1], shape[2]);
    written_.insert(weight.plan.name);
    if (tensor && tensor->shape == shape) return {};
    const CheckpointTensor& stored = *weight.plan.parts[0];
    return {
        Code::format,
        concat(checkpoint_.path, ": tensor ", stored.name, " has shape ", shape_text(stored.shape),
               tensor ? concat(", from which a tensor of shape ", shape_text(tensor->shape), " cannot come")
                      : std::string(", and its model has none there"))};
  }

  Status choose(Item& item, Role role, const TensorNames& names) {
    const CheckpointTensor& tensor = *item.plan.parts[0];
    if (tensor.format == Format::none || !all_.wanted(item.plan, role)) return {};
    // Experts of alternating gates and ups lie the other way round in a plain format.
    if (role == Role::experts && names.alternating() && is_plain(tensor.format) != is_plain(all_.format)) {
      if (tensor.shape.size() != 3)
        return {Code::format, concat(checkpoint_.path, ": tensor ", tensor.name, " has shape ",
                                     shape_text(tensor.shape), ", experts have three dimensions")};
      turn(item.plan, Turned::stored);
    }
    std::vector<OutputPart> parts;
    NIB_ASSIGN(const std::string obstacle, lay_out(item, role, parts));
    if (!obstacle.empty()) {
      all_.note_kept(item.plan, obstacle);
      return {};
    }
    item.already = tensor.format == all_.format && same_specs(item.parts, parts);
    if (item.already) return {};
    item.way = Item::quantize;
    item.parts = std::move(parts);
    return {};
  }

  Status choose_of_gguf(Item& item, Role role, const TensorNames& names) {
    const WeightPlan as_named = item.plan;
    // Experts of alternating gates and ups lie the other way round in a plain format.
    const auto take = [&](Format format) {
      item.plan = as_named;
      if (role == Role::experts && names.alternating() && is_plain(format)) turn(item.plan, Turned::written);
    };
    if (all_.wanted(as_named, role)) {
      take(all_.format);
      NIB_ASSIGN(const std::string obstacle, lay_out(item, role, item.parts));
      if (obstacle.empty()) {
        item.already = can_copy(item.plan, all_.format);
        item.way = item.already ? Item::copy : Item::quantize;
        return {};
      }
      all_.note(as_named, concat(obstacle, ": becomes ", format_name(kept_format(as_named, names))));
    } else if (const Format stored = as_named.parts[0]->format, kept = kept_format(as_named, names);
               !is_plain(stored) && is_plain(kept)) {
      all_.note(as_named,
                concat("safetensors hold no ", format_name(stored), ": becomes ", format_name(kept)));
    }
    const Format kept = kept_format(as_named, names);
    take(kept);
    item.layout = {kept, item.plan.shape, {}, false, DType::bf16};
    NIB_ASSIGN(std::vector<StoredPart> parts, quantized_parts(item.plan.name, item.layout));
    put_parts(parts, item.parts);
    item.way = can_copy(item.plan, kept) ? Item::copy : Item::encode;
    return {};
  }

  // What a tensor of a GGUF file is when it does not become what was asked for.
  static Format kept_format(const WeightPlan& plan, const TensorNames& names) {
    const Format stored = plan.parts[0]->format;
    if (is_plain(stored)) return stored;
    const bool published = names.alternating() && plan.shape.size() == 3;
    return published && can_copy(plan, Format::mxfp4) ? Format::mxfp4 : Format::bf16;
  }

  static void turn(WeightPlan& plan, Turned turned) {
    plan.turned = turned;
    std::swap(plan.shape[1], plan.shape[2]);
  }

  // The parts of the tensor in the format asked for, or why it cannot have it.
  Result<std::string> lay_out(Item& item, Role role, std::vector<OutputPart>& out) const {
    std::string obstacle = all_.obstacle(item.plan, role);
    item.layout = {all_.format, item.plan.shape, target_.sharing, target_.nested,
                   original(*item.plan.parts[0])};
    if (!obstacle.empty()) return obstacle;
    auto parts = quantized_parts(item.plan.name, item.layout);
    if (parts.status().code() == Code::memory) return parts.status();
    if (!parts.ok()) return std::string(parts.status().message());
    put_parts(*parts, out);
    return std::string();
  }

  static void put_parts(std::vector<StoredPart>& parts, std::vector<OutputPart>& out) {
    out.clear();
    for (StoredPart& part : parts)
      out.push_back({std::move(part.spec), part.part, std::move(part.bytes), {}});
  }

  // Whether the tensor is stored as it would be written.
  static bool same_specs(const std::vector<OutputPart>& stored, const std::vector<OutputPart>& parts) {
    return std::all_of(parts.begin(), parts.end(), [&](const OutputPart& part) {
      return std::any_of(stored.begin(), stored.end(), [&](const OutputPart& old) {
        return old.spec.name == part.spec.name && old.spec.dtype == part.spec.dtype &&
               (old.spec.shape == part.spec.shape || part.part == Part::description);
      });
    });
  }

  // What the values were before, which bitsandbytes notes.
  DType original(const CheckpointTensor& tensor) const {
    if (is_plain(tensor.format)) return tensor.dtype;
    const Json* dtype = config_.find("dtype");
    if (!dtype) dtype = config_.find("torch_dtype");
    const std::string_view name = dtype && dtype->is_string() ? std::string_view(dtype->as_string()) : "";
    return name == "float16" ? DType::f16 : name == "float32" ? DType::f32 : DType::bf16;
  }

  // --- what lies beside the weights

  Status write_companions(const OutputDirectory& directory) const {
    for (const auto& [name, content] : companions_) NIB_TRY(write_file(directory.at(name), content));
    return copy_companions(checkpoint_, all_.files, directory);
  }

  Status write_config(const OutputDirectory& directory) {
    const bool plain = is_plain(all_.format);
    const auto first = [&](const auto& is) {
      const auto found = std::find_if(items_.begin(), items_.end(), is);
      return found == items_.end() ? nullptr : &*found;
    };
    const Item* asked = first([](const Item& item) {
      return item.way == Item::quantize || (item.way == Item::copy && item.already);
    });
    const Item* other = first([](const Item& item) {  // MXFP4 of a GGUF file, which it still is
      return item.way == Item::copy && !is_plain(item.layout.format);
    });
    Json quantization;
    if (const Item* described = asked && !plain ? asked : other) {
      NIB_ASSIGN(quantization, quantization_config(described->layout, plain_modules_));
    }
    // A copy of what was so already keeps what is said of it, and so does what is left of another kind.
    const Json* old = config_.find("quantization_config");
    if (old && quantized_before_ && quantization.is_null()) quantization = *old;
    if (other_kinds_ && asked && !plain)
      all_.report.notes.push_back(
          "weights of several formats are in the directory, and config.json has room for one; nibble reads "
          "them all");
    std::vector<Json::Member> members;
    bool typed = false;
    for (const auto& [key, value] : config_.members()) {
      if (key == "quantization_config") continue;
      const bool type = key == "dtype" || key == "torch_dtype";
      typed = typed || type;
      members.emplace_back(key, type && plain && !all_.options.only ? dtype_json(all_.format) : value);
    }
    if (!typed && plain && !all_.options.only) members.emplace_back("torch_dtype", dtype_json(all_.format));
    if (!quantization.is_null()) members.emplace_back("quantization_config", std::move(quantization));
    return write_file(directory.at("config.json"), write_json(Json::object(std::move(members)), true) + "\n");
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
      NIB_TRY(item.way == Item::keep ? write_kept(item, writer) : write_made(item, writer));
      all_.count(item.bytes());
    }
    return writer.finish();
  }

  Status write_made(const Item& item, SafetensorsWriter& writer) {
    const auto name_of_part = [&](Part part) -> std::string_view {
      for (const OutputPart& stored : item.parts)
        if (stored.part == part) return stored.spec.name;
      return {};
    };
    const auto write = [&](Part part, std::uint64_t offset, std::span<const std::byte> bytes) {
      return writer.write(name_of_part(part), offset, bytes);
    };
    if (item.way == Item::copy) return all_.copy(item.plan, item.layout.format, write);
    const bool quantize = item.way == Item::quantize;
    NIB_ASSIGN(const Encoded encoded,
               all_.encode(item.plan,
                           {.format = item.layout.format,
                            .sharing = item.layout.sharing,
                            .nested = item.layout.nested,
                            .rule = quantize ? all_.options.scale_rule : ScaleRule::usual},
                           write));
    for (const OutputPart& part : item.parts) {
      if (part.part != Part::fixed && part.part != Part::description) continue;
      const std::string bytes =
          part.part == Part::fixed ? part.bytes : bitsandbytes_state(item.layout, encoded.nested_offset);
      NIB_TRY(writer.write(part.spec.name, 0, std::as_bytes(std::span(bytes))));
    }
    if (quantize) all_.count_quantized(item.plan, item.bytes(), encoded.noise);
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
  Json config_;                                          // config.json but for what is said of quantization
  std::vector<HuggingFaceFiles::Companion> companions_;  // where there are none to be copied
  std::vector<Item> items_;
  std::set<std::string, std::less<>> written_;
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
