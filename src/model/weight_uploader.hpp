// Private to the room: WeightUploader: brings matrices and vectors into a device's memory, and experts that
// take turns there into page-locked memory, piece by piece.
#pragma once

#include "weight_packer.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace nib::inline v0 {

class WeightUploader {
 public:
  using Matrix = WeightLayout::Matrix;

  // Bytes of the host that it needs for this matrix.
  static std::uint64_t staging_of(const Matrix& m);

  // base: of the block of the device's memory; locked: of that of page-locked memory. staging: as many bytes
  // as any matrix needs. All borrowed.
  WeightUploader(WeightPacker& packer, const Device& device, std::byte* base, std::byte* locked,
                 std::span<std::byte> staging, Pool& pool)
      : packer_(packer), device_(device), base_(base), locked_(locked), staging_(staging), pool_(pool) {}

  // All experts of a matrix. Errors: those of packing; unsupported (by tensor), device.
  Status matrix(const Matrix& m, const std::string& path);

  // Values of a vector at `offset`.
  Status values(std::span<const float> values, std::uint64_t offset) {
    return device_.upload(base_ + offset, values.data(), values.size_bytes());
  }
  std::byte* at(std::uint64_t offset) const { return base_ + offset; }
  // Where expert 0 of a matrix lies.
  std::byte* home(const Matrix& m) const { return m.slots ? locked_ + m.locked : at(m.offset); }

  // Nothing is in the slots whose table is at `offset`.
  Status clear_slots(std::uint64_t offset, std::int64_t experts, std::int64_t slots) {
    return device_.clear(at(offset), slot_table_bytes(experts, slots));
  }

 private:
  static std::int64_t groups_at_once(const Matrix& m);
  static PackedWeight part_of(const Matrix& m, Range groups);
  Status send(const Matrix& m, std::int64_t expert, Range groups);

  WeightPacker& packer_;
  const Device& device_;
  std::byte *base_, *locked_;
  std::span<std::byte> staging_;
  Pool& pool_;
};

}  // namespace nib::inline v0
