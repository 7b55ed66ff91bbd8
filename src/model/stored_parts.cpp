#include "stored_parts.hpp"

#include <nibble/base/concat.hpp>

#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kWeight = ".weight";

bool same(const Plane& a, const Plane& b) {
  return a.file == b.file && a.offset == b.offset && a.bytes == b.bytes;
}
bool is_plane(const CheckpointTensor& tensor, const std::string& name, const Plane& plane) {
  const bool any =
      same(plane, tensor.codes) || same(plane, tensor.scales) || same(plane, tensor.scaling.nested_scales);
  // Planes without bytes may share a place; then names decide.
  return any && (plane.bytes > 0 || name == tensor.name);
}
bool describes(const std::string& tensor, const std::string& module, const std::string& name, bool near) {
  if (!near) return false;
  for (const std::string_view suffix : {".quant_map", ".nested_quant_map", "_global_scale", "_scale_2"})
    if (name == concat(tensor, suffix)) return true;
  return name.starts_with(concat(tensor, ".quant_state.bitsandbytes__")) || name == module + ".weight_format";
}

}  // namespace

std::string module_of(const std::string& name) {
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

Result<StoredParts> StoredParts::read(const Checkpoint& checkpoint) {
  StoredParts all;
  for (std::uint32_t i = 0; i < checkpoint.files.size(); ++i) {
    NIB_ASSIGN(SafetensorsHeader header, read_safetensors_header(*checkpoint.files[i]));
    for (const TensorEntry& entry : header.tensors) all.entries_.emplace(entry.name, Entry{entry, i});
  }
  return all;
}

std::vector<OutputPart> StoredParts::of(const CheckpointTensor& tensor) const {
  std::vector<OutputPart> parts;
  const std::string module = module_of(tensor.name);
  for (auto at = entries_.lower_bound(module); at != entries_.end() && at->first.starts_with(module); ++at) {
    const auto& [entry, file] = at->second;
    const Plane plane{file, entry.offset, entry.bytes};
    if (is_plane(tensor, at->first, plane) ||
        describes(tensor.name, module, at->first, file == tensor.codes.file))
      parts.push_back({{entry.name, entry.dtype, entry.shape}, Part::codes, {}, plane});
  }
  return parts;
}

}  // namespace nib::inline v0
