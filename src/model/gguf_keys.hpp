// Private to the room: what config.json and tokenizer.json say, in the keys of a GGUF file: the other way
// round than config_gguf.cpp.
#pragma once

#include <nibble/io/checkpoint.hpp>
#include <nibble/io/gguf_writer.hpp>
#include <nibble/model/config.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace nib::inline v0 {

// The pairs for a Hugging Face checkpoint. `file_type` is that of general.file_type. `notes` gets sentences
// about what was left out. The pairs were read back, and say the same model. Errors: unsupported (something
// of the model or its tokenizer that no key says, by name), those of reading the tokenizer.
Result<GgufPairs> gguf_keys(const Checkpoint& checkpoint, const ModelConfig& config, std::uint32_t file_type,
                            const FileSystem& files, std::vector<std::string>& notes);

// The pairs of a GGUF file, but for those that speak of the file itself.
GgufPairs gguf_keys_of(const GgufMetadata& metadata, std::uint32_t file_type);

}  // namespace nib::inline v0
