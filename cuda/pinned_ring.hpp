// Room cuda: PinnedRing: memory of the host from which the device copies by itself, in pieces that are filled
// and sent in turn, so that a caller's bytes are on their way when he gets them back.
#pragma once

#include "answer.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

namespace nib::inline v0::cuda {

class PinnedRing {
 public:
  static constexpr std::size_t kPieces = 4, kPieceBytes = std::size_t{4} << 20;

  // On the device that is current.
  Status open() {
    void* memory = nullptr;
    NIB_TRY(status_of(cudaHostAlloc(&memory, kPieces * kPieceBytes, cudaHostAllocDefault), "pinning memory"));
    memory_ = static_cast<std::byte*>(memory);
    for (cudaEvent_t& sent : sent_)
      NIB_TRY(status_of(cudaEventCreateWithFlags(&sent, cudaEventDisableTiming), "making an event"));
    return {};
  }
  void close() {
    for (cudaEvent_t sent : sent_)
      if (sent) cudaEventDestroy(sent);
    if (memory_) cudaFreeHost(memory_);
    sent_ = {};
    memory_ = nullptr;
  }

  Status send(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
    while (bytes > 0) {
      if (used_ == kPieceBytes) NIB_TRY(turn(stream));
      const std::size_t now = std::min(bytes, kPieceBytes - used_);
      std::byte* const piece = memory_ + at_ * kPieceBytes + used_;
      std::memcpy(piece, from, now);
      NIB_TRY(status_of(cudaMemcpyAsync(to, piece, now, cudaMemcpyHostToDevice, stream),
                        "copying to the device"));
      // Small ones share a piece.
      used_ = std::min(kPieceBytes, (used_ + now + 255) / 256 * 256);
      to = static_cast<std::byte*>(to) + now;
      from = static_cast<const std::byte*>(from) + now;
      bytes -= now;
    }
    return {};
  }

 private:
  // To the next piece, once the device has read what was in it.
  Status turn(cudaStream_t stream) {
    NIB_TRY(status_of(cudaEventRecord(sent_[at_], stream), "marking a copy"));
    at_ = (at_ + 1) % kPieces;
    used_ = 0;
    return status_of(cudaEventSynchronize(sent_[at_]), "waiting for a copy");  // at once if it was never used
  }

  std::byte* memory_ = nullptr;
  std::array<cudaEvent_t, kPieces> sent_{};
  std::size_t at_ = 0, used_ = 0;
};

}  // namespace nib::inline v0::cuda
