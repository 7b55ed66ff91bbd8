// JSON schemas and tools as the type declarations that harmony shows to the model. Private to the room.
#pragma once

#include <nibble/text/harmony.hpp>

#include <string>
#include <vector>

namespace nib::inline v0 {

// "# Tools" and a section for each namespace. Errors: unsupported when a schema is nested too deeply.
Result<std::string> tools_section(const std::vector<ToolNamespace>& namespaces);

}  // namespace nib::inline v0
