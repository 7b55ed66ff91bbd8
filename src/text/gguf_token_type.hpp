// Room text, private: what the numbers of tokenizer.ggml.token_type mean.
#pragma once

#include <cstdint>

namespace nib::inline v0::gguf {

enum Type : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

}  // namespace nib::inline v0::gguf
