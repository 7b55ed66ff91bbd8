// Room io, private: the two containers behind open_checkpoint, each of which fills in the tensors.
#pragma once

#include <nibble/io/checkpoint.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

constexpr std::uint64_t kMaxTemplateBytes = 4 << 20;

// A tensor as a safetensors file has it, before those that belong together are joined.
struct StoredTensor {
  const TensorEntry* entry;
  std::uint32_t file;  // place in Checkpoint::files
};
using StoredTensors = std::map<std::string_view, StoredTensor, std::less<>>;

// What quantization_config adds to what names and shapes of tensors say.
struct QuantizationConfig {
  std::string method;  // "mxfp4", "bitsandbytes", ...; empty: nothing is quantized
  std::uint64_t block_rows = 0, block_columns = 0;  // of scales in a grid, or of groups in a row; 0: not said
};

// `config` is config.json and `path` its name. Errors: unsupported (a method that is not read), format.
Result<QuantizationConfig> read_quantization_config(const Json& config, const std::string& path);

// Fills checkpoint.tensors, sorted by name; reads the few bytes that describe quantized tensors from
// checkpoint.files. Errors: format and unsupported by the name of the tensor, memory, io.
Status join_tensors(const StoredTensors& stored, const QuantizationConfig& quantization,
                    Checkpoint& checkpoint);

// Fills files, tensors (not without needs.weights), gguf and chat_template from the GGUF file at `path`, and
// from all others of its split. Errors as open_checkpoint.
Status open_gguf(const FileSystem& file_system, const std::string& path, CheckpointNeeds needs,
                 Checkpoint& checkpoint);

// Whether this is the header of a prepared file; and fills checkpoint.prepared and checkpoint.tensors from
// it, the header of checkpoint.files[file]. Errors: format, memory, io.
bool is_prepared(const SafetensorsHeader& header);
Status open_prepared(const SafetensorsHeader& header, std::uint32_t file, Checkpoint& checkpoint);

// Which file of how many, when the name says so: "...-00002-of-00003.gguf" is {2, 3}.
struct SplitPlace {
  std::uint32_t number, count;
};
std::optional<SplitPlace> split_place(std::string_view name, std::string_view extension);

}  // namespace nib::inline v0
