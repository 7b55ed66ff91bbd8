// Cutting text into the words that BPE then works on, as published split patterns do. Private to the room.
#pragma once

#include <cstddef>
#include <string_view>

namespace nib::inline v0 {

// The length in bytes of the first word of `text`, which is not empty. Words tile the text.
using SplitFn = std::size_t (*)(std::string_view text);

// A published pattern, recognised by its exact text, and the hand-written code that splits as it does.
struct SplitPattern {
  std::string_view name;
  std::string_view regex;
  SplitFn next;
};

// The pattern with that text, or null.
const SplitPattern* find_split_pattern(std::string_view regex);

// The pattern of o200k (GPT-4o, gpt-oss), equal to a backtracking engine on it, in linear time and constant
// memory. A byte that is no UTF-8 counts as a symbol of its own.
std::size_t next_word_o200k(std::string_view text);

}  // namespace nib::inline v0
