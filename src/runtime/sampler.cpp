#include <nibble/base/concat.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/plain_math.hpp>
#include <nibble/runtime/sampler.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace nib::inline v0 {
namespace {

// Tokens less likely than e^-40 times the likeliest are never drawn: a double would not see them in the sum.
constexpr double kNegligible = -40;

// A number in [0, 1) from (seed, position) alone: two rounds of a 64-bit mixer.
double uniform(std::uint64_t seed, std::uint64_t position) {
  const auto mix = [](std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  const std::uint64_t bits = mix(mix(seed + 0x9e3779b97f4a7c15u) ^ (position + 0x9e3779b97f4a7c15u));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The logits with the repetition penalty applied.
class Penalized {
 public:
  Penalized(std::span<const float> logits, float penalty, std::span<const Token> history)
      : logits_(logits), penalty_(penalty) {
    if (penalty == 1.0f) return;
    seen_.resize(logits.size());
    for (const Token id : history)
      if (id < logits.size()) seen_[id] = true;
  }
  std::size_t size() const { return logits_.size(); }
  double operator[](std::size_t id) const {
    const float logit = logits_[id];
    if (seen_.empty() || !seen_[id]) return static_cast<double>(logit);
    return static_cast<double>(logit > 0 ? logit / penalty_ : logit * penalty_);
  }

 private:
  std::span<const float> logits_;
  float penalty_;
  std::vector<bool> seen_;
};

// Tokens weigh e^((logit - largest) / temperature).
class Weights {
 public:
  Weights(const Penalized& logits, double largest, double temperature)
      : logits_(logits), largest_(largest), inverse_(1 / temperature) {}

  double log_of(Token id) const { return (logits_[id] - largest_) * inverse_; }
  bool likelier(Token a, Token b) const { return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b; }
  // visit(id, weight) for each in order, until it says that it has seen enough.
  void each(std::span<const Token> ids, auto&& visit) const {
    std::array<double, 256> weights;
    while (!ids.empty()) {
      const auto some = ids.first(std::min(ids.size(), weights.size()));
      std::transform(some.begin(), some.end(), weights.begin(), [this](Token id) { return log_of(id); });
      exp_all(std::span(weights).first(some.size()));
      for (std::size_t i = 0; i < some.size(); ++i)
        if (visit(some[i], weights[i])) return;
      ids = ids.subspan(some.size());
    }
  }
  double sum(std::span<const Token> ids) const {
    double total = 0;
    each(ids, [&](Token, double weight) { return total += weight, false; });
    return total;
  }

 private:
  const Penalized& logits_;
  double largest_, inverse_;
};

// The id of the largest logit that is a number, the lowest of equal ones; none: size().
std::size_t find_largest(const Penalized& logits) {
  double largest = -std::numeric_limits<double>::infinity();
  std::size_t best = logits.size();
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (const double logit = logits[id]; logit > largest && logit <= std::numeric_limits<double>::max()) {
      largest = logit;
      best = id;
    }
  return best;
}

void keep_top_k(const Weights& weights, std::size_t count, std::vector<Token>& ids) {
  if (count == 0 || count >= ids.size()) return;
  std::nth_element(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                   [&](Token a, Token b) { return weights.likelier(a, b); });
  ids.resize(count);
  std::sort(ids.begin(), ids.end());
}

// The smallest set of the likeliest whose share of `total`, which is that of all ids, reaches top_p. Returns
// what it weighs.
double keep_top_p(const Weights& weights, double top_p, double total, std::vector<Token>& ids) {
  // Tokens that all together weigh less than what is left over need no order. Half of it: sums are rounded.
  const double least = log_plain((1 - top_p) * total / 2 / static_cast<double>(ids.size()));
  std::erase_if(ids, [&](Token id) { return weights.log_of(id) < least; });
  const auto less_likely = [&](Token a, Token b) { return weights.likelier(b, a); };
  std::make_heap(ids.begin(), ids.end(), less_likely);
  double kept = 0;
  auto heap_end = ids.end();
  while (heap_end != ids.begin() && kept < top_p * total) {
    std::pop_heap(ids.begin(), heap_end, less_likely);
    kept += exp_plain(weights.log_of(*--heap_end));
  }
  ids.erase(ids.begin(), heap_end);
  return kept;
}

struct Range {
  const char* option;
  double value, low, high;
  bool open_low;
};

}  // namespace

Status validate(const SamplerOptions& options) {
  const Range ranges[] = {
      {"temperature", static_cast<double>(options.temperature), 0, 1e6, false},
      {"top_p", static_cast<double>(options.top_p), 0, 1, true},
      {"min_p", static_cast<double>(options.min_p), 0, 1, false},
      {"repetition_penalty", static_cast<double>(options.repetition_penalty), 0, 1e6, true}};
  for (const Range& range : ranges) {
    const bool low = range.open_low ? range.value > range.low : range.value >= range.low;
    if (!low || !(range.value <= range.high))
      return Status(Code::argument,
                    concat(range.option, ": expected ", range.open_low ? "more than " : "at least ",
                           range.low, " and at most ", range.high, ", found ", range.value));
  }
  return {};
}

Result<Sample> sample(std::span<const float> logits, const SamplerOptions& options, std::uint64_t position,
                      std::span<const Token> history, std::vector<Token>& scratch) {
  const FloatScope scope;
  const Penalized penalized(logits, options.repetition_penalty, history);
  const std::size_t best = find_largest(penalized);
  if (best == penalized.size())
    return Status(Code::internal, "no logit is a finite number: the model cannot continue");
  const bool greedy = options.greedy || options.temperature == 0.0f;
  const double temperature = greedy ? 1.0 : static_cast<double>(options.temperature);
  const double largest = penalized[best];
  const Weights weights(penalized, largest, temperature);

  double floor = kNegligible;
  if (!greedy && options.min_p > 0) floor = std::max(floor, log_plain(static_cast<double>(options.min_p)));
  const double least_logit = largest + floor * temperature;
  scratch.clear();
  for (std::size_t id = 0; id < penalized.size(); ++id)
    if (const double logit = penalized[id]; logit >= least_logit && logit <= largest)
      scratch.push_back(static_cast<Token>(id));
  if (!greedy) keep_top_k(weights, options.top_k, scratch);
  double total = weights.sum(scratch);
  Token drawn = static_cast<Token>(best);
  if (!greedy) {
    if (options.top_p < 1.0f) total = keep_top_p(weights, static_cast<double>(options.top_p), total, scratch);
    double left = uniform(options.seed, position) * total;
    drawn = scratch.back();
    weights.each(scratch, [&](Token id, double weight) {
      if ((left -= weight) >= 0) return false;
      drawn = id;
      return true;
    });
  }
  return Sample{drawn, static_cast<float>(weights.log_of(drawn) - log_plain(total))};
}

}  // namespace nib::inline v0
