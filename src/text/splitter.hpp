// Cutting text into the words that BPE then works on, as published split patterns do. Private to the room.
#pragma once

#include <cstddef>
#include <span>
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

// All that are known. They split as a backtracking engine would, in linear time and
// constant memory, by the categories of Unicode 15; a byte that is no UTF-8 counts as a symbol of its own.
std::span<const SplitPattern> split_patterns();

// The one with that text, or null.
const SplitPattern* find_split_pattern(std::string_view regex);

// Of GPT-2, which files also name by leaving the pattern out.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace nib::inline v0
