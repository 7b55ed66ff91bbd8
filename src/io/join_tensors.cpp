// Stored tensors that belong together become one. What belongs together is told by names, dtypes and shapes;
// the configuration only adds what they leave open.
#include "checkpoint_parts.hpp"
#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/formats/code_books.hpp>

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace nib::inline v0 {
namespace {

constexpr JsonLimits kStateLimits = {.max_bytes = 64 << 10, .max_depth = 4, .max_values = 1000};
constexpr std::string_view kQuantState = ".quant_state.bitsandbytes__";

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Format::f32;
    case DType::f16:
      return Format::f16;
    case DType::bf16:
      return Format::bf16;
    default:
      return Format::none;
  }
}

bool is_plain_float(DType dtype) { return format_of(dtype) != Format::none; }
bool is_fp8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }
bool is_scale_type(DType dtype) { return is_plain_float(dtype) || dtype == DType::f8_e8m0; }

std::uint64_t product(std::span<const std::uint64_t> sizes) {  // of a stored tensor: known to fit
  std::uint64_t all = 1;
  for (const std::uint64_t size : sizes) all *= size;
  return all;
}

std::string described(const StoredTensor& stored) {
  return concat(quoted(stored.entry->name), " ", dtype_name(stored.entry->dtype), " ",
                shape_text(stored.entry->shape));
}

class Joiner {
 public:
  Joiner(const StoredTensors& stored, const QuantizationConfig& quantization, Checkpoint& out)
      : stored_(stored), quantization_(quantization), out_(out) {}

  Status join() {
    for (const auto& [name, stored] : stored_) NIB_TRY(join_one(std::string(name), stored));
    NIB_TRY(check_orphans());
    for (const auto& [name, stored] : stored_)
      if (!used_.contains(stored.entry)) add(std::string(name), stored, format_of(stored.entry->dtype));
    std::sort(out_.tensors.begin(), out_.tensors.end(),
              [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < out_.tensors.size(); ++i)
      if (out_.tensors[i - 1].name == out_.tensors[i].name)
        return {Code::format, concat(out_.path, ": tensor ", quoted(out_.tensors[i].name),
                                     " is stored twice: as itself and as blocks with scales")};
    return {};
  }

 private:
  // --- finding, reading, refusing

  const StoredTensor* find(const std::string& name) const {
    const auto found = stored_.find(name);
    return found == stored_.end() ? nullptr : &found->second;
  }

  const File& file_of(const StoredTensor& stored) const { return *out_.files[stored.file]; }
  Plane plane_of(const StoredTensor& stored) const {
    return {stored.file, stored.entry->offset, stored.entry->bytes};
  }

  template <class... Parts>
  Status wrong(const StoredTensor& stored, const Parts&... parts) const {
    return {Code::format,
            concat(file_of(stored).name(), ": tensor ", quoted(stored.entry->name), " ", parts...)};
  }

  // An F32 tensor of `count` values.
  Result<std::vector<float>> read_floats(const StoredTensor& stored, std::uint64_t count) const {
    if (stored.entry->dtype != DType::f32 || stored.entry->bytes != count * sizeof(float))
      return wrong(stored, "is ", dtype_name(stored.entry->dtype), " ", shape_text(stored.entry->shape), ", ",
                   count, " F32 value", count == 1 ? " was" : "s were", " expected");
    std::vector<float> values(count);
    NIB_TRY(file_of(stored).read_at(stored.entry->offset, std::as_writable_bytes(std::span(values))));
    return values;
  }

  CheckpointTensor& add(std::string name, const StoredTensor& codes, Format format) {
    used_.insert(codes.entry);
    CheckpointTensor& tensor = out_.tensors.emplace_back();
    tensor.name = std::move(name);
    tensor.format = format;
    tensor.dtype = codes.entry->dtype;
    tensor.type_name = dtype_name(codes.entry->dtype);
    tensor.shape = codes.entry->shape;
    tensor.codes = plane_of(codes);
    return tensor;
  }

  void set_scales(CheckpointTensor& tensor, const StoredTensor& scales, ScaleSharing sharing) {
    used_.insert(scales.entry);
    tensor.scales = plane_of(scales);
    tensor.scaling.type = scales.entry->dtype;
    tensor.scaling.sharing = sharing;
  }

  // Whether the method of quantization_config says that tensors of this dtype come with scales.
  bool scales_expected(DType dtype) const {
    const std::string& method = quantization_.method;
    if (is_fp8(dtype)) return method == "fp8" || method == "compressed-tensors" || method == "modelopt";
    return dtype == DType::i8 && (method == "bitsandbytes" || method == "compressed-tensors");
  }

  // --- one tensor and what belongs to it

  Status join_one(const std::string& name, const StoredTensor& stored) {
    const DType dtype = stored.entry->dtype;
    if (name.ends_with("_blocks") || name.ends_with(".blocks")) return join_mxfp4(name, stored);
    if (const StoredTensor* state = find_state(name)) return join_bitsandbytes(name, stored, *state);
    if (dtype == DType::u8 && name.ends_with("_packed")) {
      const std::string base = name.substr(0, name.size() - std::string_view("_packed").size());
      const StoredTensor* global = find(base + "_global_scale");
      if (find(base + "_scale") || global) return join_nvfp4(base, stored, base + "_global_scale", true);
    }
    if (dtype == DType::u8 && find(name + "_scale_2"))
      return join_nvfp4(name, stored, name + "_scale_2", false);
    if (is_fp8(dtype)) return join_fp8(name, stored);
    if (dtype == DType::i8) return join_int8(name, stored);
    return {};
  }

  Status join_mxfp4(const std::string& name, const StoredTensor& blocks) {
    constexpr std::uint64_t kGroup = format_info(Format::mxfp4).group;
    constexpr std::uint64_t kGroupBytes = format_info(Format::mxfp4).code_bytes;
    const std::string base = name.substr(0, name.size() - std::string_view("_blocks").size());
    const std::string scales_name = concat(base, name[base.size()], "scales");
    const StoredTensor* scales = find(scales_name);
    if (!scales) {
      if (blocks.entry->dtype == DType::u8) return half_mxfp4(blocks, scales_name);
      return is_plain_float(blocks.entry->dtype) ? refuse_dequantized(blocks) : Status();
    }
    const auto& shape = blocks.entry->shape;
    const std::string found =
        concat(dtype_name(blocks.entry->dtype), " ", shape_text(shape), " beside ", described(*scales));
    if (blocks.entry->dtype != DType::u8 || scales->entry->dtype != DType::u8)
      return wrong(blocks, "is ", found, ", MXFP4 blocks and scales are U8");
    if (shape.size() < 2 || shape.back() != kGroupBytes ||
        !std::equal(shape.begin(), shape.end() - 1, scales->entry->shape.begin(), scales->entry->shape.end()))
      return wrong(blocks, "is ", found, ", MXFP4 needs [..., G, 16] beside [..., G]");
    // Only a tensor with another dimension of 0 can be too long here: else 16 G bytes are in the file.
    const auto columns = checked_mul(scales->entry->shape.back(), kGroup);
    if (!columns) return wrong(blocks, "is ", found, ", its rows are too long");
    CheckpointTensor& tensor = add(base, blocks, Format::mxfp4);
    tensor.shape.pop_back();
    tensor.shape.back() = *columns;
    set_scales(tensor, *scales, ScaleSharing::per_group(kGroup));
    tensor.scaling.type = DType::f8_e8m0;  // that is what the bytes mean
    return {};
  }

  Status half_mxfp4(const StoredTensor& half, const std::string& other) const {
    return wrong(half, "is half of an MXFP4 tensor, the other half ", quoted(other), " is missing");
  }

  Status refuse_dequantized(const StoredTensor& stored) const {
    return {
        Code::unsupported,
        concat(
            file_of(stored).name(), ": tensor ", quoted(stored.entry->name), " is ",
            dtype_name(stored.entry->dtype),
            " without scales, U8 blocks with scales were expected: the model was dequantized when it was "
            "loaded (dequantize=True) and then saved under the names of the quantized tensors, which nothing "
            "reads back; use the original MXFP4 checkpoint, or save under the unquantized names")};
  }

  // --- bitsandbytes, 4 bits

  // "X.quant_state.bitsandbytes__nf4" of X.
  const StoredTensor* find_state(const std::string& name) const {
    const std::string prefix = concat(name, kQuantState);
    const auto at = stored_.lower_bound(prefix);
    return at != stored_.end() && at->first.starts_with(prefix) ? &at->second : nullptr;
  }

  // What the JSON text in a quant_state says.
  struct QuantState {
    std::vector<std::uint64_t> shape;
    std::uint64_t block = 0, nested_block = 0;
    float nested_offset = 0;
    bool nested = false;
  };

  Result<Json> read_state_json(const StoredTensor& state) const {
    if (state.entry->dtype != DType::u8)
      return wrong(state, "is ", dtype_name(state.entry->dtype), ", U8 was expected");
    if (state.entry->bytes > kStateLimits.max_bytes)
      return wrong(state, "has ", state.entry->bytes, " bytes, at most ", kStateLimits.max_bytes,
                   " are read");
    std::string text(state.entry->bytes, '\0');
    NIB_TRY(file_of(state).read_at(state.entry->offset, std::as_writable_bytes(std::span(text))));
    return parse_json(text, concat(file_of(state).name(), ": tensor ", quoted(state.entry->name)),
                      kStateLimits);
  }

  Result<QuantState> read_state(const StoredTensor& state, std::string_view type) const {
    NIB_ASSIGN(const Json json, read_state_json(state));
    if (!json.is_object()) return wrong(state, "holds no JSON object");
    QuantState out;
    for (const auto& [key, value] : json.members()) {
      if (key == "quant_type" && value.is_string() && value.as_string() == type) continue;
      if (key == "dtype" && value.is_string())
        continue;  // what the weights were before: says nothing of these
      if (key == "nested_dtype" && value.is_string() && value.as_string() == "float32") continue;
      const bool positive = value.is_integer() && value.as_integer() > 0;
      if (key == "blocksize" && positive) {
        out.block = static_cast<std::uint64_t>(value.as_integer());
      } else if (key == "nested_blocksize" && positive) {
        out.nested_block = static_cast<std::uint64_t>(value.as_integer());
      } else if (key == "nested_offset" && value.is_number()) {
        out.nested_offset = static_cast<float>(value.as_double());
        out.nested = true;
      } else if (key == "shape" && value.is_array() && value.items().size() <= 16) {
        for (const Json& size : value.items()) {
          if (!size.is_integer() || size.as_integer() < 0) return bad_key(state, key);
          out.shape.push_back(static_cast<std::uint64_t>(size.as_integer()));
        }
      } else {
        return bad_key(state, key);
      }
    }
    if (!json.find("shape") || out.block == 0) return wrong(state, "does not say shape and blocksize");
    if (out.nested != (out.nested_block != 0))
      return wrong(state, "says only one of nested_blocksize and nested_offset");
    return out;
  }

  Status bad_key(const StoredTensor& state, const std::string& key) const {
    return wrong(state, "has a value for key ", quoted(key), " that is not understood");
  }

  Status join_bitsandbytes(const std::string& name, const StoredTensor& codes, const StoredTensor& state) {
    const std::string type = state.entry->name.substr(name.size() + kQuantState.size());
    if (type != "nf4" && type != "fp4")
      return {Code::unsupported, concat(file_of(codes).name(), ": tensor ", quoted(name), " is quantized as ",
                                        quoted(type), ", of bitsandbytes nf4 and fp4 are read")};
    NIB_ASSIGN(QuantState says, read_state(state, type));
    const StoredTensor* absmax = find(name + ".absmax");
    const StoredTensor* map = find(name + ".quant_map");
    if (!absmax || !map)
      return wrong(codes, "has a quant_state, but ", quoted(name + (absmax ? ".quant_map" : ".absmax")),
                   " is missing");

    std::optional<std::uint64_t> values = 1;
    for (const std::uint64_t size : says.shape) values = values ? checked_mul(*values, size) : values;
    if (!values || codes.entry->bytes != *values / 2 + *values % 2)
      return wrong(codes, "has ", codes.entry->bytes, " bytes, not the two codes a byte of ",
                   shape_text(says.shape));
    const std::uint64_t blocks = ceil_div(*values, says.block);
    const DType absmax_type = says.nested ? DType::u8 : DType::f32;
    if (absmax->entry->dtype != absmax_type || product(absmax->entry->shape) != blocks)
      return wrong(*absmax, "is ", dtype_name(absmax->entry->dtype), " ", shape_text(absmax->entry->shape),
                   ", ", dtype_name(absmax_type), " [", blocks, "] was expected for blocks of ", says.block);
    Scaling scaling;
    NIB_TRY(type == "nf4" ? check_levels(*map, Nf4Levels::levels) : check_levels(*map, BnbFp4Levels::levels));
    if (says.nested) NIB_TRY(read_nested(name, codes, says, blocks, scaling));

    CheckpointTensor& tensor = add(name, codes, type == "nf4" ? Format::nf4 : Format::bnb_fp4);
    tensor.shape = std::move(says.shape);
    tensor.scaling = std::move(scaling);
    set_scales(tensor, *absmax, ScaleSharing::per_run(static_cast<std::int64_t>(says.block)));
    used_.insert(state.entry);
    used_.insert(map->entry);
    return {};
  }

  // A checkpoint carries the table of its levels; kernels and format have theirs.
  Status check_levels(const StoredTensor& map, const float (&levels)[16]) const {
    NIB_ASSIGN(const std::vector<float> stored, read_floats(map, 16));
    for (std::size_t code = 0; code < 16; ++code)
      if (!(stored[code] == levels[code]))
        return {Code::unsupported,
                concat(file_of(map).name(), ": tensor ", quoted(map.entry->name), " gives code ", code,
                       " the level ", stored[code], ", only the usual one, ", levels[code], ", is read")};
    return {};
  }

  Status read_nested(const std::string& name, const StoredTensor& codes, const QuantState& says,
                     std::uint64_t blocks, Scaling& scaling) {
    const StoredTensor* absmax = find(name + ".nested_absmax");
    const StoredTensor* map = find(name + ".nested_quant_map");
    if (!absmax || !map)
      return wrong(codes, "is doubly quantized, but ",
                   quoted(name + (absmax ? ".nested_quant_map" : ".nested_absmax")), " is missing");
    const std::uint64_t count = ceil_div(blocks, says.nested_block);
    if (absmax->entry->dtype != DType::f32 || product(absmax->entry->shape) != count)
      return wrong(*absmax, "is ", dtype_name(absmax->entry->dtype), " ", shape_text(absmax->entry->shape),
                   ", F32 [", count, "] was expected for ", blocks, " blocks");
    NIB_ASSIGN(scaling.nested_map, read_floats(*map, 256));
    scaling.nested_scales = plane_of(*absmax);
    scaling.nested_group = says.nested_block;
    scaling.nested_offset = says.nested_offset;
    used_.insert(absmax->entry);
    used_.insert(map->entry);
    return {};
  }

  // --- NVFP4

  Status join_nvfp4(const std::string& name, const StoredTensor& codes, const std::string& global_name,
                    bool divides) {
    constexpr std::uint64_t kGroup = 16;
    const StoredTensor* scales = find(name + "_scale");
    const StoredTensor* global = find(global_name);
    if (!scales || !global)
      return wrong(codes, "is packed as NVFP4, but ", quoted(scales ? global_name : name + "_scale"),
                   " is missing");
    std::vector<std::uint64_t> shape = codes.entry->shape, grid = shape;
    const auto columns = shape.empty() ? std::nullopt : checked_mul(shape.back(), 2);
    if (!columns || *columns % kGroup != 0)
      return wrong(codes, "is ", shape_text(shape), ", rows of NVFP4 are a multiple of 8 bytes");
    shape.back() = *columns;
    grid.back() = *columns / kGroup;
    if (codes.entry->dtype != DType::u8 || scales->entry->dtype != DType::f8_e4m3 ||
        scales->entry->shape != grid)
      return wrong(codes, "is ", dtype_name(codes.entry->dtype), " ", shape_text(codes.entry->shape),
                   " beside ", described(*scales),
                   ", NVFP4 needs U8 [..., n / 2] beside F8_E4M3 [..., n / 16]");
    const std::uint64_t matrices = shape.size() > 2 ? product(std::span(shape).first(shape.size() - 2)) : 1;
    const std::uint64_t count = product(global->entry->shape);
    if (count != 1 && count != matrices)
      return wrong(*global, "has ", count, " values, 1",
                   matrices > 1 ? concat(" or ", matrices) : std::string(), " was expected");
    NIB_ASSIGN(const std::vector<float> values, read_floats(*global, count));
    std::vector<double> factors;
    for (const float value : values) {
      if (!std::isfinite(value) || (divides && value == 0))
        return wrong(*global, "holds ", value,
                     divides ? ", which nothing can be divided by" : ", which is no scale");
      factors.push_back(divides ? 1.0 / value : value);
    }

    CheckpointTensor& tensor = add(name, codes, Format::nvfp4);
    tensor.shape = shape;
    set_scales(tensor, *scales, ScaleSharing::per_group(kGroup));
    tensor.scaling.factors = std::move(factors);
    used_.insert(global->entry);
    return {};
  }

  // --- eight bits

  Status join_fp8(const std::string& name, const StoredTensor& codes) {
    const StoredTensor* scales = find(name + "_scale_inv");
    if (!scales) scales = find(name + "_scale");
    if (scales)
      return join_scaled(name, codes, *scales,
                         codes.entry->dtype == DType::f8_e4m3 ? Format::fp8_e4m3 : Format::fp8_e5m2);
    return {};
  }

  Status join_int8(const std::string& name, const StoredTensor& codes) {
    constexpr std::string_view kWeight = ".weight";
    const bool weight = name.ends_with(kWeight);
    const std::string stem = weight ? name.substr(0, name.size() - kWeight.size()) : name;
    if (const StoredTensor* scales = weight ? find(stem + ".SCB") : nullptr)
      return join_llm_int8(name, stem, codes, *scales);
    if (find(name + "_zero_point"))
      return {Code::unsupported, concat(file_of(codes).name(), ": tensor ", quoted(name),
                                        " is int8 with zero points, only symmetric int8 is read")};
    if (const StoredTensor* scales = find(name + "_scale"))
      return join_scaled(name, codes, *scales, Format::int8);
    return {};
  }

  Status join_llm_int8(const std::string& name, const std::string& stem, const StoredTensor& codes,
                       const StoredTensor& scales) {
    const auto& shape = codes.entry->shape;
    if (shape.size() != 2 || scales.entry->dtype != DType::f32 || product(scales.entry->shape) != shape[0])
      return wrong(codes, "is I8 ", shape_text(shape), " beside ", described(scales),
                   ", LLM.int8 needs [out, in] beside F32 [out]");
    if (const StoredTensor* order = find(stem + ".weight_format")) {
      std::byte value{1};
      if (order->entry->bytes == 1) NIB_TRY(file_of(*order).read_at(order->entry->offset, {&value, 1}));
      if (value != std::byte{0})
        return {Code::unsupported,
                concat(file_of(*order).name(), ": tensor ", quoted(order->entry->name),
                       " says that the weight is not stored row by row (0), which is the only order read")};
      used_.insert(order->entry);
    }
    set_scales(add(name, codes, Format::llm_int8), scales, ScaleSharing::per_row());
    return {};
  }

  // One scale for the tensor, for each matrix of a stack, for each row, or for each block of a grid.
  Status join_scaled(const std::string& name, const StoredTensor& codes, const StoredTensor& scales,
                     Format format) {
    const auto& shape = codes.entry->shape;
    if (shape.size() < 2 || !is_scale_type(scales.entry->dtype))
      return wrong(codes, "is ", dtype_name(codes.entry->dtype), " ", shape_text(shape), " beside ",
                   described(scales), ", a matrix beside F32, BF16, F16 or F8_E8M0 scales was expected");
    const std::uint64_t rows = shape[shape.size() - 2], columns = shape.back();
    const std::uint64_t matrices = product(std::span(shape).first(shape.size() - 2));
    const std::uint64_t count = product(scales.entry->shape);
    const auto is_grid = [&](std::uint64_t by_rows, std::uint64_t by_columns) {
      if (by_rows == 0 || by_columns == 0) return false;
      auto grid = shape;
      grid[grid.size() - 2] = ceil_div(rows, by_rows);
      grid.back() = ceil_div(columns, by_columns);
      return scales.entry->shape == grid;
    };
    ScaleSharing sharing;
    const QuantizationConfig& block = quantization_;
    if (count == 1 && matrices == 1) {
      sharing = ScaleSharing::per_tensor();
    } else if (count == 1) {  // for the whole stack
      sharing =
          ScaleSharing::per_run(std::max<std::int64_t>(1, static_cast<std::int64_t>(codes.entry->bytes)));
    } else if (is_grid(block.block_rows, block.block_columns)) {
      sharing = ScaleSharing::per_tile(static_cast<std::int64_t>(block.block_rows),
                                       static_cast<std::int64_t>(block.block_columns));
    } else if (count == matrices && scales.entry->shape[0] == shape[0]) {
      sharing = ScaleSharing::per_tensor();
    } else if (is_grid(1, columns) || (matrices == 1 && scales.entry->shape.size() == 1 && count == rows)) {
      sharing = ScaleSharing::per_row();
    } else {
      return wrong(codes, "is ", dtype_name(codes.entry->dtype), " ", shape_text(shape), " beside ",
                   described(scales), ", one scale a tensor or row was expected, or one for each block",
                   block.block_rows ? concat(" of ", block.block_rows, " x ", block.block_columns)
                                    : std::string(" (quantization_config says no block size)"));
    }
    set_scales(add(name, codes, format), scales, sharing);
    return {};
  }

  // --- what is left over and cannot be a tensor of its own

  Status check_orphans() const {
    for (const auto& [key, stored] : stored_) {
      const std::string_view name = key;
      if (used_.contains(stored.entry)) continue;
      if (scales_expected(stored.entry->dtype))
        return wrong(stored, "is ", dtype_name(stored.entry->dtype), " without scales, quant_method ",
                     quoted(quantization_.method), " has them beside it");
      const auto without = [&](std::string_view suffix) {
        return std::string(name.substr(0, name.size() - suffix.size()));
      };
      for (const std::string_view suffix : {"_scales", ".scales"})
        if (name.ends_with(suffix) && stored.entry->dtype == DType::u8)
          return half_mxfp4(stored, concat(without(suffix), suffix[0], "blocks"));
      for (const std::string_view suffix : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"})
        if (name.ends_with(suffix))
          return wrong(stored, "describes ", quoted(without(suffix)), ", which has no quant_state");
      if (const auto at = name.find(kQuantState); at != name.npos)
        return wrong(stored, "describes ", quoted(name.substr(0, at)),
                     ", which is missing or has another quant_state");
      for (const std::string_view suffix : {".SCB", "_global_scale", "_scale_2"})
        if (name.ends_with(suffix) && !name.ends_with("input_global_scale"))
          return wrong(stored, "scales a quantized weight that is missing");
    }
    return {};
  }

  const StoredTensors& stored_;
  const QuantizationConfig& quantization_;
  std::unordered_set<const TensorEntry*> used_;  // as a plane or a description
  Checkpoint& out_;
};

// --- quantization_config

Status refuse_kind(const std::string& path, std::string_view key, const std::string& found,
                   std::span<const std::string_view> known) {
  std::string list;
  for (const std::string_view name : known) list += concat(list.empty() ? "" : ", ", name);
  return {Code::unsupported,
          concat(path, ": quantization_config.", key, " is ", quoted(found), ", of these are read: ", list)};
}

// [rows, columns] of a block.
Status read_block(const Json* value, const std::string& path, QuantizationConfig& out) {
  if (!value || value->is_null()) return {};
  const auto size = [&](std::size_t i) -> std::int64_t {
    return value->is_array() && value->items().size() == 2 && value->items()[i].is_integer()
               ? value->items()[i].as_integer()
               : 0;
  };
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (size(0) <= 0 || size(1) <= 0 || size(0) > kMost || size(1) > kMost)
    return {
        Code::format,
        concat(path, ": quantization_config: a block size must be two positive whole numbers up to ", kMost)};
  out.block_rows = static_cast<std::uint64_t>(size(0));
  out.block_columns = static_cast<std::uint64_t>(size(1));
  return {};
}

// Values of a row that follow one another: a block one row high.
Status read_group(const Json& weights, const std::string& path, QuantizationConfig& out) {
  const Json* strategy = weights.find("strategy");
  if (!strategy || !strategy->is_string() || strategy->as_string() != "group") return {};
  const Json* size = weights.find("group_size");
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (!size || !size->is_integer() || size->as_integer() <= 0 || size->as_integer() > kMost)
    return {
        Code::format,
        concat(path,
               ": quantization_config: the group_size of strategy \"group\" must be a positive whole number "
               "up to ",
               kMost)};
  out.block_rows = 1;
  out.block_columns = static_cast<std::uint64_t>(size->as_integer());
  return {};
}

}  // namespace

Result<QuantizationConfig> read_quantization_config(const Json& config, const std::string& path) {
  QuantizationConfig out;
  const Json* quantization = config.find("quantization_config");
  if (!quantization || quantization->is_null()) return out;
  const Json* method = quantization->find("quant_method");
  if (!method || !method->is_string())
    return Status(
        Code::unsupported,
        concat(path, ": quantization_config names no quant_method, so its weights cannot be told apart"));
  out.method = method->as_string();
  constexpr std::string_view kMethods[] = {"mxfp4", "bitsandbytes", "fp8", "compressed-tensors", "modelopt"};
  constexpr std::string_view kCompressed[] = {"float-quantized", "nvfp4-pack-quantized",
                                              "int-quantized",   "naive-quantized",
                                              "dense",           "mixed-precision"};
  constexpr std::string_view kAlgorithms[] = {"NVFP4", "FP8", "MIXED_PRECISION"};
  const auto check = [&](const Json& where, std::string_view key,
                         std::span<const std::string_view> known) -> Status {
    const Json* kind = where.find(key);
    if (!kind || !kind->is_string()) return {};
    if (std::find(known.begin(), known.end(), kind->as_string()) != known.end()) return {};
    return refuse_kind(path, key, kind->as_string(), known);
  };
  NIB_TRY(check(*quantization, "quant_method", kMethods));
  NIB_TRY(read_block(quantization->find("weight_block_size"), path, out));
  if (out.method == "modelopt") NIB_TRY(check(*quantization, "quant_algo", kAlgorithms));
  if (out.method != "compressed-tensors") return out;
  NIB_TRY(check(*quantization, "format", kCompressed));
  const Json* groups = quantization->find("config_groups");
  if (!groups || !groups->is_object()) return out;
  for (const auto& [name, group] : groups->members()) {
    NIB_TRY(check(group, "format", kCompressed));
    const Json* weights = group.find("weights");
    if (!weights) continue;
    NIB_TRY(read_block(weights->find("block_structure"), path, out));
    NIB_TRY(read_group(*weights, path, out));
  }
  return out;
}

Status join_tensors(const StoredTensors& stored, const QuantizationConfig& quantization,
                    Checkpoint& checkpoint) {
  return Joiner(stored, quantization, checkpoint).join();
}

}  // namespace nib::inline v0
