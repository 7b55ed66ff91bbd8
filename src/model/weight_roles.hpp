// Private to the room: what each tensor of a checkpoint is for, and which tensors of a GGUF file it becomes.
#pragma once

#include "row_source.hpp"
#include <nibble/model/architecture.hpp>
#include <nibble/model/config.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

enum class Role : std::uint8_t {
  other,  // norms, biases, sinks, and what the architecture does not know
  embedding,
  head,
  router,
  matrix,   // of a product inside a layer
  experts,  // the same, of experts
};

// The names of a checkpoint's tensors: the dialect whose embedding it has, and whose feed-forward layers where
// several share it; else the first.
const TensorNames& dialect_of(const Checkpoint& checkpoint, const Architecture& architecture);

// By the name in the checkpoint; what is not there is Role::other.
std::map<std::string, Role, std::less<>> roles_of(const TensorNames& names, const ModelConfig& config);

struct GgufWeight {
  WeightPlan plan;
  Role role;
};

// The tensors of the GGUF file that a Hugging Face checkpoint becomes. `unused` gets the names of tensors
// that are none of the architecture's. Errors: unsupported (GGUF has no names for it), not_found and format
// (a tensor is missing or has another shape than its model).
Result<std::vector<GgufWeight>> gguf_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                             std::vector<std::string>& unused);

}  // namespace nib::inline v0
