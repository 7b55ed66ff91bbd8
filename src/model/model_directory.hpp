// Private to the room: what all that write models share of the places they read from and write to.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/output.hpp>

#include <string>

namespace nib::inline v0 {

// Errors: argument (`path` is where the checkpoint is read from, by whatever name), unsupported (it was
// prepared, and its values are packed). `directory`: whether `path` is to become one.
Status check_rewritable(const Checkpoint& checkpoint, const std::string& path, bool directory);

// Copies what a model's directory holds beside its weights and config.json: tokenizer, templates, licences.
Status copy_companions(const Checkpoint& checkpoint, const FileSystem& files,
                       const OutputDirectory& directory);

}  // namespace nib::inline v0
