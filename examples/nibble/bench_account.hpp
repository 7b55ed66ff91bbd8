// The account of a decoded token: what every op had to read, how long that takes at best, and how long it
// took.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/runtime/explain.hpp>
#include <nibble/runtime/speed.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nib::program {

// Times are in seconds for one token.
struct TokenAccount {
  struct Line {
    std::string_view op;
    double phases = 0;  // in which threads met
    std::uint64_t bytes = 0;
    // Of reading these bytes; none where a device reads of them, whose rate is not known.
    std::optional<double> floor;
    double took = 0;
  };
  std::vector<Line> lines;
  double token = 0;   // by the clock; what the ops did not take is the rest
  double phases = 0;  // what meeting took, inside the ops

  std::optional<double> floor() const;
  double ops() const;
};

// Of one session that decodes. `cache_bytes` is read of keys and values, a phase of nothing takes
// `phase_seconds`.
TokenAccount account_of(const Speed& speed, std::span<const ExplainItem> explained, std::uint64_t cache_bytes,
                        double bytes_per_second, double phase_seconds);

std::string account_text(const TokenAccount& account);
Json account_json(const TokenAccount& account);

}  // namespace nib::program
