#include "checkpoint_parts.hpp"
#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/prepared.hpp>

#include <algorithm>
#include <map>
#include <unordered_map>

namespace nib::inline v0 {
namespace {

// A value in a tree takes a hundred bytes of memory and as little as two in the file, hence both limits.
constexpr JsonLimits kConfigLimits = {.max_bytes = 16 << 20, .max_depth = 64, .max_values = 500'000};
constexpr JsonLimits kIndexLimits = {.max_bytes = 64 << 20, .max_depth = 64, .max_values = 2'100'000};
constexpr std::string_view kSafetensors = ".safetensors";
constexpr std::string_view kGguf = ".gguf";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

// What a file of this name usually is, when it is weights in a container that is not read here.
const char* foreign_kind(std::string_view name) {
  if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt"))
    return "a PyTorch pickle file";
  if (name.ends_with(".onnx")) return "an ONNX file";
  if (name.ends_with(".h5")) return "an HDF5 file";
  return nullptr;
}

Status foreign(const std::string& path, const char* kind) {
  return {Code::unsupported, concat(path, ": is ", kind, "; safetensors and GGUF are read")};
}

// Which files to read, and, with an index, which tensor is in which of them.
struct Listing {
  std::vector<std::string> paths;
  std::string index;                                        // its path; empty without one
  std::unordered_map<std::string, std::size_t> weight_map;  // tensor name to place in `paths`
};

class Opener {
 public:
  Opener(const FileSystem& file_system, CheckpointNeeds needs) : file_system_(file_system), needs_(needs) {}

  Result<Checkpoint> open(const std::string& path) {
    out_.path = path;
    NIB_TRY(find_directory());
    // First: "a PyTorch file" tells more than "no config.json". Without a tokenizer.json it may be in a GGUF
    // file.
    if (gguf_.empty() && (needs_.weights || tokenizer_part("tokenizer.json").empty())) NIB_TRY(list_files());
    if (!gguf_.empty()) {
      NIB_TRY(open_gguf(file_system_, gguf_, needs_, out_));
      return std::move(out_);
    }
    NIB_TRY(read_config());
    if (!out_.gguf) NIB_TRY(read_tokenizer_parts());  // whose metadata is the tokenizer, too
    if (needs_.weights) {
      NIB_TRY(read_headers());
      for (const SafetensorsHeader& header : headers_)
        if (is_prepared(header)) return prepared();
      if (out_.gguf) return no_config();
      NIB_ASSIGN(const QuantizationConfig quantization,
                 read_quantization_config(out_.config, in_directory("config.json")));
      NIB_TRY(collect());
      NIB_TRY(join_tensors(stored_, quantization, out_));
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
    if (name.ends_with(kGguf)) {
      gguf_ = path;
    } else if (name.ends_with(kIndexSuffix)) {
      index_ = path;
    } else if (!name.ends_with(kSafetensors)) {
      return {
          Code::unsupported,
          concat(
              path,
              ": is neither a directory nor a .safetensors or .gguf file; give the directory of the model")};
    } else if (!split_place(name, kSafetensors)) {
      alone_ = path;
    }
    return {};
  }

  std::string in_directory(const std::string& name) const { return join_path(out_.directory, name); }

  // --- configuration and tokenizer

  // The packed file of a prepared model is its only one. What was a GGUF file keeps its metadata.
  Result<Checkpoint> prepared() {
    if (headers_.size() != 1)
      return Status(Code::format, concat(out_.path, ": one of its ", headers_.size(),
                                         " files is prepared, and prepared models have one file"));
    NIB_TRY(open_prepared(headers_[0], static_cast<std::uint32_t>(out_.files.size() - 1), out_));
    return std::move(out_);
  }

  // Where a file of the tokenizer is: in the directory or, for "original", which holds the same model once
  // more, in the one above. Empty when it is nowhere.
  std::string tokenizer_part(const std::string& name) const {
    if (std::string path = in_directory(name); file_system_.exists(path)) return path;
    std::string directory = out_.directory;
    while (directory.ends_with('/')) directory.pop_back();
    if (name_of(directory) != "original") return {};
    std::string path = join_path(directory_of(directory), name);
    return file_system_.exists(path) ? path : std::string();
  }

  Result<std::optional<std::string>> read_text(const std::string& path, std::uint64_t max_bytes) {
    if (path.empty() || !file_system_.exists(path)) return std::optional<std::string>();
    NIB_ASSIGN(const std::unique_ptr<File> file, file_system_.open(path));
    NIB_ASSIGN(std::string text, read_all(*file, max_bytes));
    return std::optional<std::string>(std::move(text));
  }

  Result<std::optional<Json>> read_object(const std::string& path) {
    NIB_ASSIGN(const std::optional<std::string> text, read_text(path, kConfigLimits.max_bytes));
    if (!text) return std::optional<Json>();
    NIB_ASSIGN(Json json, parse_json(*text, path, kConfigLimits));
    if (!json.is_object()) return Status(Code::format, concat(path, ": must hold one JSON object"));
    return std::optional<Json>(std::move(json));
  }

  Status no_config() const {
    return {Code::not_found, concat(in_directory("config.json"), ": no such file; a model needs it")};
  }

  Status read_config() {
    const std::string path = in_directory("config.json");
    NIB_ASSIGN(std::optional<Json> config, read_object(path));
    const std::string metadata = in_directory(kPreparedGguf);
    if (config)
      out_.config = std::move(*config);
    else if (file_system_.exists(metadata))
      return open_gguf(file_system_, metadata, {.config = needs_.config, .weights = false}, out_);
    else if (needs_.config)
      return no_config();
    NIB_ASSIGN(out_.generation_config, read_object(tokenizer_part("generation_config.json")));
    return {};
  }

  Status read_tokenizer_parts() {
    if (std::string path = tokenizer_part("tokenizer.json"); !path.empty())
      out_.tokenizer_path = std::move(path);
    NIB_ASSIGN(out_.tokenizer_config, read_object(tokenizer_part("tokenizer_config.json")));
    NIB_ASSIGN(out_.chat_template, read_text(tokenizer_part("chat_template.jinja"), kMaxTemplateBytes));
    if (out_.chat_template) return {};
    NIB_ASSIGN(const std::optional<Json> alone, read_object(tokenizer_part("chat_template.json")));
    if (alone) out_.chat_template = template_of(*alone);
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

  // --- which files

  Status list_files() {
    if (!alone_.empty()) {
      listing_.paths = {alone_};
      return {};
    }
    if (index_.empty() && file_system_.exists(in_directory(kIndexName))) index_ = in_directory(kIndexName);
    if (!index_.empty()) return needs_.weights ? read_index() : Status();
    if (const std::string single = in_directory(kSingleName); file_system_.exists(single)) {
      listing_.paths = {single};
      return {};
    }
    return list_all();
  }

  // A directory without weights may still hold a tokenizer, which is all that some callers need.
  Status list_all() {
    NIB_ASSIGN(const std::vector<std::string> names, file_system_.list_directory(out_.directory));
    std::vector<std::string> ggufs;  // of a split one, the first
    std::string other;
    for (const std::string& name : names) {
      const auto place = split_place(name, kGguf);
      if (name.ends_with(kSafetensors))
        listing_.paths.push_back(in_directory(name));
      else if (name.ends_with(kGguf) && (!place || place->number <= 1))
        ggufs.push_back(name);
      else if (foreign_kind(name) && other.empty())
        other = name;
    }
    if (!listing_.paths.empty()) return {};
    if (ggufs.size() == 1) gguf_ = in_directory(ggufs[0]);
    if (ggufs.size() == 1 || !needs_.weights) return {};
    if (ggufs.size() > 1)
      return {Code::argument, concat(out_.directory, ": holds ", ggufs.size(), " models, among them ",
                                     ggufs[0], " and ", ggufs[1], "; give the path of one")};
    if (!other.empty()) return foreign(in_directory(other), foreign_kind(other));
    return {Code::not_found, concat(out_.directory, ": holds no weights: neither ", kIndexName, " nor any *",
                                    kSafetensors, " or *", kGguf, " file is there")};
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
        const auto [at, added] = stored_.try_emplace(entry.name, StoredTensor{&entry, file});
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

  const FileSystem& file_system_;
  CheckpointNeeds needs_;
  std::string index_, alone_, gguf_;  // paths the user named, or that were found in the directory
  Listing listing_;
  std::vector<SafetensorsHeader> headers_;  // one for each of out_.files
  StoredTensors stored_;
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
  if (plane.file == Plane::kNowhere)
    return {Code::unsupported,
            concat(checkpoint.path, ": was prepared, its values are packed; read the model it was made of")};
  return checkpoint.files[plane.file]->read_at(plane.offset + offset_in_plane, out);
}

}  // namespace nib::inline v0
