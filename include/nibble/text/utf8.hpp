// Room text: one step through UTF-8 that may be cut off or wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nib::inline v0 {

struct Utf8Step {
  enum class Kind : std::uint8_t { character, unfinished, invalid };
  Kind kind;
  std::uint8_t
      length;  // bytes of it: the whole character, what there is of one, or the maximal part that is none
  char32_t code_point = 0;  // of a character
};

// The step at the beginning of `text`, which is not empty. Overlong forms, surrogates and what lies past
// U+10FFFF are invalid. An invalid step is the longest beginning of a character that cannot go on (Unicode's
// "maximal subpart"), so replacing each by one U+FFFD gives what other decoders give.
Utf8Step step_utf8(std::string_view text);

// Whether it is whole characters and nothing else.
bool is_utf8(std::string_view text);

}  // namespace nib::inline v0
