// Room runtime: the tokenizer of a checkpoint, from whichever of its files has it.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// What `path` names, as open_checkpoint(), without configuration or weights, which need not be there; and a
// tokenizer.json by whatever name ends in ".json". Errors: as open_checkpoint(); one that is not there is
// found missing by read_tokenizer(). Any thread.
Result<Checkpoint> open_vocabulary(const std::string& path, const FileSystem& files = disk_file_system());

// From tokenizer.json, or from the keys of a GGUF file; nothing when it has neither. `vocabulary` is the
// number of ids that the model has; 0: not known. Where it is that of gpt-oss (or not known, and the special
// tokens are those of gpt-oss), the ids that its files leave unnamed are spelled as OpenAI's tokenizer does. Errors: format, unsupported, memory, those of reading; each
// names the file. Any thread.
Result<std::optional<Tokenizer>> read_tokenizer(const Checkpoint& checkpoint, std::uint32_t vocabulary,
                                                const FileSystem& files = disk_file_system());

// Special tokens by the names that chat templates have for them, with their spellings.
using SpecialNames = std::vector<std::pair<std::string, std::string>>;

// From tokenizer_config.json (every key that ends in _token), or from the ids in a GGUF file, of which the
// `tokenizer` knows the spellings. Any thread.
SpecialNames read_special_names(const Checkpoint& checkpoint, const Tokenizer& tokenizer);

}  // namespace nib::inline v0
