// Emulator: products of a warpgroup that are under way, as far as they are one warp's: sixteen rows.
#pragma once

#include "place.hpp"

#include <cstdint>
#include <vector>

namespace nib::inline v0::simt {

// What all four warps of a warpgroup have to agree on, the i-th product of one with the i-th of the others.
struct ProductName {
  std::uint64_t b;  // the descriptor of the second factor
  int columns;
  Place where;
};

struct WarpProducts {
  // Sums as they will be. Where they go there is NaN until they may be seen.
  struct Sums {
    float* at[kWarpLanes];
    int count;                  // of a lane
    std::vector<float> values;  // [lanes][count]
    std::int64_t last_group;    // of products
  };
  // Factors that nobody may change meanwhile, as they were in the beginning.
  struct Factors {
    std::int64_t group;
    ProductName of;
    const std::uint32_t* a[kWarpLanes];
    std::uint32_t a_then[kWarpLanes][4];
    std::vector<std::uint16_t> b_then;  // [columns][16]
  };
  bool has_begun = false;  // begin_products() since the last group was closed
  std::int64_t group = 0;  // that is open
  std::int64_t count = 0;  // of products so far
  std::vector<Sums> sums;
  std::vector<Factors> factors;
};

}  // namespace nib::inline v0::simt
