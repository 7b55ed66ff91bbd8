// Room io: prepared models: a safetensors file whose matrices lie in the order in which kernels read them, so
// that opening is reading. `nibble quantize --prepare` writes them.
//
// The file is a safetensors file like any other:
//   __metadata__         "nibble.layout": the version of the packed order, a decimal number
//   packed/NAME          U8 [records, record_bytes]: the matrix whose first tensor is NAME; a record is one
//                        expert, padded with zeros to a multiple of 4096 bytes
//   NAME                 a tensor that is not packed (norms, biases, embedding), as it was stored
//   nibble.description   U8: JSON, what the packed bytes were made of:
//                          tensors    [{name, format, dtype, shape, bytes, sharing?}], `bytes` of all planes
//                                     together, `sharing` as [rows, columns, run] of ScaleSharing
//                          matrices   [{name, finding}], `finding` a digit that those who pack give a meaning
// Data begins at a multiple of 4096, and so does every record, so that files can be read past the system's
// cache. What else a model needs lies beside it: config.json and the tokenizer, or, of a model that was a
// GGUF file, all of its metadata as metadata.gguf.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nib::inline v0 {

inline constexpr std::uint64_t kPreparedAlignment = 4096;
inline constexpr const char* kPreparedGguf = "metadata.gguf";

// The name under which a matrix is stored.
std::string prepared_name(std::string_view first_tensor);

SafetensorsMetadata prepared_metadata(std::uint32_t layout);

// The tensor that holds the description.
inline constexpr const char* kPreparedDescription = "nibble.description";

struct PreparedName {
  std::string_view first_tensor;
  std::uint8_t finding = 0;  // 0..9
};

// The text of the description; its size does not depend on the findings. Any thread.
std::string describe_prepared(std::span<const CheckpointTensor* const> tensors,
                              std::span<const PreparedName> matrices);

}  // namespace nib::inline v0
