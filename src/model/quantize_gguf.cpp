// The GGUF side of quantize_checkpoint.
#include "conversion.hpp"
#include "gguf_keys.hpp"
#include "rope_divisors.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/formats/ggml_types.hpp>
#include <nibble/io/gguf_writer.hpp>

#include <optional>
#include <utility>

namespace nib::inline v0 {
namespace {

struct Item {
  GgufTensorSpec spec;
  WeightPlan plan;  // without parts: `values` are what is written
  Role role = Role::other;
  enum Way : std::uint8_t { raw, copy, encode, quantize, values } way = encode;
  Format format = Format::none;
  std::vector<float> constants;

  std::uint64_t bytes() const { return gguf_tensor_bytes(spec.type, spec.shape).value_or(0); }
};

std::optional<GgufType> gguf_type(Format format) {
  for (const GgmlType& known : kGgmlTypes)
    if (known.format == format) return static_cast<GgufType>(known.number);
  return std::nullopt;
}

GgufType type_named(std::string_view name) {
  for (const GgufTypeInfo& info : kGgufTypes)
    if (name == info.name) return info.type;
  return GgufType::f32;
}

// What general.file_type calls a file that is mostly of this format.
std::uint32_t file_type(Format format) {
  switch (format) {
    case Format::f16:
      return 1;
    case Format::q4_0:
      return 2;
    case Format::q4_1:
      return 3;
    case Format::q8_0:
      return 7;
    case Format::q5_0:
      return 8;
    case Format::q5_1:
      return 9;
    case Format::bf16:
      return 32;
    case Format::gguf_mxfp4:
      return 38;
    default:
      return 0;
  }
}

class GgufConversion {
 public:
  explicit GgufConversion(Conversion& conversion) : all_(conversion), checkpoint_(conversion.checkpoint) {}

  Status write(const std::string& path) {
    NIB_ASSIGN(const GgufPairs pairs, checkpoint_.gguf ? plan_gguf() : plan_hugging_face());
    if (!any_) return all_.nothing_to_quantize();
    std::vector<GgufTensorSpec> specs;
    for (const Item& item : items_) specs.push_back(item.spec);
    NIB_ASSIGN(GgufWriter writer, GgufWriter::create(path, pairs, specs, all_.options.overwrite));
    for (const Item& item : items_) NIB_TRY(write_item(item, writer));
    return writer.finish();
  }

 private:
  // --- what is written

  Result<GgufPairs> plan_hugging_face() {
    std::vector<std::string> unused;
    const Architecture& architecture = *all_.config.architecture;
    const TensorNames* names = gguf_names(architecture);
    if (!names)
      return Status(Code::unsupported,
                    concat(checkpoint_.path, ": GGUF has no names for ", architecture.name));
    NIB_ASSIGN(std::vector<NamedWeight> weights, weights_named(*names, checkpoint_, all_.config, unused));
    for (NamedWeight& weight : weights) add(std::move(weight.plan), weight.role);
    for (const std::string& name : unused)
      if (!name.ends_with(".rotary_emb.inv_freq"))
        all_.report.notes.push_back(
            concat("tensor ", name, " is none that GGUF has a name for, and is left out"));
    add_constants("rope_freqs.weight", gguf_rope_divisors(all_.config));
    return gguf_keys(checkpoint_, all_.config, file_type(all_.format), all_.files, all_.report.notes);
  }

  Result<GgufPairs> plan_gguf() {
    const auto roles = roles_of(dialect_of(checkpoint_, *all_.config.architecture), all_.config);
    for (const CheckpointTensor& tensor : checkpoint_.tensors) {
      WeightPlan plan{tensor.name, tensor.shape, {&tensor}, {}};
      const auto role = roles.find(tensor.name);
      add(std::move(plan), role == roles.end() ? Role::other : role->second);
      constexpr std::string_view kWeight = ".weight";
      if (items_.back().way == Item::raw && !tensor.scaling.factors.empty() && tensor.name.ends_with(kWeight))
        add_constants(concat(tensor.name.substr(0, tensor.name.size() - kWeight.size()), ".scale"),
                      {tensor.scaling.factors.begin(), tensor.scaling.factors.end()});
    }
    return gguf_keys_of(*checkpoint_.gguf, file_type(all_.format));
  }

  void add_constants(std::string name, std::vector<float> values) {
    if (values.empty()) return;
    Item& item = items_.emplace_back();
    item.spec = {std::move(name), GgufType::f32, {values.size()}};
    item.way = Item::values;
    item.constants = std::move(values);
  }

  void add(WeightPlan plan, Role role) {
    Item& item = items_.emplace_back();
    item.plan = std::move(plan);
    item.role = role;
    choose(item);
    item.spec = {item.plan.name,
                 item.way == Item::raw ? type_named(item.plan.parts[0]->type_name) : *gguf_type(item.format),
                 item.plan.shape};
  }

  void choose(Item& item) {
    const Format stored = item.plan.parts[0]->format;
    if (all_.wanted(item.plan, item.role) && stored != Format::none && !keeps_f32(item)) {
      const std::string obstacle = all_.obstacle(item.plan, item.role);
      if (obstacle.empty()) {
        item.format = all_.format;
        item.way = copied(item, all_.format) == Item::copy ? Item::copy : Item::quantize;
        any_ = true;
        return;
      }
      all_.note_kept(item.plan, obstacle);
    }
    if (checkpoint_.gguf) {
      item.way = Item::raw;
      return;
    }
    item.format = item.role == Role::other || item.role == Role::router         ? Format::f32
                  : stored == Format::mxfp4 && item.plan.turned == Turned::none ? Format::gguf_mxfp4
                  : is_plain(stored)                                            ? stored
                                                                                : Format::bf16;
    item.way = copied(item, item.format);
  }

  // Norms, biases and routers are f32 in every GGUF file, whatever its weights are.
  bool keeps_f32(const Item& item) const {
    return item.role == Role::other || (item.role == Role::router && is_plain(all_.format));
  }

  static Item::Way copied(const Item& item, Format to) {
    return can_copy(item.plan, to) ? Item::copy : Item::encode;
  }

  // --- and how

  Status write_item(const Item& item, GgufWriter& writer) {
    const auto append = [&](Part, std::uint64_t, std::span<const std::byte> bytes) {
      return writer.append(bytes);
    };
    all_.count(item.bytes());
    switch (item.way) {
      case Item::values:
        return writer.append(std::as_bytes(std::span(item.constants)));
      case Item::raw: {
        const Plane& plane = item.plan.parts[0]->codes;
        NIB_TRY(copy_plane(checkpoint_, plane, all_.hooks(plane.bytes, append), Part::codes));
        all_.done += item.plan.stored_bytes();
        return {};
      }
      case Item::copy:
        return all_.copy(item.plan, item.format, append);
      case Item::encode:
        return all_.encode(item.plan, {.format = item.format}, append).status();
      case Item::quantize: {
        NIB_ASSIGN(const Encoded encoded,
                   all_.encode(item.plan, {.format = item.format, .rule = all_.options.scale_rule}, append));
        all_.count_quantized(item.plan, item.bytes(), encoded.noise);
        return {};
      }
    }
    return {};
  }

  Conversion& all_;
  const Checkpoint& checkpoint_;
  std::vector<Item> items_;
  bool any_ = false;  // tensor has, or will have, the format asked for
};

}  // namespace

Status write_gguf(Conversion& conversion, const std::string& path) {
  return GgufConversion(conversion).write(path);
}

}  // namespace nib::inline v0
