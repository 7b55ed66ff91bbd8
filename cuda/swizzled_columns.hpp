// Room cuda: columns of inputs in shared memory as products of a warpgroup (arch_sm90a.cuh) read them, and
// the 64 bits by which they are told where. Everything here is constexpr: kernels copy and describe with it,
// the emulator reads by the description, tests walk all of it.
//
// A panel is 64 inputs of bf16 of N columns, 128 bytes a column. Eight columns are an atom of 1024 bytes, in
// which the eight pieces of 16 bytes of column c stand in the order of c ^ piece: "K-major, 128-byte swizzle"
// in the PTX ISA. A panel begins at a multiple of 1024.
//
// A product has sixteen inputs of a column, 32 bytes. Which these are, weights say (mxfp4_tiles.hpp): a lane
// has eight inputs that follow each other in a half block of 32, i = 8 in_group .. + 7, four for the first
// product and four for the second, and its pairs stand at places 2 in_group and 2 in_group + 8 of a product.
// So the four pairs of each of four lanes are transposed when a panel is copied.
#pragma once

#include <cstdint>

namespace nib::inline v0::cuda {

inline constexpr int kPanelDepth = 64;
inline constexpr int kPanelColumnBytes = kPanelDepth * 2;
inline constexpr int kAtomColumns = 8, kAtomBytes = kAtomColumns * kPanelColumnBytes;
inline constexpr int kProductBytes = 32;  // of a column

// The place of pair `pair` of the four of a lane in its column: byte of a line of 128 before it is swizzled.
// piece: of eight inputs, 4 half + in_group.
constexpr int place_of_pair(int piece, int pair) { return piece / 4 * 64 + pair * 16 + piece % 4 * 4; }
// Where a byte of a column's line lies in the panel.
constexpr int swizzled(int column, int byte) {
  return column * kPanelColumnBytes + (byte ^ column % kAtomColumns << 4);
}

// "Matrix descriptor": address, distance of atoms along the inputs (not used: a panel is one atom deep), that
// along the columns, each in units of 16 bytes; and the kind of swizzle.
constexpr std::uint64_t describe_panel(std::uint32_t address) {
  constexpr std::uint64_t kAlong = 1, kAcross = kAtomBytes / 16, kSwizzle128 = 1;
  return (address & 0x3ffffu) >> 4 | kAlong << 16 | kAcross << 32 | kSwizzle128 << 62;
}
// Product `number` of the four of a panel: the swizzle is of addresses, and stays as it is.
constexpr std::uint64_t of_product(std::uint64_t panel, int number) {
  return panel + static_cast<std::uint64_t>(number * (kProductBytes / 16));
}

}  // namespace nib::inline v0::cuda
