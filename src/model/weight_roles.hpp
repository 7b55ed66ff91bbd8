// Private to the room: what each tensor of a checkpoint is for, and which tensors of the other container it
// becomes.
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

// The names of a checkpoint's tensors: the dialect whose embedding it has, and whose feed-forward layers
// where several share it; else the first.
const TensorNames& dialect_of(const Checkpoint& checkpoint, const Architecture& architecture);

// By the name in the checkpoint; what is not there is Role::other.
std::map<std::string, Role, std::less<>> roles_of(const TensorNames& names, const ModelConfig& config);

// As GGUF files name the tensors of this architecture, and as Hugging Face's directories do. Null when no
// GGUF file has it.
const TensorNames* gguf_names(const Architecture& architecture);
const TensorNames& hugging_face_names(const Architecture& architecture);

struct NamedWeight {
  WeightPlan plan;
  Role role;
};

// The tensors that a checkpoint of one container becomes in the other: `to` is one of the architecture's ways
// to name them. Experts are stacked or taken out of their stacks, gates and ups made two tensors of one or
// one of two, rows brought into the order of `to`. `unused` gets the names of tensors that are none of the
// architecture's. Errors: unsupported (`to` has no name for one), not_found and format (a tensor is missing
// or has another shape than its model).
Result<std::vector<NamedWeight>> weights_named(const TensorNames& to, const Checkpoint& checkpoint,
                                               const ModelConfig& config, std::vector<std::string>& unused);

}  // namespace nib::inline v0
