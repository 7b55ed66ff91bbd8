// Room model: the vocabulary in a GGUF file: the keys tokenizer.ggml.*, as text/tokenizer_data.hpp takes
// them.
#pragma once

#include <nibble/io/gguf.hpp>
#include <nibble/text/tokenizer_data.hpp>

#include <string_view>
#include <vector>

namespace nib::inline v0 {

// Whether there is one. Any thread.
bool has_vocabulary(const GgufMetadata& metadata);

// What the keys say, unchecked; a list of the wrong kind is empty. Any thread.
GgufVocabulary gguf_vocabulary(const GgufMetadata& metadata);

// A token that has a name in configurations and chat templates.
struct NamedToken {
  std::string_view name;  // "bos", "eos", "unk", "pad"; static storage
  Token id;               // unchecked
};
// Those that the keys name. Any thread.
std::vector<NamedToken> gguf_named_tokens(const GgufMetadata& metadata);

}  // namespace nib::inline v0
