// Room cuda: what drawing a token needs to know of logits that stay on the device.
#pragma once

#include "queue.hpp"
#include <nibble/base/status.hpp>
#include <nibble/kernels/device_logits.hpp>

namespace nib::inline v0::cuda {

Status digest_logits(const Queue& queue, const DigestArgs& args);

}  // namespace nib::inline v0::cuda
