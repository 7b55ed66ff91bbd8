// Room capi: sized structs, so that a program and a library of different ages understand each other.
//
// Into the library: what the caller's struct lacks counts as zero, which means default; what it has beyond
// ours must be zero, or the caller asks for something we do not know. Out of the library: what fits is
// filled, what lies beyond ours is zeroed.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace nib::capi {

// No release will have structs this large; a size beyond is memory that nobody initialized.
inline constexpr std::size_t kMaxStructSize = 4096;

// A size that some release's struct could have: sizeof is a multiple of the alignment.
template <class T>
Status check_size(std::size_t size, std::string_view name) {
  if (size >= alignof(T) && size % alignof(T) == 0 && size <= kMaxStructSize) return {};
  return {Code::argument, concat(name, " says that its size is ", size,
                                 " bytes, which no version has: start from its _INIT macro or its sizeof")};
}

// Reads `size` bytes of the caller's into `out`.
template <class T>
Status read_element(const void* given, std::size_t size, std::string_view name, T& out) {
  static_assert(std::is_trivially_copyable_v<T>);
  NIB_TRY(check_size<T>(size, name));
  const auto* bytes = static_cast<const unsigned char*>(given);
  if (size > sizeof(T) &&
      std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; }))
    return {Code::version, concat(name, " is from a newer nibble.h and sets a field beyond the ", sizeof(T),
                                  " bytes that this library knows")};
  out = T{};
  std::memcpy(&out, given, std::min(size, sizeof(T)));
  return {};
}

// Writes `value` over `size` bytes of the caller's, whose size check_size has accepted.
template <class T>
void write_element(const T& value, void* out, std::size_t size) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(out, &value, std::min(size, sizeof(T)));
  if (size > sizeof(T)) std::memset(static_cast<char*>(out) + sizeof(T), 0, size - sizeof(T));
}

// Reads a struct whose first field is its size; null is all defaults.
template <class T>
Status read_struct(const T* given, std::string_view name, T& out) {
  out = T{};
  return given ? read_element(given, given->struct_size, name, out) : Status();
}

// Checks a struct that is to be filled, before any work is done for it.
template <class T>
Status check_output(const T* out, std::string_view name) {
  if (!out) return {Code::argument, concat(name, " is NULL")};
  return check_size<T>(out->struct_size, name);
}

// Fills a struct that check_output has accepted. Its size stays the caller's.
template <class T>
void write_struct(T value, T* out) {
  value.struct_size = out->struct_size;
  write_element(value, out, out->struct_size);
}

inline Status check_flags(std::uint32_t flags, std::uint32_t known, std::string_view name) {
  if ((flags & ~known) == 0) return {};
  return {Code::version, concat(name, " has a flag (", flags & ~known, ") that this library does not know")};
}

inline Status check_reserved(std::uint32_t reserved, std::string_view name) {
  if (reserved == 0) return {};
  return {Code::version, concat("the reserved field of ", name, " is ", reserved, ", expected zero")};
}

}  // namespace nib::capi
