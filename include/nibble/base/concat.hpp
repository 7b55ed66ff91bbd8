// Room base: concat(...) joins text and numbers into one string; how error sentences are built.
#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>

namespace nib::inline v0 {

namespace concat_detail {
inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, char c) { out += c; }
template <class T>
requires(std::integral<T> && !std::same_as<T, char> && !std::same_as<T, bool>) void append(std::string& out,
                                                                                           T number) {
  char buffer[24];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  out.append(buffer, end);
}
template <std::floating_point T>
void append(std::string& out, T number) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::general, 6).ptr;
  out.append(buffer, end);
}
}  // namespace concat_detail

// Text pieces and numbers (integers in full, floating point with six digits) in order. Any thread.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string out;
  (concat_detail::append(out, parts), ...);
  return out;
}

}  // namespace nib::inline v0
