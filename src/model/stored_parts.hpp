// Private to the room: the stored tensors of safetensors files behind the tensors of a checkpoint, which has
// joined them.
#pragma once

#include <nibble/io/checkpoint.hpp>
#include <nibble/io/quantized_parts.hpp>
#include <nibble/io/safetensors.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

// The module of a weight: its name without ".weight".
std::string module_of(const std::string& name);

struct OutputPart {
  TensorSpec spec;
  Part part = Part::codes;
  std::string bytes;  // of Part::fixed
  Plane plane;        // of a tensor that goes over as it is
};

class StoredParts {
 public:
  static Result<StoredParts> read(const Checkpoint& checkpoint);

  // Those that `tensor` was made of: its planes by where they are, the rest by name.
  std::vector<OutputPart> of(const CheckpointTensor& tensor) const;

 private:
  struct Entry {
    TensorEntry entry;
    std::uint32_t file;
  };
  std::multimap<std::string, Entry, std::less<>> entries_;
};

}  // namespace nib::inline v0
