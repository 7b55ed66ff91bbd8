#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/plain_math.hpp>
#include <nibble/runtime/sampler.hpp>

#include <algorithm>
#include <functional>
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

// Applies the repetition penalty to the logits for as long as it lives.
class Penalty {
 public:
  Penalty(std::span<float> logits, float penalty, std::span<const Token> history, SamplerScratch& scratch)
      : logits_(logits), replaced_(scratch.replaced) {
    replaced_.clear();
    if (penalty == 1.0f) return;
    const std::span<float> seen = scratch.weights;  // not in use yet
    std::fill(seen.begin(), seen.end(), 0.0f);
    for (const Token id : history) {
      if (id >= logits.size() || seen[id] != 0) continue;
      seen[id] = 1;
      float& logit = logits_[id];
      replaced_.emplace_back(id, logit);
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  ~Penalty() {
    for (const auto& [id, logit] : replaced_) logits_[id] = logit;
  }
  Penalty(const Penalty&) = delete;
  Penalty& operator=(const Penalty&) = delete;

 private:
  std::span<float> logits_;
  std::vector<std::pair<Token, float>>& replaced_;
};

// Logits, and what is known of each block of them.
struct Blocks {
  std::span<const float> logits;
  SamplerScratch& scratch;

  bool likelier(Token a, Token b) const { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; }
  float weight(Token id) const { return scratch.weights[id]; }
  double sum(std::span<const Token> ids) const {
    double total = 0;
    for (const Token id : ids) total += static_cast<double>(weight(id));
    return total;
  }
  // visit(id) for those of at least `least` and no more than the largest, in order; blocks without one are
  // passed over.
  void each_from(float least, float largest, auto&& visit) const {
    for (std::size_t block = 0; block < scratch.maxima.size(); ++block) {
      if (scratch.maxima[block] < least) continue;
      const std::size_t begin = block * kLogitBlock, end = std::min(begin + kLogitBlock, logits.size());
      for (std::size_t id = begin; id < end; ++id)
        if (logits[id] >= least && logits[id] <= largest) visit(static_cast<Token>(id));
    }
  }
};

// The likeliest `count` of those of at least `least`, in order of their ids.
void find_top_k(const Blocks& blocks, std::size_t count, float least, float largest,
                std::vector<Token>& ids) {
  // As many blocks as that have one each that is at least this.
  std::vector<float>& maxima = blocks.scratch.sums;  // not in use yet
  maxima = blocks.scratch.maxima;
  if (count <= maxima.size()) {
    const auto at = maxima.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(maxima.begin(), at, maxima.end(), std::greater<>());
    least = std::max(least, *at);
  }
  blocks.each_from(least, largest, [&](Token id) { ids.push_back(id); });
  if (count >= ids.size()) return;
  std::nth_element(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                   [&](Token a, Token b) { return blocks.likelier(a, b); });
  ids.resize(count);
  std::sort(ids.begin(), ids.end());
}

// The smallest set of the likeliest of `ids` whose share of `total`, which they all weigh, reaches top_p.
// Returns what it weighs.
double keep_top_p(const Blocks& blocks, double top_p, double total, std::vector<Token>& ids) {
  const auto less_likely = [&](Token a, Token b) { return blocks.likelier(b, a); };
  std::make_heap(ids.begin(), ids.end(), less_likely);
  double kept = 0;
  auto heap_end = ids.end();
  while (heap_end != ids.begin() && kept < top_p * total) {
    std::pop_heap(ids.begin(), heap_end, less_likely);
    kept += static_cast<double>(blocks.weight(*--heap_end));
  }
  ids.erase(ids.begin(), heap_end);
  return kept;
}

// A logit below which every weight is less than `light`.
float lightest(const LogitScale& scale, float temperature, double light) {
  const double below = light > 0 ? log_plain(light) * static_cast<double>(temperature) * (1 + 0x1p-10) : 0;
  return light > 0 ? std::max(scale.least, static_cast<float>(static_cast<double>(scale.largest) + below))
                   : scale.least;
}

// The first of `ids` at which the weights up to it reach `left`; of none, the last.
Token draw_of(const Blocks& blocks, std::span<const Token> ids, double left) {
  for (const Token id : ids)
    if ((left -= static_cast<double>(blocks.weight(id))) < 0) return id;
  return ids.back();
}

// The same of all that weigh anything: whole blocks are passed over. `best` weighs something.
Token draw_of_all(const Blocks& blocks, double left, Token best) {
  Token last = best;
  for (std::size_t block = 0; block < blocks.scratch.sums.size(); ++block) {
    const auto sum = static_cast<double>(blocks.scratch.sums[block]);
    if (left >= sum) {
      left -= sum;
      continue;
    }
    const std::size_t begin = block * kLogitBlock, end = std::min(begin + kLogitBlock, blocks.logits.size());
    for (std::size_t id = begin; id < end; ++id) {
      const float weight = blocks.scratch.weights[id];
      if (weight > 0) last = static_cast<Token>(id);
      if ((left -= static_cast<double>(weight)) < 0) return static_cast<Token>(id);
    }
    return last;  // the sum of the block was rounded up
  }
  return last;
}

struct Bounds {
  const char* option;
  double value, low, high;
  bool open_low;
};

}  // namespace

Status validate(const SamplerOptions& options) {
  const Bounds ranges[] = {
      {"temperature", static_cast<double>(options.temperature), 0, 1e6, false},
      {"top_p", static_cast<double>(options.top_p), 0, 1, true},
      {"min_p", static_cast<double>(options.min_p), 0, 1, false},
      {"repetition_penalty", static_cast<double>(options.repetition_penalty), 0, 1e6, true}};
  for (const Bounds& range : ranges) {
    const bool low = range.open_low ? range.value > range.low : range.value >= range.low;
    if (!low || !(range.value <= range.high))
      return Status(Code::argument,
                    concat(range.option, ": expected ", range.open_low ? "more than " : "at least ",
                           range.low, " and at most ", range.high, ", found ", range.value));
  }
  return {};
}

Result<Sample> sample(const Backend& backend, std::span<float> logits, const SamplerOptions& options,
                      std::uint64_t position, std::span<const Token> history, SamplerScratch& scratch) {
  const FloatScope scope;
  const Penalty penalized(logits, options.repetition_penalty, history, scratch);
  const auto count = static_cast<std::int64_t>(logits.size());
  scratch.maxima.resize(static_cast<std::size_t>(ceil_div(count, kLogitBlock)));
  backend.logits.maxima(logits.data(), count, scratch.maxima.data());
  const float largest = scratch.maxima.empty()
                            ? -std::numeric_limits<float>::infinity()
                            : *std::max_element(scratch.maxima.begin(), scratch.maxima.end());
  if (!(largest >= std::numeric_limits<float>::lowest()))
    return Status(Code::internal, "no logit is a finite number: the model cannot continue");
  const Blocks blocks{logits, scratch};
  const auto block = static_cast<std::size_t>(
      std::find(scratch.maxima.begin(), scratch.maxima.end(), largest) - scratch.maxima.begin());
  const auto best = static_cast<Token>(
      std::find(logits.begin() + static_cast<std::ptrdiff_t>(block * kLogitBlock), logits.end(), largest) -
      logits.begin());

  const bool greedy = options.greedy || options.temperature == 0.0f;
  const float temperature = greedy ? 1.0f : options.temperature;
  double floor = kNegligible;
  if (!greedy && options.min_p > 0) floor = std::max(floor, log_plain(static_cast<double>(options.min_p)));
  const double least = static_cast<double>(largest) + floor * static_cast<double>(temperature);
  const LogitScale scale{largest, 1 / temperature,
                         static_cast<float>(std::max(least, -double{std::numeric_limits<float>::max()}))};

  std::vector<Token>& ids = scratch.ids;
  ids.clear();
  const bool cut = !greedy && options.top_k > 0 && options.top_k < logits.size();
  if (cut) find_top_k(blocks, options.top_k, scale.least, largest, ids);
  scratch.sums.resize(scratch.maxima.size());
  backend.logits.weights(logits.data(), count, scale, scratch.weights.data(), scratch.sums.data());
  double total = 0;
  for (const float sum : scratch.sums) total += static_cast<double>(sum);
  if (cut) total = blocks.sum(ids);

  Token drawn = best;
  if (!greedy) {
    const double u = uniform(options.seed, position);
    if (options.top_p < 1.0f) {
      const auto top_p = static_cast<double>(options.top_p);
      // Tokens that all together weigh less than what is left over need no order. Half of it: sums are
      // rounded.
      const double size = cut ? static_cast<double>(ids.size()) : static_cast<double>(logits.size());
      const double light = (1 - top_p) * total / 2 / size;
      if (cut)
        std::erase_if(ids, [&](Token id) { return static_cast<double>(blocks.weight(id)) < light; });
      else
        blocks.each_from(lightest(scale, temperature, light), largest, [&](Token id) { ids.push_back(id); });
      total = keep_top_p(blocks, top_p, total, ids);
      drawn = draw_of(blocks, ids, u * total);
    } else {
      drawn = cut ? draw_of(blocks, ids, u * total) : draw_of_all(blocks, u * total, best);
    }
  }
  const double log_weight =
      (static_cast<double>(logits[drawn]) - static_cast<double>(largest)) / static_cast<double>(temperature);
  return Sample{drawn, static_cast<float>(log_weight - log_plain(total))};
}

}  // namespace nib::inline v0
