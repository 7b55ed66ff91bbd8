#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/formats/code_books.hpp>
#include <nibble/io/quantized_parts.hpp>

#include <algorithm>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kNestedGroup = 256;
constexpr std::size_t kOffsetDigits = 32;  // more than a float needs, in decimal and as a double

using Shape = std::vector<std::uint64_t>;

Status refuse(const QuantizedLayout& layout, std::string_view why) {
  return {Code::unsupported,
          concat("no published safetensors layout holds ", format_name(layout.format), " ", why)};
}

std::string bytes_of(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

bool is_bitsandbytes_4bit(Format format) { return format == Format::nf4 || format == Format::bnb_fp4; }

bool is_tiles(const ScaleSharing& sharing) {
  return sharing.rows > 0 && sharing.columns > 0 && sharing.run == 0;
}

// "tensor", "channel" (a row), or nothing.
std::string_view strategy_of(const ScaleSharing& sharing) {
  if (sharing == ScaleSharing::per_tensor()) return "tensor";
  if (sharing == ScaleSharing::per_row()) return "channel";
  return {};
}

// As Python's torch names it.
std::string_view torch_name(DType dtype) {
  return dtype == DType::f16 ? "float16" : dtype == DType::bf16 ? "bfloat16" : "float32";
}

DType plain_dtype(Format format) {
  return format == Format::f32 ? DType::f32 : format == Format::f16 ? DType::f16 : DType::bf16;
}

class PartList {
 public:
  PartList(const std::string& name, const QuantizedLayout& layout) : name_(name), layout_(layout) {}

  Result<std::vector<StoredPart>> make() {
    const Shape& shape = layout_.shape;
    const std::uint32_t group = format_info(layout_.format).group;
    if (!is_bitsandbytes_4bit(layout_.format) && (shape.empty() || shape.back() % group != 0))
      return Status(Code::argument, concat("tensor ", quoted(name_), ": rows of ", shape_text(shape),
                                           " are no whole number of groups of ", group, " (",
                                           format_name(layout_.format), ")"));
    switch (layout_.format) {
      case Format::f32:
      case Format::f16:
      case Format::bf16:
        add(name_, plain_dtype(layout_.format), shape, Part::codes);
        break;
      case Format::mxfp4:
        add(name_ + "_blocks", DType::u8, with_more(with_last(shape, shape.back() / 32), 16), Part::codes);
        add(name_ + "_scales", DType::u8, with_last(shape, shape.back() / 32), Part::scales);
        break;
      case Format::nvfp4:
        add(name_ + "_packed", DType::u8, with_last(shape, shape.back() / 2), Part::codes);
        add(name_ + "_scale", DType::f8_e4m3, with_last(shape, shape.back() / 16), Part::scales);
        add(name_ + "_global_scale", DType::f32, {1}, Part::tensor_scale);
        break;
      case Format::fp8_e4m3:
      case Format::int8:
        NIB_TRY(add_eight_bits());
        break;
      case Format::llm_int8:
        NIB_TRY(add_llm_int8());
        break;
      case Format::nf4:
      case Format::bnb_fp4:
        NIB_TRY(add_bitsandbytes());
        break;
      default:
        return refuse(layout_, "weights");
    }
    return std::move(parts_);
  }

 private:
  static Shape with_last(Shape shape, std::uint64_t last) {
    shape.back() = last;
    return shape;
  }
  static Shape with_more(Shape shape, std::uint64_t more) {
    shape.push_back(more);
    return shape;
  }

  void add(std::string name, DType dtype, Shape shape, Part part, std::string bytes = {}) {
    parts_.push_back({{std::move(name), dtype, std::move(shape)}, part, std::move(bytes)});
  }

  Status add_eight_bits() {
    const Shape& shape = layout_.shape;
    const ScaleSharing& sharing = layout_.sharing;
    if (shape.size() != 2) return refuse(layout_, concat("of shape ", shape_text(shape)));
    const bool fp8 = layout_.format == Format::fp8_e4m3;
    add(name_, fp8 ? DType::f8_e4m3 : DType::i8, shape, Part::codes);
    if (sharing == ScaleSharing::per_tensor()) {
      add(name_ + "_scale", DType::f32, {1}, Part::scales);
    } else if (sharing == ScaleSharing::per_row()) {
      add(name_ + "_scale", DType::f32, {shape[0], 1}, Part::scales);
    } else if (fp8 && is_tiles(sharing)) {
      const Shape grid = {ceil_div(shape[0], static_cast<std::uint64_t>(sharing.rows)),
                          ceil_div(shape[1], static_cast<std::uint64_t>(sharing.columns))};
      add(name_ + "_scale_inv", DType::f32, grid, Part::scales);
    } else {
      return refuse(layout_, "with scales shared in this way");
    }
    return {};
  }

  Status add_llm_int8() {
    constexpr std::string_view kWeight = ".weight";
    if (layout_.shape.size() != 2 || layout_.sharing != ScaleSharing::per_row())
      return refuse(layout_, "but matrices with a scale a row");
    if (!name_.ends_with(kWeight))
      return {Code::argument,
              concat("tensor ", quoted(name_), ": a weight of LLM.int8 has a name that ends in ", kWeight)};
    const std::string stem = name_.substr(0, name_.size() - kWeight.size());
    add(name_, DType::i8, layout_.shape, Part::codes);
    add(stem + ".SCB", DType::f32, {layout_.shape[0]}, Part::scales);
    add(stem + ".weight_format", DType::u8, {}, Part::fixed, std::string(1, '\0'));
    return {};
  }

  Status add_bitsandbytes() {
    if (layout_.sharing.run <= 0) return refuse(layout_, "without runs of values that share a scale");
    std::optional<std::uint64_t> values = 1;
    for (const std::uint64_t size : layout_.shape) values = values ? checked_mul(*values, size) : values;
    if (!values)
      return {Code::argument,
              concat("tensor ", quoted(name_), ": ", shape_text(layout_.shape), " is too large")};
    const std::uint64_t scales = ceil_div(*values, static_cast<std::uint64_t>(layout_.sharing.run));
    const bool nf4 = layout_.format == Format::nf4;
    add(name_, DType::u8, {ceil_div<std::uint64_t>(*values, 2), 1}, Part::codes);
    add(name_ + ".absmax", layout_.nested ? DType::u8 : DType::f32, {scales}, Part::scales);
    if (layout_.nested) {
      add(name_ + ".nested_absmax", DType::f32, {ceil_div(scales, kNestedGroup)}, Part::nested_scales);
      add(name_ + ".nested_quant_map", DType::f32, {256}, Part::fixed, bytes_of(kDynamicMap.level));
    }
    add(name_ + ".quant_map", DType::f32, {16}, Part::fixed,
        bytes_of(nf4 ? Nf4Levels::levels : BnbFp4Levels::levels));
    add(concat(name_, ".quant_state.bitsandbytes__", nf4 ? "nf4" : "fp4"), DType::u8,
        {bitsandbytes_state(layout_, 0).size()}, Part::description);
    return {};
  }

  const std::string& name_;
  const QuantizedLayout& layout_;
  std::vector<StoredPart> parts_;
};

Json list_of(std::span<const std::string> names) {
  std::vector<Json> items;
  for (const std::string& name : names) items.push_back(Json::of(name));
  return Json::array(std::move(items));
}

Json text(std::string_view words) { return Json::of(std::string(words)); }

// One group of Linear weights, as compressed-tensors describes them.
Json compressed_tensors(std::string_view format, std::int64_t bits, std::string_view type,
                        std::string_view strategy, Json group_size,
                        std::span<const std::string> plain_modules) {
  Json weights = Json::object({{"actorder", Json()},
                               {"block_structure", Json()},
                               {"dynamic", Json::of(false)},
                               {"group_size", std::move(group_size)},
                               {"num_bits", Json::of(bits)},
                               {"observer", text("minmax")},
                               {"observer_kwargs", Json::object({})},
                               {"strategy", text(strategy)},
                               {"symmetric", Json::of(true)},
                               {"type", text(type)}});
  Json group = Json::object({{"format", text(format)},
                             {"input_activations", Json()},
                             {"output_activations", Json()},
                             {"targets", Json::array({text("Linear")})},
                             {"weights", std::move(weights)}});
  return Json::object({{"config_groups", Json::object({{"group_0", std::move(group)}})},
                       {"format", text(format)},
                       {"global_compression_ratio", Json()},
                       {"ignore", list_of(plain_modules)},
                       {"kv_cache_scheme", Json()},
                       {"quant_method", text("compressed-tensors")},
                       {"quantization_status", text("compressed")}});
}

Json bitsandbytes(const QuantizedLayout& layout, std::span<const std::string> plain_modules) {
  const bool four = is_bitsandbytes_4bit(layout.format);
  return Json::object({{"bnb_4bit_compute_dtype", text(torch_name(layout.original))},
                       {"bnb_4bit_quant_storage", text("uint8")},
                       {"bnb_4bit_quant_type", text(layout.format == Format::nf4 ? "nf4" : "fp4")},
                       {"bnb_4bit_use_double_quant", Json::of(layout.nested)},
                       {"llm_int8_enable_fp32_cpu_offload", Json::of(false)},
                       {"llm_int8_has_fp16_weight", Json::of(false)},
                       {"llm_int8_skip_modules", list_of(plain_modules)},
                       {"llm_int8_threshold", Json::of(6.0)},
                       {"load_in_4bit", Json::of(four)},
                       {"load_in_8bit", Json::of(!four)},
                       {"quant_method", text("bitsandbytes")}});
}

}  // namespace

Result<std::vector<StoredPart>> quantized_parts(const std::string& name, const QuantizedLayout& layout) {
  return within_memory(name, [&] { return PartList(name, layout).make(); });
}

std::string bitsandbytes_state(const QuantizedLayout& layout, float nested_offset) {
  std::vector<Json> shape;
  for (const std::uint64_t size : layout.shape) shape.push_back(Json::of(static_cast<std::int64_t>(size)));
  std::vector<Json::Member> members = {{"quant_type", text(layout.format == Format::nf4 ? "nf4" : "fp4")},
                                       {"blocksize", Json::of(layout.sharing.run)},
                                       {"dtype", text(torch_name(layout.original))},
                                       {"shape", Json::array(std::move(shape))}};
  if (layout.nested) {
    members.emplace_back("nested_blocksize", Json::of(static_cast<std::int64_t>(kNestedGroup)));
    members.emplace_back("nested_dtype", text("float32"));
    members.emplace_back("nested_offset", Json::of(0.0));
  }
  const std::size_t bytes =
      write_json(Json::object(members), true).size() + (layout.nested ? kOffsetDigits : 0);
  if (layout.nested) members.back().second = Json::of(static_cast<double>(nested_offset));
  std::string state = write_json(Json::object(std::move(members)), true);
  state.resize(bytes, ' ');
  return state;
}

Result<Json> quantization_config(const QuantizedLayout& layout, std::span<const std::string> plain_modules) {
  const std::string_view strategy = strategy_of(layout.sharing);
  switch (layout.format) {
    case Format::f32:
    case Format::f16:
    case Format::bf16:
      return Json();
    case Format::mxfp4:
      return Json::object(
          {{"modules_to_not_convert", list_of(plain_modules)}, {"quant_method", text("mxfp4")}});
    case Format::nvfp4:
      return compressed_tensors("nvfp4-pack-quantized", 4, "float", "tensor_group",
                                Json::of(std::int64_t{16}), plain_modules);
    case Format::int8:
      if (strategy.empty()) break;
      return compressed_tensors("int-quantized", 8, "int", strategy, Json(), plain_modules);
    case Format::fp8_e4m3:
      if (!strategy.empty())
        return compressed_tensors("float-quantized", 8, "float", strategy, Json(), plain_modules);
      if (!is_tiles(layout.sharing)) break;
      return Json::object({{"activation_scheme", text("dynamic")},
                           {"fmt", text("e4m3")},
                           {"modules_to_not_convert", list_of(plain_modules)},
                           {"quant_method", text("fp8")},
                           {"weight_block_size",
                            Json::array({Json::of(layout.sharing.rows), Json::of(layout.sharing.columns)})}});
    case Format::llm_int8:
    case Format::nf4:
    case Format::bnb_fp4:
      return bitsandbytes(layout, plain_modules);
    default:
      break;
  }
  return refuse(layout, "with scales shared in this way");
}

}  // namespace nib::inline v0
