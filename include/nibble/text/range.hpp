// Room text: TextRange: a part of a text, by its bytes.
#pragma once

#include <cstddef>

namespace nib::inline v0 {

struct TextRange {
  std::size_t begin = 0, end = 0;  // end: one behind the last

  friend bool operator==(const TextRange&, const TextRange&) = default;
};

}  // namespace nib::inline v0
