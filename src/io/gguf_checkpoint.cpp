// A GGUF file, or all files of a split one, as a checkpoint.
#include "checkpoint_parts.hpp"
#include "gguf_formats.hpp"
#include "text.hpp"
#include <nibble/base/concat.hpp>

#include <cstdio>
#include <map>
#include <set>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kWeight = ".weight";

class GgufOpener {
 public:
  GgufOpener(const FileSystem& file_system, CheckpointNeeds needs, Checkpoint& out)
      : file_system_(file_system), needs_(needs), out_(out) {}

  Status open(const std::string& path) {
    NIB_TRY(open_files(path));
    if (needs_.weights) {
      NIB_TRY(add_tensors());
      NIB_TRY(check_total());
    }
    out_.gguf = std::move(headers_[0].metadata);
    if (needs_.config && !out_.gguf->find("general.architecture"))
      return {Code::not_found, concat(out_.files[0]->name(), ": key 'general.architecture' is missing")};
    if (const auto value = out_.gguf->find("tokenizer.chat_template")) {
      const auto text = value->as_string();
      if (!text || text->size() > kMaxTemplateBytes)
        return {Code::format,
                concat(out_.files[0]->name(), ": key 'tokenizer.chat_template' is no string of at most ",
                       kMaxTemplateBytes, " bytes")};
      out_.chat_template = *text;
    }
    return {};
  }

 private:
  Status open_files(const std::string& path) {
    const auto place = split_place(path, ".gguf");
    if (!place || place->count == 0) return open_file(path, {1, 1});
    const std::string stem = path.substr(0, path.size() - std::string_view("00001-of-00001.gguf").size());
    // Configuration and tokenizer are in the first.
    for (std::uint32_t number = 1; number <= (needs_.weights ? place->count : 1); ++number) {
      char tail[32];
      std::snprintf(tail, sizeof tail, "%05u-of-%05u.gguf", number, place->count);
      NIB_TRY(open_file(stem + tail, {number, place->count}));
    }
    return {};
  }

  Status open_file(const std::string& path, SplitPlace place) {
    if (!file_system_.exists(path))
      return {Code::not_found, concat(path, ": no such file, but it is number ", place.number,
                                      " of a model in ", place.count)};
    NIB_ASSIGN(std::unique_ptr<File> file, file_system_.open(path));
    NIB_ASSIGN(GgufHeader header, read_gguf_header(*file));
    NIB_TRY(check_number(header.metadata, path, "split.count", place.count, place.count > 1));
    NIB_TRY(check_number(header.metadata, path, "split.no", place.number - 1, false));
    out_.files.push_back(std::move(file));
    headers_.push_back(std::move(header));
    return {};
  }

  Status check_number(const GgufMetadata& metadata, const std::string& path, std::string_view key,
                      std::uint64_t expected, bool required) const {
    const auto value = metadata.find(key);
    if (!value && !required) return {};
    const auto number = value ? value->as_unsigned() : std::nullopt;
    // A file that says it is the only one may say 0 or 1.
    if (number == expected || (number == 0 && expected == 1 && key == "split.count")) return {};
    return {Code::format, concat(path, ": key ", quoted(key), " is ",
                                 number ? concat(*number) : std::string(value ? "no number" : "missing"),
                                 ", the name of the file says ", expected)};
  }

  Status check_total() const {
    const auto value = headers_[0].metadata.find("split.tensors.count");
    if (!value) return {};
    std::uint64_t total = 0;
    for (const GgufHeader& header : headers_) total += header.tensors.size();
    const auto number = value->as_integer();
    if (number && *number >= 0 && static_cast<std::uint64_t>(*number) == total) return {};
    return {Code::format,
            concat(out_.files[0]->name(), ": key 'split.tensors.count' is ",
                   number ? concat(*number) : std::string("no number"), ", the files hold ", total)};
  }

  struct Stored {
    std::uint32_t file;
    const GgufTensor* tensor;
  };

  Status add_tensors() {
    std::map<std::string_view, Stored> stored;
    for (std::uint32_t file = 0; file < headers_.size(); ++file)
      for (const GgufTensor& tensor : headers_[file].tensors) {
        const auto [at, added] = stored.emplace(tensor.name, Stored{file, &tensor});
        if (!added)
          return {Code::format, concat(out_.files[file]->name(), ": tensor ", quoted(tensor.name),
                                       " is also in ", out_.files[at->second.file]->name())};
      }
    std::set<std::string> joined;
    for (const auto& [name, place] : stored) {
      CheckpointTensor& tensor = out_.tensors.emplace_back();
      tensor.name = name;
      tensor.format = format_of(place.tensor->type);
      tensor.dtype = dtype_of(place.tensor->type);
      tensor.type_name = gguf_type_info(place.tensor->type).name;
      tensor.shape = place.tensor->shape;
      tensor.codes = {place.file, place.tensor->offset, place.tensor->bytes};
      if (tensor.type_name != "NVFP4" || !name.ends_with(kWeight)) continue;
      // "blk.0.attn_q.scale" belongs to "blk.0.attn_q.weight".
      const std::string scale = concat(name.substr(0, name.size() - kWeight.size()), ".scale");
      const auto found = stored.find(scale);
      if (found == stored.end()) continue;
      NIB_TRY(read_factors(found->second, tensor));
      joined.insert(scale);
    }
    std::erase_if(out_.tensors, [&](const CheckpointTensor& tensor) { return joined.contains(tensor.name); });
    return {};
  }

  Status read_factors(const Stored& scale, CheckpointTensor& tensor) {
    const File& file = *out_.files[scale.file];
    const std::uint64_t matrices = tensor.shape.size() == 3 ? tensor.shape[0] : 1;
    const std::uint64_t count = scale.tensor->bytes / sizeof(float);
    if (scale.tensor->type != GgufType::f32 || (count != 1 && count != matrices))
      return {Code::format,
              concat(file.name(), ": tensor ", quoted(scale.tensor->name), " is ",
                     gguf_type_info(scale.tensor->type).name, " ", shape_text(scale.tensor->shape),
                     ", F32 with 1 value", matrices > 1 ? concat(" or ", matrices) : "",
                     " was expected beside NVFP4 ", quoted(tensor.name))};
    std::vector<float> values(count);
    NIB_TRY(file.read_at(scale.tensor->offset, std::as_writable_bytes(std::span(values))));
    tensor.scaling.factors.assign(values.begin(), values.end());
    return {};
  }

  const FileSystem& file_system_;
  CheckpointNeeds needs_;
  Checkpoint& out_;
  std::vector<GgufHeader> headers_;
};

}  // namespace

std::optional<SplitPlace> split_place(std::string_view name, std::string_view extension) {
  constexpr std::string_view kPattern = "-#####-of-#####";
  if (!name.ends_with(extension) || name.size() < kPattern.size() + extension.size()) return std::nullopt;
  name.remove_suffix(extension.size());
  name.remove_prefix(name.size() - kPattern.size());
  std::uint32_t numbers[2] = {0, 0};
  for (std::size_t i = 0; i < kPattern.size(); ++i) {
    if (kPattern[i] != '#') {
      if (name[i] != kPattern[i]) return std::nullopt;
      continue;
    }
    if (name[i] < '0' || name[i] > '9') return std::nullopt;
    std::uint32_t& number = numbers[i < 7 ? 0 : 1];
    number = number * 10 + static_cast<std::uint32_t>(name[i] - '0');
  }
  return SplitPlace{numbers[0], numbers[1]};
}

Status open_gguf(const FileSystem& file_system, const std::string& path, CheckpointNeeds needs,
                 Checkpoint& checkpoint) {
  return GgufOpener(file_system, needs, checkpoint).open(path);
}

}  // namespace nib::inline v0
