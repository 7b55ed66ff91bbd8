// Room io, private: how names from hostile files enter messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nib::inline v0 {

// The name in quotes, short enough for a sentence and free of control characters (a name can carry terminal
// escapes).
inline std::string quoted(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  std::string out = "'";
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  if (name.size() > kLongest) {
    // Do not leave half a character behind.
    while ((static_cast<unsigned char>(out.back()) & 0xc0) == 0x80) out.pop_back();
    if (static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
    out += "...";
  }
  return out + "'";
}

}  // namespace nib::inline v0
