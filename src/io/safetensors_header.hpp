// Room io, private: the checks of a header's JSON, which the reader makes of files and the writer of itself.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// `json` is the header of a file of `file_size` bytes called `name`. All checks of read_safetensors_header.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, const std::string& name,
                                                   std::uint64_t file_size);

}  // namespace nib::inline v0
