#include <nibble/base/concat.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/plain_math.hpp>
#include <nibble/runtime/sampler.hpp>

#include <algorithm>
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
  std::size_t best = penalized.size();
  for (std::size_t id = 0; id < penalized.size(); ++id)
    if (std::isfinite(penalized[id]) && (best == penalized.size() || penalized[id] > penalized[best]))
      best = id;
  if (best == penalized.size())
    return Status(Code::internal, "no logit is a finite number: the model cannot continue");

  const bool greedy = options.greedy || options.temperature == 0.0f;
  const double temperature = greedy ? 1.0 : static_cast<double>(options.temperature);
  const double largest = penalized[best];
  const auto log_weight = [&](Token id) { return (penalized[id] - largest) / temperature; };
  const auto weight = [&](Token id) { return exp_plain(log_weight(id)); };
  const auto likelier = [&](Token a, Token b) {
    return penalized[a] != penalized[b] ? penalized[a] > penalized[b] : a < b;
  };

  double floor = kNegligible;
  if (!greedy && options.min_p > 0) floor = std::max(floor, log_plain(static_cast<double>(options.min_p)));
  scratch.clear();
  for (std::size_t id = 0; id < penalized.size(); ++id)
    if (std::isfinite(penalized[id]) && log_weight(static_cast<Token>(id)) >= floor)
      scratch.push_back(static_cast<Token>(id));
  if (!greedy && options.top_k > 0 && options.top_k < scratch.size()) {
    std::nth_element(scratch.begin(), scratch.begin() + options.top_k, scratch.end(), likelier);
    scratch.resize(options.top_k);
    std::sort(scratch.begin(), scratch.end());
  }
  double total = 0;
  for (const Token id : scratch) total += weight(id);
  const auto result = [&](Token id) {
    return Sample{id, static_cast<float>(log_weight(id) - log_plain(total))};
  };
  if (greedy) return result(static_cast<Token>(best));

  if (options.top_p < 1.0f) {  // likeliest first, until their share is reached
    const auto less_likely = [&](Token a, Token b) { return likelier(b, a); };
    std::make_heap(scratch.begin(), scratch.end(), less_likely);
    const double wanted = static_cast<double>(options.top_p) * total;
    double kept = 0;
    auto heap_end = scratch.end();
    while (heap_end != scratch.begin() && kept < wanted) {
      std::pop_heap(scratch.begin(), heap_end, less_likely);
      kept += weight(*--heap_end);
    }
    scratch.erase(scratch.begin(), heap_end);
    total = kept;
  }
  double left = uniform(options.seed, position) * total;
  for (const Token id : scratch)
    if ((left -= weight(id)) < 0) return result(id);
  return result(scratch.back());
}

}  // namespace nib::inline v0
