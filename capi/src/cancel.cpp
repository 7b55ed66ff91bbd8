// Room capi: nib_cancel.
#include "handles.hpp"

extern "C" {

nib_status nib_cancel_create(nib_cancel** out) {
  if (out) *out = nullptr;
  return nib::capi::guard(nullptr, [&]() -> nib::Status {
    NIB_TRY(nib::capi::require(out, "out"));
    *out = new nib_cancel{std::make_shared<nib::Cancel>()};
    return {};
  });
}

void nib_cancel_trigger(nib_cancel* cancel) {
  if (cancel) cancel->shared->trigger();
}

void nib_cancel_reset(nib_cancel* cancel) {
  if (cancel) cancel->shared->reset();
}

void nib_cancel_free(nib_cancel* cancel) { delete cancel; }

}  // extern "C"
