// Room model: OpTimes: where the time of forward passes goes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nib::inline v0 {

// The ops of a pass in the order of the graph. `embed` also looks up pages and angles of positions; `sample`
// is drawing tokens from logits on a device, and no time where those are the host's.
enum class Op : std::uint8_t { embed, qkv, attention, project, route, experts, head, sample };
// As WeightPart::op has them.
inline constexpr std::array<std::string_view, 8> kOpNames = {"embed", "qkv",     "attention", "project",
                                                             "route", "experts", "head",      "sample"};

struct OpTimes {
  struct Entry {
    double seconds = 0;  // by the clock
    std::uint64_t calls = 0;
    std::uint64_t phases = 0;  // in which the pool's threads met
  };
  std::array<Entry, kOpNames.size()> of = {};

  Entry& operator[](Op op) { return of[static_cast<std::size_t>(op)]; }
  const Entry& operator[](Op op) const { return of[static_cast<std::size_t>(op)]; }
};

}  // namespace nib::inline v0
