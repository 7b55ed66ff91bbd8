// Room capi: what stands behind the opaque handles. Each keeps what it needs of the others by shared pointer,
// so they may be freed in any order.
#pragma once

#include "guard.hpp"
#include "options.hpp"
#include <nibble/base/cancel.hpp>
#include <nibble/runtime/plan.hpp>
#include <nibble/runtime/runtime.hpp>
#include <nibble/runtime/session.hpp>

#include <atomic>
#include <memory>
#include <string_view>

#include <nibble.h>
#include <unistd.h>

namespace nib::capi {

// A runtime, the process that made it and the log it writes to.
struct Host {
  std::shared_ptr<nib::Runtime> runtime;
  nib_log_fn on_log = nullptr;
  void* on_log_user = nullptr;
  pid_t process = getpid();

  // A forked child has the memory but not the threads.
  bool here() const { return getpid() == process; }
  void log(std::int32_t level, std::string_view text) const {
    if (on_log) on_log(on_log_user, level, text.data(), text.size());
  }
};

// Whether a handle may be used: it exists, in the process that made it. `name` is the parameter's name.
template <class Handle>
Status usable_here(const Handle* handle, std::string_view name) {
  NIB_TRY(require(handle, name));
  if (handle->host->here()) return {};
  return {Code::state, concat(name, " was made before a fork: the child process has to make its own")};
}

// In a forked child the threads that a destructor would wait for do not exist, so nothing is freed there.
template <class Handle>
void free_here(Handle* handle) noexcept {
  if (handle && handle->host->here()) delete handle;
}

}  // namespace nib::capi

struct nib_cancel {
  std::shared_ptr<nib::Cancel> shared;
};

struct nib_runtime {
  std::shared_ptr<const nib::capi::Host> host;
};

struct nib_plan {
  std::shared_ptr<const nib::capi::Host> host;
  nib::capi::ModelRequest request;  // owns the callback and the cancel that `plan` points to
  nib::Plan plan;
  std::atomic<bool> opened{false};
};

struct nib_model {
  std::shared_ptr<const nib::capi::Host> host;
  std::shared_ptr<nib::Model> model;
};

struct nib_session {
  enum class Use : int { idle, at_work, to_be_freed };

  std::shared_ptr<const nib::capi::Host> host;
  std::unique_ptr<nib::Session> session;
  std::shared_ptr<nib::Cancel> cancel;
  nib::capi::ProgressCall progress;
  nib::Status outcome;  // of the last batch step, whose message the caller borrows
  std::uint64_t prompt_tokens = 0;
  double prefill_seconds = 0;
  mutable std::atomic<Use> use{Use::idle};
};
