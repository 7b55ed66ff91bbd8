// Room base: Status, Result<T>: how every fallible function of nibble answers. Never prints, never aborts.
//
// A message is one sentence that names the user's thing: the file, the tensor, the key, the option; what was
// found and what was expected. It never names a function of ours.
#pragma once

#include <cassert>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace nib::inline v0 {

// The values are those of the C ABI (nib_status) and are never reused.
enum class Code : std::int32_t {
  ok = 0,
  stopped = 1,  // a callback or a cancel asked; state is consistent
  end = 2,      // a stop token, or past the last item
  argument = -1,
  state = -2,
  version = -3,
  busy = -4,
  not_found = -10,
  io = -11,
  format = -12,       // a file says something it must not say
  unsupported = -13,  // the file may be right, but nibble cannot do it
  memory = -20,
  budget = -21,
  device_memory = -22,
  device = -23,
  context_full = -30,
  small_buffer = -31,
  internal = -99,
};

// "NIB_E_FORMAT" and so on; static storage; any thread.
constexpr const char* code_name(Code code) {
  switch (code) {
    case Code::ok:
      return "NIB_OK";
    case Code::stopped:
      return "NIB_STOPPED";
    case Code::end:
      return "NIB_END";
    case Code::argument:
      return "NIB_E_ARGUMENT";
    case Code::state:
      return "NIB_E_STATE";
    case Code::version:
      return "NIB_E_VERSION";
    case Code::busy:
      return "NIB_E_BUSY";
    case Code::not_found:
      return "NIB_E_NOT_FOUND";
    case Code::io:
      return "NIB_E_IO";
    case Code::format:
      return "NIB_E_FORMAT";
    case Code::unsupported:
      return "NIB_E_UNSUPPORTED";
    case Code::memory:
      return "NIB_E_MEMORY";
    case Code::budget:
      return "NIB_E_BUDGET";
    case Code::device_memory:
      return "NIB_E_DEVICE_MEMORY";
    case Code::device:
      return "NIB_E_DEVICE";
    case Code::context_full:
      return "NIB_E_CONTEXT_FULL";
    case Code::small_buffer:
      return "NIB_E_SMALL_BUFFER";
    case Code::internal:
      return "NIB_E_INTERNAL";
  }
  return "NIB_E_INTERNAL";
}

// A code and, when it is not ok, a sentence. Cheap to return when ok.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

// A value, or the Status that says why there is none. value() and take() require ok().
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T take() { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace nib::inline v0

// Returns from the enclosing function when `expr` (a Status) is not ok.
#define NIB_TRY(expr)                                                              \
  do {                                                                             \
    if (::nib::Status nib_status_ = (expr); !nib_status_.ok()) return nib_status_; \
  } while (0)

#define NIB_CONCAT_2(a, b) a##b
#define NIB_CONCAT(a, b) NIB_CONCAT_2(a, b)
// NIB_ASSIGN(auto file, open_file(path)): declares or assigns the value, or returns the Status.
#define NIB_ASSIGN(target, expr) NIB_ASSIGN_2(target, expr, NIB_CONCAT(nib_result_, __LINE__))
#define NIB_ASSIGN_2(target, expr, temp) \
  auto temp = (expr);                    \
  if (!temp.ok()) return temp.status();  \
  target = temp.take()
