// Room io, private: how names from hostile files enter messages, and how running out of memory leaves as a
// Status.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

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

// work(), or Code::memory in the name of `name` when an allocation failed inside.
template <class Work>
std::invoke_result_t<Work> within_memory(std::string_view name, Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return Status(Code::memory, concat(name, ": not enough memory to read this file"));
}

}  // namespace nib::inline v0
