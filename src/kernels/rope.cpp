#include <nibble/base/plain_math.hpp>
#include <nibble/kernels/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <numbers>

namespace nib::inline v0 {
namespace {

double floor_plain(double x) {
  const auto whole = static_cast<double>(static_cast<std::int64_t>(x));
  return whole > x ? whole - 1 : whole;
}

// YaRN's ramp over dimensions, 0 up to `low` and 1 from `high` on.
class YarnRamp {
 public:
  YarnRamp(const RopeScaling& scaling, int dim, double log_theta) {
    if (scaling.kind != RopeKind::yarn) return;
    // The dimension at which a full context makes `turns` rotations.
    const auto dimension_of = [&](double turns) {
      return dim * log_plain(scaling.original_context / (turns * 2 * std::numbers::pi)) / (2 * log_theta);
    };
    low_ = dimension_of(scaling.fast);
    high_ = dimension_of(scaling.slow);
    if (scaling.truncate) {
      low_ = floor_plain(low_);
      high_ = -floor_plain(-high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(dim - 1));
    if (low_ == high_) high_ += 0.001;
  }
  double at(double i) const { return std::clamp((i - low_) / (high_ - low_), 0.0, 1.0); }

 private:
  double low_ = 0, high_ = 1;
};

}  // namespace

double yarn_attention(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * log_plain(factor) + 1.0;
}

void rope_frequencies(double theta, int dim, const RopeScaling& scaling, std::span<float> frequencies) {
  const double log_theta = log_plain(theta);
  const YarnRamp yarn(scaling, dim, log_theta);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double plain = exp_plain(-2.0 * static_cast<double>(i) / dim * log_theta);
    double divided = 0;  // the share of the divided frequency
    if (scaling.kind == RopeKind::linear) divided = 1;
    if (scaling.kind == RopeKind::yarn) divided = yarn.at(static_cast<double>(i));
    if (scaling.kind == RopeKind::llama3) {
      const double turns = scaling.original_context * plain / (2 * std::numbers::pi);
      divided = 1 - std::clamp((turns - scaling.slow) / (scaling.fast - scaling.slow), 0.0, 1.0);
    }
    frequencies[i] = static_cast<float>(plain / scaling.factor * divided + plain * (1 - divided));
  }
}

void rope_angles(std::int64_t position, std::span<const float> frequencies, double attention, float* cos,
                 float* sin) {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const CosSin at = cos_sin(static_cast<double>(static_cast<float>(position) * frequencies[i]));
    cos[i] = static_cast<float>(at.cos * attention);
    sin[i] = static_cast<float>(at.sin * attention);
  }
}

}  // namespace nib::inline v0
