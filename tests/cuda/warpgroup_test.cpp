// The words of sm_90a on the emulator: fragments and columns lie where the PTX ISA draws them, sums are there
// when they were waited for and not before, and what breaks a rule is an error with a place.
#include "kernels/rig.hpp"
#include <nibble/base/float16.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include <cuda/arch_sm90a.cuh>
#include <cuda/mxfp4_tiles.hpp>
#include <doctest/doctest.h>

namespace nib::test {
namespace {

using namespace cuda;
using simt::Emulator;

constexpr int kRows = 64, kDepth = 16;

// "128-byte swizzle": the pieces of 16 bytes of the eight lines of an atom, as the figure of the ISA numbers
// them.
constexpr int kPieces[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5},
                               {3, 2, 1, 0, 7, 6, 5, 4}, {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2},
                               {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};
// Bytes from the beginning of a panel to input k of column n.
int drawn_place(int n, int k) {
  const int line = n % 8, piece = k / 8;
  int at = 0;
  while (kPieces[line][at] != piece) ++at;
  return n / 8 * 1024 + line * 128 + at * 16 + k % 8 * 2;
}

// Elements 0 .. 7 of a thread's A, in registers of two.
int row_of_a(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + ((i < 2) || (i >= 4 && i < 6) ? 0 : 8);
}
int column_of_a(int thread, int i) { return thread % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8); }
int row_of_d(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + (i % 4 < 2 ? 0 : 8); }
int column_of_d(int thread, int i) { return thread % 4 * 2 + (i & 1) + i / 4 * 8; }

std::uint16_t bits(float x) { return to_bf16(x).bits; }

void check_fails(const Status& status, const char* text) {
  CAPTURE(status.message());
  CHECK(status.code() == Code::device);
  CHECK(status.message().find(text) != std::string::npos);
}

TEST_CASE("columns: a panel is described as the ISA says") {
  for (const std::uint32_t address : {0u, 1024u, 48u * 1024, 226u * 1024}) {
    const std::uint64_t panel = describe_panel(address);
    CHECK((panel & 0x3fff) == address / 16);     // bits 0-13: address
    CHECK((panel >> 32 & 0x3fff) == 1024 / 16);  // bits 32-45: eight columns further
    CHECK((panel >> 49 & 7) == 0);               // bits 49-51: the atom begins at a multiple of 1024
    CHECK((panel >> 62) == 1);                   // bits 62-63: 128 bytes
    for (int product = 0; product < 4; ++product)
      CHECK((of_product(panel, product) & 0x3fff) == (address + 32 * product) / 16);
  }
  for (int n = 0; n < 128; ++n)
    for (int byte = 0; byte < 128; byte += 2) CHECK(swizzled(n, byte) == drawn_place(n, byte / 2));
}

TEST_CASE("columns: inputs stand where weights have theirs, and each of them once") {
  std::set<int> places;
  for (int i = 0; i < 64; ++i) {
    const int place = place_of_pair(i / 8, i % 8 / 2) / 2 + i % 2;  // of 64: product and its number
    places.insert(place);
    // A lane's word has inputs 8 in_group .. + 7 of a half block, four for each of two products; of these two
    // are the lane's elements 0 and 1 (of row `group`), and two its elements 4 and 5.
    const int half = i / 32, lane = i % 32 / 8, code = i % 8;
    const int product = 2 * half + code / 4, element = code % 4 < 2 ? code % 4 : 2 + code % 4;
    CHECK(place == product * 16 + column_of_a(lane, element));
    CHECK(mxfp4_word_offset({16, 64}, 0, i) % 512 - Mxfp4Tiles::kLineBytes == lane * 16 + half * 8);
  }
  CHECK(places.size() == 64);
}

template <int kWide>
struct Panel {
  alignas(1024) std::uint16_t at[kWide * 8 * kPanelDepth];
};

// d = c + a b for product `product` of a panel; a [64][16], b [N][16], c and d [64][N].
template <int kWide>
Status multiply(Emulator& emulator, const std::vector<float>& a, const std::vector<float>& b,
                std::vector<float>& d, int product) {
  constexpr int kColumns = kWide * 8;
  return emulator.run({1, 128, sizeof(Panel<kWide>)}, [&] {
    auto& panel = shared_memory<Panel<kWide>>();
    const int thread = thread_index();
    for (int i = thread; i < kColumns * kDepth; i += 128)
      panel.at[drawn_place(i / kDepth, i % kDepth + product * kDepth) / 2] =
          bits(b[static_cast<std::size_t>(i)]);
    std::uint32_t fragment[4] = {};
    for (int i = 0; i < 8; ++i)
      fragment[i / 2] |=
          std::uint32_t{
              bits(a[static_cast<std::size_t>(row_of_a(thread, i) * kDepth + column_of_a(thread, i))])}
          << 16 * (i % 2);
    const auto of_d = [&](int i) -> float& {
      return d[static_cast<std::size_t>(row_of_d(thread, i) * kColumns + column_of_d(thread, i))];
    };
    float sums[kWide][4];
    for (int i = 0; i < kWide * 4; ++i) sums[i / 4][i % 4] = of_d(i);
    show_to_products();
    sync_block();
    begin_products();
    multiply_warpgroup(sums, fragment,
                       of_product(panel_at(place_of(reinterpret_cast<Words4*>(&panel))), product));
    close_products();
    for (int i = 0; i < kWide * 4; ++i) CHECK(std::isnan(sums[i / 4][i % 4]));
    finish_products(sums);
    for (int i = 0; i < kWide * 4; ++i) of_d(i) = sums[i / 4][i % 4];
  });
}

template <int kWide>
void check_multiply(Random& random) {
  constexpr int kColumns = kWide * 8;
  Emulator emulator(random.seed);
  for (int product = 0; product < 4; ++product) {
    // Whole numbers: every sum is exact, and tells of each factor where it stood.
    std::vector<float> a(kRows * kDepth), b(kColumns * kDepth), d(kRows * kColumns), wanted;
    for (float& x : a) x = static_cast<float>(random.below(255) - 127);
    for (float& x : b) x = static_cast<float>(random.below(255) - 127);
    for (float& x : d) x = static_cast<float>(random.below(100'000));
    wanted = d;
    for (int row = 0; row < kRows; ++row)
      for (int n = 0; n < kColumns; ++n)
        for (int k = 0; k < kDepth; ++k)
          wanted[static_cast<std::size_t>(row * kColumns + n)] +=
              a[static_cast<std::size_t>(row * kDepth + k)] * b[static_cast<std::size_t>(n * kDepth + k)];
    const Status status = multiply<kWide>(emulator, a, b, d, product);
    CAPTURE(status.message());
    REQUIRE(status.ok());
    CHECK(d == wanted);
  }
}

TEST_CASE("a product of a warpgroup: every element meets its own row and column") {
  NIB_RANDOM(random);
  check_multiply<8>(random);
  check_multiply<16>(random);
}

// A product with what a kernel may do wrong about it.
struct Wrong {
  bool shows = true, begins = true, waits = true;
  bool changes_factor = false, changes_columns = false, changes_sums = false;
  bool one_warp_less = false, one_warp_elsewhere = false;
  std::uint64_t described = 0;  // exclusive-or
  int threads = 128;
};

Status multiply_wrong(const Wrong& wrong, std::uint64_t seed) {
  return Emulator(seed).run({1, wrong.threads, 2 * sizeof(Panel<8>)}, [&] {
    auto& panels = shared_memory<Panel<8>[2]>();
    std::fill_n(panels[thread_index() % 2].at, 8 * 8 * kPanelDepth, bits(1));
    std::uint32_t factor[4] = {};
    float sums[8][4] = {};
    if (wrong.shows || thread_index() != 77) show_to_products();
    sync_block();
    const bool is_last_warp = thread_index() >= 96;
    if (wrong.one_warp_less && is_last_warp) return;
    if (wrong.begins) begin_products();
    const int which = wrong.one_warp_elsewhere && is_last_warp;
    const std::uint64_t panel = panel_at(place_of(reinterpret_cast<Words4*>(&panels[which])));
    multiply_warpgroup(sums, factor, panel ^ wrong.described);
    close_products();
    if (wrong.changes_factor && thread_index() == 5) factor[3] = 1;
    if (wrong.changes_columns && thread_index() == 5) panels[0].at[3] = bits(2);
    if (wrong.changes_sums && thread_index() == 5) sums[7][3] = 0;
    if (wrong.waits) finish_products(sums);
  });
}

TEST_CASE("products of a warpgroup: what breaks a rule is an error") {
  NIB_RANDOM(random);
  const auto fails = [&](const Wrong& wrong, const char* text) {
    check_fails(multiply_wrong(wrong, random.seed), text);
  };
  CHECK(multiply_wrong({}, random.seed).ok());
  fails({.shows = false}, "multiplies what was not shown to products");
  fails({.begins = false}, "multiplies and has not begun to");
  fails({.waits = false}, "ended before it waited for a product");
  fails({.changes_factor = true}, "its factor was changed under a product");
  fails({.changes_columns = true}, "columns were changed under a product");
  fails({.changes_sums = true}, "its sums were changed under a product");
  fails({.one_warp_less = true}, "warp 3 left out products");
  fails({.one_warp_elsewhere = true}, "multiplies by other columns than its warpgroup");
  fails({.described = std::uint64_t{1} << 63}, "in another way than this emulator knows");
  fails({.described = std::uint64_t{1} << 49}, "in another way than this emulator knows");
  fails({.described = 0x2000}, "multiplies columns beside its shared memory");
  fails({.threads = 96}, "multiplies with less than a warpgroup");
}

TEST_CASE("products of a warpgroup: sums come with the last group that adds to them") {
  Emulator emulator(1);
  const Status status = emulator.run({1, 128, sizeof(Panel<8>)}, [&] {
    auto& panel = shared_memory<Panel<8>>();
    std::fill_n(panel.at, 8 * 8 * kPanelDepth, bits(1));  // all threads the same
    show_to_products();
    sync_block();
    const std::uint64_t columns = panel_at(place_of(reinterpret_cast<Words4*>(&panel)));
    const std::uint32_t ones = bits(1) * 0x1'0001u;
    const std::uint32_t factor[4] = {ones, ones, ones, ones};
    float first[8][4] = {}, second[8][4] = {};
    for (int group = 0; group < 3; ++group) {
      begin_products();
      multiply_warpgroup(group % 2 ? second : first, factor, columns);
      close_products();
    }
    wait_for_products<2>();
    CHECK((std::isnan(first[0][0]) && std::isnan(second[0][0])));  // its second product is under way
    wait_for_products<1>();
    CHECK((std::isnan(first[0][0]) && second[0][0] == 16));
    wait_for_products<0>();
    CHECK((first[7][3] == 32 && second[7][3] == 16));
  });
  CAPTURE(status.message());
  CHECK(status.ok());
}

}  // namespace
}  // namespace nib::test
