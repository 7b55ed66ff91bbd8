// Room model: digests of logits that stay on a device: the memory they need there, and what goes to and fro.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/kernels/device_logits.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nib::inline v0 {

// How a token will be drawn from a row of logits.
struct DrawnRow {
  LogitWeighing weighing;
  std::span<const std::uint32_t> seen{};  // [seen_words(vocabulary)]; read where there is a penalty
};

// Of up to so many rows. Belongs to a workspace, whose memory on the device it uses.
class DeviceDigests {
 public:
  // take(pointer, count) for each array on the device.
  template <class Take>
  void carve(std::int64_t vocabulary, std::int64_t rows, Take&& take) {
    vocabulary_ = vocabulary;
    const DigestLayout layout{vocabulary};
    take(weighings_, rows);
    take(seen_, rows * seen_words(vocabulary));
    take(maxima_, rows * layout.blocks());
    take(digests_, rows * layout.bytes());
  }

  // Sends how the rows will be weighed, unless the device knows, and what was seen. Errors: device.
  Status expect(const Device& device, std::span<const DrawnRow> rows);
  // Asks for the digests of logits [rows][row_stride(vocabulary)] on the device, of as many rows as were
  // expected. Errors: device.
  Status digest(const Device& device, const float* logits) const;
  // Waits, and brings them. Errors: device.
  Status fetch(const Device& device);

  // What the device told of a row, DigestLayout::bytes(); where no list was wanted, none is there. Until the
  // next fetch.
  std::span<const std::byte> of(std::size_t row) const;

 private:
  std::size_t row_bytes() const { return static_cast<std::size_t>(DigestLayout{vocabulary_}.bytes()); }

  std::int64_t vocabulary_ = 0;
  LogitWeighing* weighings_ = nullptr;
  std::uint32_t* seen_ = nullptr;
  float* maxima_ = nullptr;
  std::byte* digests_ = nullptr;
  std::vector<LogitWeighing> expected_, sent_;  // the latter: what lies on the device
  std::vector<std::byte> told_;
};

}  // namespace nib::inline v0
