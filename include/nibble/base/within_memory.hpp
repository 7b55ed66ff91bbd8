// Room base: within_memory(): how work that allocates as a file demands turns a refused allocation into a
// Status.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <new>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

namespace nib::inline v0 {

// Code::memory in the name of `name`. When not even the sentence can be allocated it is empty.
inline Status out_of_memory(std::string_view name) noexcept {
  try {
    return {Code::memory, concat(name, ": not enough memory")};
  } catch (...) {
    return {Code::memory, {}};
  }
}

// work(), which returns a Status or a Result, or out_of_memory(name) when an allocation failed inside. Other
// exceptions pass.
template <class Work>
std::invoke_result_t<Work> within_memory(std::string_view name, Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return out_of_memory(name);
  } catch (const std::length_error&) {  // a size no container can have
    return out_of_memory(name);
  }
}

}  // namespace nib::inline v0
