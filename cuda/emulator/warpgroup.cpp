#include "warpgroup.hpp"

#include "tensor_core.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace nib::inline v0::cuda {
namespace {

using simt::Emulator;
using simt::kWarpLanes;
using simt::Place;
using simt::ProductName;
using simt::WarpProducts;

constexpr float kUnderWay = std::numeric_limits<float>::quiet_NaN();

// "Matrix Descriptor Format": 14 bits each of address and distances, in units of 16 bytes; the swizzle.
constexpr std::uint64_t kOtherBits = ~(0x3fffu | std::uint64_t{0x3fff'3fffu} << 16 | std::uint64_t{3} << 62);
struct Described {
  std::uint32_t address, across, swizzle;
  bool has_others;
  explicit Described(std::uint64_t bits)
      : address(static_cast<std::uint32_t>(bits & 0x3fff) << 4),
        across(static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4),
        swizzle(static_cast<std::uint32_t>(bits >> 62)),
        has_others((bits & kOtherBits) != 0) {}
  // Of the second factor, [columns][16]: number k of column n is at k of line n % 8 of 128 bytes of the n /
  // 8-th atom; then bits 4 to 6 of the address are combined with bits 7 to 9.
  const std::byte* at(int n, int k) const {
    const std::uint32_t plain = address + static_cast<std::uint32_t>(n / 8) * across +
                                static_cast<std::uint32_t>(n % 8 * 128 + k * 2);
    return Emulator::current().shared() + (plain ^ (plain >> 7 & 7) << 4);
  }
};

// What fails leaves everything on its stack, so nothing may have been allocated.
void check_columns(const ProductName& name) {
  Emulator& emulator = Emulator::current();
  const Described described(name.b);
  if (described.swizzle != 1 || described.has_others)
    emulator.fail("describes columns in another way than this emulator knows", name.where);
  for (int n = 0; n < name.columns; ++n)
    for (int k = 0; k < kProductDepth; ++k)
      if (!emulator.is_shared(described.at(n, k), 2))
        emulator.fail("multiplies columns beside its shared memory", name.where);
}

std::vector<std::uint16_t> read_columns(const ProductName& name) {
  const Described described(name.b);
  std::vector<std::uint16_t> out(static_cast<std::size_t>(name.columns * kProductDepth));
  for (int n = 0; n < name.columns; ++n)
    for (int k = 0; k < kProductDepth; ++k)
      std::memcpy(&out[static_cast<std::size_t>(n * kProductDepth + k)], described.at(n, k), 2);
  return out;
}

struct Operands {
  const std::uint32_t* a;
  float* d;
  ProductName name;
};
const Operands& operands(const void* const* in, int lane) { return *static_cast<const Operands*>(in[lane]); }

bool same_product(const ProductName& a, const ProductName& b) {
  return a.b == b.b && a.columns == b.columns && a.where.line == b.where.line;
}

// The sums of this d, taken over from its registers unless a product has done so before.
WarpProducts::Sums& sums_of(WarpProducts& warp, const void* const* in) {
  const Operands& first = operands(in, 0);
  for (WarpProducts::Sums& sums : warp.sums)
    if (sums.at[0] == first.d) return sums;
  WarpProducts::Sums& taken = warp.sums.emplace_back();
  taken.count = first.name.columns / 2;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    float* const d = taken.at[lane] = operands(in, lane).d;
    taken.values.insert(taken.values.end(), d, d + taken.count);
    std::fill_n(d, taken.count, kUnderWay);
  }
  return taken;
}

void execute_product(const void* const* in, void* const*) {
  Emulator& emulator = Emulator::current();
  WarpProducts& warp = emulator.products();
  const ProductName& name = operands(in, 0).name;
  if (!emulator.was_shown()) emulator.fail("multiplies what was not shown to products", name.where);
  if (!warp.has_begun) emulator.fail("multiplies and has not begun to", name.where);
  if (emulator.shape().threads % (4 * kWarpLanes))
    emulator.fail("multiplies with less than a warpgroup", name.where);
  for (int lane = 1; lane < kWarpLanes; ++lane)
    if (operands(in, lane).name.b != name.b)
      emulator.fail("multiplies by other columns than its warp", name.where);
  if (const ProductName& other = emulator.name_product(warp.count++, name); !same_product(other, name))
    emulator.fail("multiplies by other columns than its warpgroup", name.where, {"which does", other.where});
  check_columns(name);
  WarpProducts::Sums& sums = sums_of(warp, in);
  if (sums.count != name.columns / 2) emulator.fail("multiplies with sums of another shape", name.where);
  sums.last_group = warp.group;

  WarpProducts::Factors factors{warp.group, name, {}, {}, read_columns(name)};
  double a[16][kProductDepth];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    factors.a[lane] = operands(in, lane).a;
    std::memcpy(factors.a_then[lane], factors.a[lane], sizeof factors.a_then[lane]);
    // "Register Fragments for wgmma.mma_async.m64nNk16", A: four pairs.
    for (int pair = 0; pair < 4; ++pair)
      for (int half = 0; half < 2; ++half)
        a[lane / 4 + pair % 2 * 8][lane % 4 * 2 + half + pair / 2 * 8] =
            widen_bf16(factors.a_then[lane][pair] >> 16 * half & 0xffff);
  }
  for (int n = 0; n < name.columns; ++n) {
    double b[kProductDepth];
    for (int k = 0; k < kProductDepth; ++k)
      b[k] = widen_bf16(factors.b_then[static_cast<std::size_t>(n * kProductDepth + k)]);
    for (int row = 0; row < 16; ++row) {
      double products[kProductDepth];
      for (int k = 0; k < kProductDepth; ++k) products[k] = a[row][k] * b[k];
      // The same, D: lane 4 (row % 8) + (n % 8) / 2 has two columns of two rows of each eight columns.
      const int lane = row % 8 * 4 + n % 8 / 2, i = n / 8 * 4 + row / 8 * 2 + n % 2;
      float& sum = sums.values[static_cast<std::size_t>(lane * sums.count + i)];
      sum = add_products(sum, products);
    }
  }
  warp.factors.push_back(std::move(factors));
}

struct Wait {
  int groups_that_may_remain;
  Place where;
};

void execute_wait(const void* const* in, void* const*) {
  Emulator& emulator = Emulator::current();
  WarpProducts& warp = emulator.products();
  const Wait& wait = *static_cast<const Wait*>(in[0]);
  const auto has_ended = [&](std::int64_t group) { return group < warp.group - wait.groups_that_may_remain; };
  for (const WarpProducts::Factors& factors : warp.factors) {
    if (!has_ended(factors.group)) continue;
    for (int lane = 0; lane < kWarpLanes; ++lane)
      if (std::memcmp(factors.a[lane], factors.a_then[lane], sizeof factors.a_then[lane]) != 0)
        emulator.fail("finds that its factor was changed under a product", wait.where,
                      {"which began", factors.of.where});
    if (read_columns(factors.of) != factors.b_then)
      emulator.fail("finds that columns were changed under a product", wait.where,
                    {"which began", factors.of.where});
  }
  std::erase_if(warp.factors, [&](const auto& factors) { return has_ended(factors.group); });
  for (const WarpProducts::Sums& sums : warp.sums) {
    if (!has_ended(sums.last_group)) continue;
    for (int lane = 0; lane < kWarpLanes; ++lane)
      for (int i = 0; i < sums.count; ++i) {
        float& at = sums.at[lane][i];
        if (std::bit_cast<std::uint32_t>(at) != std::bit_cast<std::uint32_t>(kUnderWay))
          emulator.fail("finds that its sums were changed under a product", wait.where);
        at = sums.values[static_cast<std::size_t>(lane * sums.count + i)];
      }
  }
  std::erase_if(warp.sums, [&](const auto& sums) { return has_ended(sums.last_group); });
}

}  // namespace

void begin_products(Place where) {
  Emulator::current().exchange(
      "the beginning of products",
      [](const void* const*, void* const*) { Emulator::current().products().has_begun = true; }, nullptr,
      nullptr, where);
}

void close_products(Place where) {
  Emulator::current().exchange(
      "the end of a group of products",
      [](const void* const*, void* const*) {
        WarpProducts& warp = Emulator::current().products();
        warp.has_begun = false;
        ++warp.group;
      },
      nullptr, nullptr, where);
}

void multiply_warpgroup(float* d, int columns, const std::uint32_t (&a)[4], std::uint64_t b, Place where) {
  const Operands operands{a, d, {b, columns, where}};
  Emulator::current().exchange("a product of a warpgroup", execute_product, &operands, nullptr, where);
}

void wait_for_products(int groups_that_may_remain, Place where) {
  const Wait wait{groups_that_may_remain, where};
  Emulator::current().exchange("a wait for products", execute_wait, &wait, nullptr, where);
}

}  // namespace nib::inline v0::cuda
