#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <map>
#include <unordered_map>

namespace nib::inline v0 {
namespace {

// A value in a tree takes a hundred bytes of memory and as little as two in the file, hence both limits.
constexpr JsonLimits kConfigLimits = {.max_bytes = 16 << 20, .max_depth = 64, .max_values = 500'000};
constexpr JsonLimits kIndexLimits = {.max_bytes = 64 << 20, .max_depth = 64, .max_values = 2'100'000};
constexpr std::uint64_t kMaxTemplateBytes = 4 << 20;

constexpr std::string_view kSafetensors = ".safetensors";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

// "...-00001-of-00002.safetensors"
bool is_shard_name(std::string_view name) {
  constexpr std::string_view kPattern = "-#####-of-#####.safetensors";
  if (name.size() < kPattern.size()) return false;
  name.remove_prefix(name.size() - kPattern.size());
  return std::equal(name.begin(), name.end(), kPattern.begin(), [](char c, char pattern) {
    return pattern == '#' ? c >= '0' && c <= '9' : c == pattern;
  });
}

// What a file of this name usually is, when it is weights in a container that is not read here.
const char* foreign_kind(std::string_view name) {
  if (name.ends_with(".gguf")) return "a GGUF file";
  if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt"))
    return "a PyTorch pickle file";
  if (name.ends_with(".onnx")) return "an ONNX file";
  if (name.ends_with(".h5")) return "an HDF5 file";
  return nullptr;
}

Status foreign(const std::string& path, const char* kind) {
  return {Code::unsupported, concat(path, ": is ", kind, "; only safetensors checkpoints are read")};
}

// Which files to read, and, with an index, which tensor is in which of them.
struct Listing {
  std::vector<std::string> paths;
  std::string index;                                        // its path; empty without one
  std::unordered_map<std::string, std::size_t> weight_map;  // tensor name to place in `paths`
};

// A tensor as a file has it, before pairs are joined.
struct Stored {
  const TensorEntry* entry;
  std::uint32_t file;
};

class Opener {
 public:
  Opener(const FileSystem& file_system, CheckpointNeeds needs) : file_system_(file_system), needs_(needs) {}

  Result<Checkpoint> open(const std::string& path) {
    out_.path = path;
    NIB_TRY(find_directory());
    if (needs_.weights) NIB_TRY(list_files());  // first: "a GGUF file" tells more than "no config.json"
    NIB_TRY(read_config());
    NIB_TRY(read_tokenizer_parts());
    if (needs_.weights) {
      NIB_TRY(check_quantization());
      NIB_TRY(read_headers());
      NIB_TRY(collect());
      NIB_TRY(join_planes());
    }
    return std::move(out_);
  }

 private:
  // --- which directory, and what in it was named

  Status find_directory() {
    const std::string& path = out_.path;
    switch (file_system_.kind(path)) {
      case PathKind::missing:
        return {Code::not_found, concat(path, ": no such file or directory")};
      case PathKind::directory:
        out_.directory = path;
        return {};
      case PathKind::file:
        break;
    }
    out_.directory = directory_of(path);
    const std::string name = name_of(path);
    if (const char* kind = foreign_kind(name)) return foreign(path, kind);
    if (name.ends_with(kIndexSuffix)) {
      index_ = path;
    } else if (!name.ends_with(kSafetensors)) {
      return {
          Code::unsupported,
          concat(path, ": is neither a directory nor a .safetensors file; give the directory of the model")};
    } else if (!is_shard_name(name)) {
      alone_ = path;
    }
    return {};
  }

  std::string in_directory(const std::string& name) const { return join_path(out_.directory, name); }

  // --- configuration and tokenizer

  Result<std::optional<std::string>> read_text(const std::string& name, std::uint64_t max_bytes) {
    const std::string path = in_directory(name);
    if (!file_system_.exists(path)) return std::optional<std::string>();
    NIB_ASSIGN(const std::unique_ptr<File> file, file_system_.open(path));
    NIB_ASSIGN(std::string text, read_all(*file, max_bytes));
    return std::optional<std::string>(std::move(text));
  }

  Result<std::optional<Json>> read_object(const std::string& name) {
    NIB_ASSIGN(const std::optional<std::string> text, read_text(name, kConfigLimits.max_bytes));
    if (!text) return std::optional<Json>();
    const std::string path = in_directory(name);
    NIB_ASSIGN(Json json, parse_json(*text, path, kConfigLimits));
    if (!json.is_object()) return Status(Code::format, concat(path, ": must hold one JSON object"));
    return std::optional<Json>(std::move(json));
  }

  Status read_config() {
    NIB_ASSIGN(std::optional<Json> config, read_object("config.json"));
    if (config)
      out_.config = std::move(*config);
    else if (needs_.config)
      return {Code::not_found, concat(in_directory("config.json"), ": no such file; a model needs it")};
    NIB_ASSIGN(out_.generation_config, read_object("generation_config.json"));
    return {};
  }

  Status read_tokenizer_parts() {
    if (const std::string path = in_directory("tokenizer.json"); file_system_.exists(path))
      out_.tokenizer_path = path;
    NIB_ASSIGN(out_.tokenizer_config, read_object("tokenizer_config.json"));
    NIB_ASSIGN(out_.chat_template, read_text("chat_template.jinja", kMaxTemplateBytes));
    if (!out_.chat_template && out_.tokenizer_config)
      out_.chat_template = template_of(*out_.tokenizer_config);
    return {};
  }

  // A string, or a list of {name, template} of which "default" counts.
  static std::optional<std::string> template_of(const Json& tokenizer_config) {
    const Json* value = tokenizer_config.find("chat_template");
    if (value && value->is_array()) {
      const auto& items = value->items();
      const auto named_default = [](const Json& item) {
        const Json* name = item.find("name");
        return name && name->is_string() && name->as_string() == "default";
      };
      const auto found = std::find_if(items.begin(), items.end(), named_default);
      value = found == items.end() ? nullptr : found->find("template");
    }
    if (!value || !value->is_string()) return std::nullopt;
    return value->as_string();
  }

  Status check_quantization() const {
    const Json* quantization = out_.config.find("quantization_config");
    if (!quantization || quantization->is_null()) return {};
    const std::string config = in_directory("config.json");
    const Json* method = quantization->find("quant_method");
    if (!method || !method->is_string())
      return {
          Code::unsupported,
          concat(config, ": quantization_config names no quant_method, so its weights cannot be told apart")};
    if (method->as_string() == "mxfp4") return {};
    return {Code::unsupported, concat(config, ": quantization_config.quant_method is ",
                                      quoted(method->as_string()), ", only 'mxfp4' is read")};
  }

  // --- which files

  Status list_files() {
    if (!alone_.empty()) {
      listing_.paths = {alone_};
      return {};
    }
    if (index_.empty() && file_system_.exists(in_directory(kIndexName))) index_ = in_directory(kIndexName);
    if (!index_.empty()) return read_index();
    if (const std::string single = in_directory(kSingleName); file_system_.exists(single)) {
      listing_.paths = {single};
      return {};
    }
    return list_all();
  }

  Status list_all() {
    NIB_ASSIGN(const std::vector<std::string> names, file_system_.list_directory(out_.directory));
    const char* other = nullptr;
    std::string other_name;
    for (const std::string& name : names) {
      if (name.ends_with(kSafetensors)) {
        listing_.paths.push_back(in_directory(name));
      } else if (const char* kind = foreign_kind(name); kind && !other) {
        other = kind;
        other_name = name;
      }
    }
    if (!listing_.paths.empty()) return {};
    if (other) return foreign(in_directory(other_name), other);
    return {Code::not_found, concat(out_.directory, ": holds no weights: neither ", kIndexName, " nor any *",
                                    kSafetensors, " file is there")};
  }

  Status read_index() {
    listing_.index = index_;
    NIB_ASSIGN(const std::unique_ptr<File> file, file_system_.open(index_));
    NIB_ASSIGN(const std::string text, read_all(*file, kIndexLimits.max_bytes));
    NIB_ASSIGN(const Json index, parse_json(text, index_, kIndexLimits));
    const Json* map = index.find("weight_map");
    if (!map || !map->is_object())
      return {Code::format, concat(index_, ": has no weight_map, an object of tensor names and file names")};
    std::map<std::string_view, std::size_t>
        places;  // file name to place; sorted, so that files open in order
    for (const auto& [tensor, shard] : map->members()) {
      if (!shard.is_string())
        return {Code::format,
                concat(index_, ": weight_map maps tensor ", quoted(tensor), " to no file name")};
      const std::string& name = shard.as_string();
      if (name.empty() || name == "." || name == ".." || name.find_first_of("/\\") != name.npos ||
          name.find('\0') != name.npos)
        return {Code::format, concat(index_, ": weight_map maps tensor ", quoted(tensor), " to ",
                                     quoted(name), ", which is no plain file name in the same directory")};
      places.emplace(name, 0);
    }
    if (places.empty()) return {Code::format, concat(index_, ": weight_map is empty")};
    for (auto& [name, place] : places) {
      place = listing_.paths.size();
      listing_.paths.push_back(in_directory(std::string(name)));
    }
    for (const auto& [tensor, shard] : map->members()) {
      const std::size_t place = places.find(shard.as_string())->second;
      if (!listing_.weight_map.emplace(tensor, place).second)
        return {Code::format, concat(index_, ": weight_map maps tensor ", quoted(tensor), " twice")};
    }
    return {};
  }

  // --- what the files hold

  Status read_headers() {
    for (std::size_t i = 0; i < listing_.paths.size(); ++i) {
      const std::string& path = listing_.paths[i];
      if (!file_system_.exists(path)) return missing_shard(i);
      NIB_ASSIGN(std::unique_ptr<File> file, file_system_.open(path));
      NIB_ASSIGN(SafetensorsHeader header, read_safetensors_header(*file));
      out_.files.push_back(std::move(file));
      headers_.push_back(std::move(header));
    }
    return {};
  }

  Status missing_shard(std::size_t place) const {
    for (const auto& [tensor, where] : listing_.weight_map)
      if (where == place)
        return {Code::not_found, concat(listing_.paths[place], ": no such file, but ", listing_.index,
                                        " maps tensor ", quoted(tensor), " to it")};
    return {Code::not_found, concat(listing_.paths[place], ": no such file")};
  }

  // Fills stored_: by the index where there is one, else all tensors of all files.
  Status collect() {
    for (std::uint32_t file = 0; file < headers_.size(); ++file) {
      for (const TensorEntry& entry : headers_[file].tensors) {
        if (!listing_.index.empty()) {
          const auto mapped = listing_.weight_map.find(entry.name);
          if (mapped == listing_.weight_map.end() || mapped->second != file) continue;
        }
        const auto [at, added] = stored_.try_emplace(entry.name, Stored{&entry, file});
        if (!added)
          return {Code::format, concat(out_.files[file]->name(), ": tensor ", quoted(entry.name),
                                       " is also in ", out_.files[at->second.file]->name())};
      }
    }
    for (const auto& [tensor, place] : listing_.weight_map)
      if (!stored_.contains(tensor))
        return {Code::format, concat(listing_.paths[place], ": has no tensor ", quoted(tensor), ", but ",
                                     listing_.index, " maps it to this file")};
    return {};
  }

  // --- from what files hold to tensors

  Plane plane_of(const Stored& stored) const {
    return {stored.file, stored.entry->offset, stored.entry->bytes};
  }

  const Stored* find_stored(const std::string& name) const {
    const auto found = stored_.find(name);
    return found == stored_.end() ? nullptr : &found->second;
  }

  template <class... Parts>
  Status wrong(const Stored& stored, const Parts&... parts) const {
    return {Code::format,
            concat(out_.files[stored.file]->name(), ": tensor ", quoted(stored.entry->name), " ", parts...)};
  }

  static bool is_float(DType dtype) {
    return dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f32;
  }

  // The names under which one tensor's two planes are stored.
  struct PlaneNames {
    std::string tensor, codes, scales;
  };

  static std::optional<PlaneNames> plane_names(std::string_view name) {
    for (const char* separator : {"_", "."})
      for (const char* plane : {"blocks", "scales"})
        if (name.ends_with(concat(separator, plane))) {
          const std::string tensor(name.substr(0, name.size() - concat(separator, plane).size()));
          return PlaneNames{tensor, concat(tensor, separator, "blocks"), concat(tensor, separator, "scales")};
        }
    return std::nullopt;
  }

  Status join_planes() {
    for (const auto& [name, stored] : stored_) {
      const auto names = plane_names(name);
      const Stored* codes = names ? find_stored(names->codes) : nullptr;
      const Stored* scales = names ? find_stored(names->scales) : nullptr;
      if (codes && scales) {
        if (codes == &stored) NIB_TRY(add_mxfp4(names->tensor, *codes, *scales));
      } else if (names && stored.entry->dtype == DType::u8) {
        return wrong(stored, "is half of an MXFP4 tensor, the other half ",
                     quoted(codes ? names->scales : names->codes), " is missing");
      } else if (codes && is_float(stored.entry->dtype)) {
        return refuse_dequantized(stored);
      } else {
        add_plain(std::string(name), stored);
      }
    }
    std::sort(out_.tensors.begin(), out_.tensors.end(),
              [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < out_.tensors.size(); ++i)
      if (out_.tensors[i - 1].name == out_.tensors[i].name)
        return {Code::format, concat(out_.path, ": tensor ", quoted(out_.tensors[i].name),
                                     " is stored twice: as itself and as blocks with scales")};
    return {};
  }

  Status refuse_dequantized(const Stored& stored) const {
    return {
        Code::unsupported,
        concat(
            out_.files[stored.file]->name(), ": tensor ", quoted(stored.entry->name), " is ",
            dtype_name(stored.entry->dtype),
            " without scales, U8 blocks with scales were expected: the model was dequantized when it was "
            "loaded (dequantize=True) and then saved under the names of the quantized tensors, which nothing "
            "reads back; use the original MXFP4 checkpoint, or save under the unquantized names")};
  }

  Status add_mxfp4(const std::string& name, const Stored& blocks, const Stored& scales) {
    constexpr std::uint64_t kGroup = format_info(Format::mxfp4).group;
    constexpr std::uint64_t kGroupBytes = format_info(Format::mxfp4).code_bytes;
    const auto& shape = blocks.entry->shape;
    const std::string other = concat(" beside ", quoted(scales.entry->name), " ",
                                     dtype_name(scales.entry->dtype), " ", shape_text(scales.entry->shape));
    const std::string found = concat(dtype_name(blocks.entry->dtype), " ", shape_text(shape), other);
    if (blocks.entry->dtype != DType::u8 || scales.entry->dtype != DType::u8)
      return wrong(blocks, "is ", found, ", MXFP4 blocks and scales are U8");
    if (shape.size() < 2 || shape.back() != kGroupBytes ||
        !std::equal(shape.begin(), shape.end() - 1, scales.entry->shape.begin(), scales.entry->shape.end()))
      return wrong(blocks, "is ", found, ", MXFP4 needs [..., G, 16] beside [..., G]");
    CheckpointTensor tensor;
    tensor.name = name;
    tensor.format = Format::mxfp4;
    tensor.shape = scales.entry->shape;
    // No overflow: the blocks' 16 G bytes are in the file, so 32 G is far below 2^64 unless another dimension
    // is 0.
    const auto columns = checked_mul(tensor.shape.back(), kGroup);
    if (!columns) return wrong(blocks, "is ", found, ", its rows are too long");
    tensor.shape.back() = *columns;
    tensor.codes = plane_of(blocks);
    tensor.scales = plane_of(scales);
    out_.tensors.push_back(std::move(tensor));
    return {};
  }

  static Format format_of(DType dtype) {
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

  void add_plain(std::string name, const Stored& stored) {
    CheckpointTensor tensor;
    tensor.name = std::move(name);
    tensor.dtype = stored.entry->dtype;
    tensor.format = format_of(tensor.dtype);
    tensor.shape = stored.entry->shape;
    tensor.codes = plane_of(stored);
    out_.tensors.push_back(std::move(tensor));
  }

  const FileSystem& file_system_;
  CheckpointNeeds needs_;
  std::string index_, alone_;  // paths the user named, or where the index was found
  Listing listing_;
  std::vector<SafetensorsHeader> headers_;  // one for each of out_.files
  std::map<std::string_view, Stored, std::less<>> stored_;
  Checkpoint out_;
};

}  // namespace

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const CheckpointTensor& tensor, std::string_view of) { return tensor.name < of; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

Result<Checkpoint> open_checkpoint(const std::string& path, const FileSystem& files, CheckpointNeeds needs) {
  return within_memory(path, [&] { return Opener(files, needs).open(path); });
}

Status read_plane(const Checkpoint& checkpoint, const Plane& plane, std::uint64_t offset_in_plane,
                  std::span<std::byte> out) {
  if (offset_in_plane > plane.bytes || out.size() > plane.bytes - offset_in_plane)
    return {Code::argument, concat(checkpoint.path, ": ", out.size(), " bytes at byte ", offset_in_plane,
                                   " were asked of a tensor's plane of ", plane.bytes, " bytes")};
  return checkpoint.files[plane.file]->read_at(plane.offset + offset_in_plane, out);
}

}  // namespace nib::inline v0
