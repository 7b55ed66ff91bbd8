// Room capi: the caller's options, read by the rules of versioned.hpp into those of the runtime.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>
#include <nibble/runtime/plan.hpp>
#include <nibble/runtime/sampler.hpp>
#include <nibble/runtime/session.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include <nibble.h>

namespace nib::capi {

// Text of a caller: `size` may be NIB_NUL. `name` is what messages call it. Borrowed. Errors: argument.
Result<std::string_view> read_text(const char* data, std::size_t size, std::string_view name);

// For text that goes out: empty text has an address too.
inline const char* not_null(std::string_view text) { return text.data() ? text.data() : ""; }

// A path: not empty, no NUL inside.
Result<std::string_view> read_path(const char* data, std::size_t size);

Result<Numerics> read_numerics(std::uint32_t value);

// A caller's progress callback, and the sink that calls it. The sink points here: stay in place.
struct ProgressCall {
  nib_progress_fn call = nullptr;
  void* user = nullptr;
  ProgressSink sink() const;
};

// A caller's nib_model_options. `options` points to the other members: stay in place.
struct ModelRequest {
  ModelOptions options;
  std::uint32_t sessions = 1;
  std::uint32_t context = 0;
  std::shared_ptr<Cancel> cancel;
  ProgressCall progress;

  ModelRequest() = default;
  ModelRequest(const ModelRequest&) = delete;
  ModelRequest& operator=(const ModelRequest&) = delete;
  // Errors: argument, version, not_found (a budget for a device that is not there).
  Status read(const nib_model_options* given);
};

// A caller's nib_session_options.
struct SessionRequest {
  SessionOptions options;
  std::shared_ptr<Cancel> cancel;
  ProgressCall progress;

  // Fields left zero take what `wish` says. Errors: argument, version.
  Status read(const nib_session_options* given, const SamplerOptions& wish);
};

}  // namespace nib::capi
