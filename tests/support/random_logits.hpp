// Rows of logits of every kind that drawing a token may meet.
#pragma once

#include "support/random.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

namespace nib::test {

enum class LogitKind { normal, ties, equal, peaked, rising, wild, subnormal, none };
inline constexpr int kLogitKinds = 8;

inline float random_logit(LogitKind kind, Random& random, std::int64_t id) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  const float x = random.normal();
  switch (kind) {
    case LogitKind::normal:
      return 3 * x;
    case LogitKind::ties:
      return std::round(2 * x) / 2;
    case LogitKind::equal:
      return -1.5f;
    case LogitKind::peaked:
      return random.chance(1) ? 40 + x : x - 20;
    case LogitKind::rising:
      return static_cast<float>(id) * 0x1p-8f;
    case LogitKind::wild: {
      const float odd[] = {kNan, -kNan, kInfinity, -kInfinity, 3e38f, -3e38f, 0.0f, -0.0f};
      return random.chance(20) ? odd[random.below(8)] : 10 * x;
    }
    case LogitKind::subnormal:
      return random.chance(50) ? x * 0x1p-130f : x * 0x1p-125f;
    case LogitKind::none:
      return random.chance(50) ? kNan : -kInfinity;
  }
  return 0;
}

}  // namespace nib::test
