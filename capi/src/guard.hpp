// Room capi: the firewall. What the rooms return as Status or throw becomes a nib_status and a message.
#pragma once

#include <nibble/base/concat.hpp>
#include <nibble/base/status.hpp>

#include <cstddef>
#include <exception>
#include <new>
#include <string_view>

#include <nibble.h>

namespace nib::capi {

// Whether the caller's nib_error can hold a status and a message. A mis-sized one is refused before anything
// is done: a caller who forgot NIB_ERROR_INIT learns it from the first call, not from the first failure.
bool usable(const nib_error* error) noexcept;

// Writes both into `error` (may be null), the message as well-formed UTF-8 cut at a character. Allocates
// nothing. Returns the code.
nib_status report(nib_error* error, Code code, std::string_view message) noexcept;

// Runs `body`, which returns a Status, and lets nothing else out.
template <class Body>
nib_status guard(nib_error* error, Body&& body) noexcept {
  if (!usable(error)) return NIB_E_ARGUMENT;
  try {
    const Status status = body();
    return report(error, status.code(), status.message());
  } catch (const std::bad_alloc&) {
    return report(error, Code::memory, "there is no memory left for this call");
  } catch (const std::exception& exception) {
    return report(error, Code::internal, exception.what());
  } catch (...) {
    return report(error, Code::internal, "an exception of unknown type was thrown");
  }
}

// `name` is the parameter's name in nibble.h.
inline Status require(const void* pointer, std::string_view name) {
  if (pointer) return {};
  return {Code::argument, concat(name, " is NULL")};
}

}  // namespace nib::capi
