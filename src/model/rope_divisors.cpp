#include "rope_divisors.hpp"

#include <nibble/kernels/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace nib::inline v0 {
namespace {

constexpr double kPublishedFast = 4;
constexpr double kPrecision = 2e-6;  // of divisors that another program computed in f32

std::vector<float> frequencies(const ModelConfig& config, const RopeScaling& scaling) {
  std::vector<float> all(config.rotary_dim / 2);
  rope_frequencies(config.rope_theta, static_cast<int>(config.rotary_dim), scaling, all);
  return all;
}

std::vector<float> divisors_of(const ModelConfig& config, const RopeScaling& scaling) {
  const std::vector<float> scaled = frequencies(config, scaling);
  std::vector<float> divisors = frequencies(config, {});
  for (std::size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  return divisors;
}

// The multiple of `unit` that a fitted value stands for, where it is close to one.
double rounded(double value, double unit) {
  const double whole = std::round(value / unit) * unit;
  return std::fabs(value - whole) < 1e-4 * value ? whole : value;
}

bool has_divisors(const ModelConfig& config, const RopeScaling& scaling, std::span<const float> divisors) {
  if (!(scaling.original_context >= 1) || !(scaling.fast > scaling.slow)) return false;
  const std::vector<float> found = divisors_of(config, scaling);
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!(std::fabs(found[i] - divisors[i]) <= 4 * kPrecision * divisors[i])) return false;
  return true;
}

}  // namespace

std::vector<float> gguf_rope_divisors(const ModelConfig& config) {
  if (config.rope.kind != RopeKind::llama3) return {};
  return divisors_of(config, config.rope);
}

// With t = frequency / 2 pi, the share of a frequency that is not divided is (context t - slow) / (fast -
// slow), cut to 0..1; and the divisor is 1 / ((1 - share) / factor + share). So with slow 1 the shares
// strictly between lie on a line over t, slope t - offset, whose offset is 1 / (fast - 1).
std::optional<RopeScaling> llama3_scaling(const ModelConfig& config, std::span<const float> divisors) {
  const std::vector<float> plain = frequencies(config, {});
  if (divisors.size() != plain.size() || divisors.empty()) return std::nullopt;
  const double factor = *std::max_element(divisors.begin(), divisors.end());
  const auto is_one = [](float divisor) { return std::fabs(divisor - 1) <= kPrecision; };
  if (std::all_of(divisors.begin(), divisors.end(), is_one)) return RopeScaling{};
  if (!(factor > 1 + kPrecision) || !(factor < 1e6)) return std::nullopt;
  const auto turns = [&](std::size_t i) { return static_cast<double>(plain[i]) / (2 * std::numbers::pi); };
  const auto share = [&](std::size_t i) {
    return (1 / static_cast<double>(divisors[i]) - 1 / factor) / (1 - 1 / factor);
  };
  // Frequencies fall; those of share 1 come first, those of share 0 last.
  std::size_t first = 0, end = divisors.size();
  while (first < end && share(first) >= 1 - kPrecision) ++first;
  while (end > first && share(end - 1) <= kPrecision) --end;
  const auto through = [&](double slope, std::size_t i) {
    const double offset = slope * turns(i) - share(i);
    return RopeScaling{RopeKind::llama3, factor, slope / offset, 1 + 1 / offset, 1};
  };
  std::vector<RopeScaling> candidates;
  if (end - first >= 2) {
    const double slope = (share(first) - share(end - 1)) / (turns(first) - turns(end - 1));
    candidates = {through(slope, first)};
  } else if (end < divisors.size()) {
    // At most one strictly between: as published, else as flat a ramp as its neighbours allow.
    const std::size_t at = std::min(first, end);
    const double published = (share(at) + 1 / (kPublishedFast - 1)) / turns(at);
    double slope = 0;
    if (at > 0) slope = std::max(slope, (1 - share(at)) / (turns(at - 1) - turns(at)));
    if (at + 1 < divisors.size()) slope = std::max(slope, share(at) / (turns(at) - turns(at + 1)));
    candidates = {through(published, at), through(slope, at)};
  }
  for (const RopeScaling& candidate : candidates) {
    RopeScaling nearest = candidate;
    nearest.fast = rounded(candidate.fast, 0.25);
    nearest.original_context = rounded(candidate.original_context, 1);
    for (const RopeScaling& scaling : {nearest, candidate})
      if (has_divisors(config, scaling, divisors)) return scaling;
  }
  return std::nullopt;
}

}  // namespace nib::inline v0
