// Private to the room: what the keys of a GGUF file say, in the files of a Hugging Face directory: the other
// way round than gguf_keys.cpp.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/formats/format.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/config.hpp>

#include <string>
#include <vector>

namespace nib::inline v0 {

struct HuggingFaceFiles {
  Json config;  // but for quantization_config
  struct Companion {
    std::string name, content;
  };
  std::vector<Companion> companions;  // tokenizer.json and the like
};

// Of an open GGUF file. `plain` is what the weights are that are not quantized. `notes` gets sentences about
// what was left out. Config and tokenizer were read back, and say the same. Errors: unsupported (something of
// the model or its tokenizer that these files do not say, by name), format (a key is missing or wrong), those
// of reading.
Result<HuggingFaceFiles> hugging_face_files(const Checkpoint& checkpoint, const ModelConfig& config,
                                            Format plain, std::vector<std::string>& notes);

}  // namespace nib::inline v0
