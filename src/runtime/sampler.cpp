#include "logit_views.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/float_scope.hpp>
#include <nibble/base/plain_math.hpp>
#include <nibble/runtime/sampler.hpp>

#include <algorithm>
#include <optional>

namespace nib::inline v0 {
namespace {

// Tokens less likely than e^-40 times the likeliest are never drawn: a double would not see them in the sum.
constexpr double kNegligible = -40;

bool is_greedy(const SamplerOptions& options) { return options.greedy || options.temperature == 0.0f; }

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
      replaced_.push_back({id, logits_[id], 0});
      logits_[id] = penalized(logits_[id], penalty);
    }
  }
  ~Penalty() {
    for (const Candidate& token : replaced_) logits_[token.id] = token.logit;
  }
  Penalty(const Penalty&) = delete;
  Penalty& operator=(const Penalty&) = delete;

 private:
  std::span<float> logits_;
  std::vector<Candidate>& replaced_;
};

double sum_of(std::span<const Candidate> tokens) {
  double total = 0;
  for (const Candidate& token : tokens) total += static_cast<double>(token.weight);
  return total;
}

// The smallest set of the likeliest of `tokens` whose share of `total` reaches top_p, or all of them. Returns
// what it weighs.
double keep_top_p(double top_p, double total, std::vector<Candidate>& tokens) {
  const auto less_likely = [](const Candidate& a, const Candidate& b) { return likelier(b, a); };
  std::make_heap(tokens.begin(), tokens.end(), less_likely);
  double kept = 0;
  auto heap_end = tokens.end();
  while (heap_end != tokens.begin() && kept < top_p * total) {
    std::pop_heap(tokens.begin(), heap_end, less_likely);
    kept += static_cast<double>((--heap_end)->weight);
  }
  tokens.erase(tokens.begin(), heap_end);
  return kept;
}

// A logit below which every weight is less than `light`.
float lightest(const LogitScale& scale, float temperature, double light) {
  const double below = light > 0 ? log_plain(light) * static_cast<double>(temperature) * (1 + 0x1p-10) : 0;
  return light > 0 ? std::max(scale.least, static_cast<float>(static_cast<double>(scale.largest) + below))
                   : scale.least;
}

// The first of `tokens` at which the weights up to it reach `left`; of none, the last.
Candidate draw_of(std::span<const Candidate> tokens, double left) {
  for (const Candidate& token : tokens)
    if ((left -= static_cast<double>(token.weight)) < 0) return token;
  return tokens.back();
}

// The same of all that weigh anything: whole blocks are passed over. Errors: device.
Result<Candidate> draw_of_all(LogitView& view, double left) {
  Candidate last = view.best;  // which weighs something
  for (std::size_t index = 0; index < view.sums.size(); ++index) {
    const auto sum = static_cast<double>(view.sums[index]);
    if (left >= sum) {
      left -= sum;
      continue;
    }
    NIB_ASSIGN(const LogitView::Block block, view.block(index));
    for (std::size_t i = 0; i < block.weights.size(); ++i) {
      const float weight = block.weights[i];
      if (weight > 0) last = {static_cast<Token>(index * kLogitBlock + i), block.logits[i], weight};
      if ((left -= static_cast<double>(weight)) < 0) return last;
    }
    return last;  // the sum of the block was rounded up
  }
  return last;
}

// What was drawn, and what those that it was drawn from weigh.
struct Drawn {
  Candidate token;
  double total;
};

// None where the view does not know enough. Errors: device.
Result<std::optional<Drawn>> draw_from(LogitView& view, const SamplerOptions& options, std::size_t vocabulary,
                                       std::uint64_t position, std::vector<Candidate>& tokens) {
  using Found = LogitView::Found;
  double total = 0;
  for (const float sum : view.sums) total += static_cast<double>(sum);
  tokens.clear();
  if (is_greedy(options)) return std::optional<Drawn>({view.best, total});

  const bool cut = options.top_k > 0 && options.top_k < vocabulary;
  if (cut) {
    if (!view.find_likeliest(options.top_k, tokens)) return std::optional<Drawn>();
    std::sort(tokens.begin(), tokens.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    total = sum_of(tokens);
  }
  const double u = uniform(options.seed, position);
  if (options.top_p < 1.0f) {
    const auto top_p = static_cast<double>(options.top_p);
    // Tokens that all together weigh less than what is left over need no order. Half of it: sums are rounded.
    const double light = (1 - top_p) * total / 2 / static_cast<double>(cut ? tokens.size() : vocabulary);
    Found found = Found::all;
    if (cut)
      std::erase_if(tokens,
                    [&](const Candidate& token) { return static_cast<double>(token.weight) < light; });
    else
      found = view.find_from(lightest(view.scale, options.temperature, light), tokens);
    const double kept = keep_top_p(top_p, total, tokens);
    if (found == Found::likeliest && (tokens.empty() || kept < top_p * total)) return std::optional<Drawn>();
    return std::optional<Drawn>({draw_of(tokens, u * kept), kept});
  }
  if (cut) return std::optional<Drawn>({draw_of(tokens, u * total), total});
  NIB_ASSIGN(const Candidate token, draw_of_all(view, u * total));
  return std::optional<Drawn>({token, total});
}

Sample sample_of(const Drawn& drawn, const LogitScale& scale, const SamplerOptions& options) {
  const float temperature = is_greedy(options) ? 1.0f : options.temperature;
  const double log_weight = (static_cast<double>(drawn.token.logit) - static_cast<double>(scale.largest)) /
                            static_cast<double>(temperature);
  return {drawn.token.id, static_cast<float>(log_weight - log_plain(drawn.total))};
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

LogitWeighing weighing_of(const SamplerOptions& options) {
  const FloatScope scope;
  const bool greedy = is_greedy(options);
  const float temperature = greedy ? 1.0f : options.temperature;
  double floor = kNegligible;
  if (!greedy && options.min_p > 0) floor = std::max(floor, log_plain(static_cast<double>(options.min_p)));
  return {.below = floor * static_cast<double>(temperature),
          .inverse_temperature = 1 / temperature,
          .penalty = options.repetition_penalty,
          .wants_likely = !greedy && (options.top_k > 0 || options.top_p < 1.0f),
          .reserved = 0};
}

void mark_seen(std::span<const Token> history, std::span<std::uint32_t> words) {
  std::fill(words.begin(), words.end(), 0u);
  for (const Token id : history)
    if (id / 32 < words.size()) words[id / 32] |= 1u << id % 32;
}

Result<Sample> sample(const Backend& backend, PlacedLogits& logits, const SamplerOptions& options,
                      std::uint64_t position, std::span<const Token> history, SamplerScratch& scratch) {
  const FloatScope scope;
  const std::size_t vocabulary = logits.here.size();
  const LogitWeighing weighing = weighing_of(options);
  std::vector<Candidate>& tokens = scratch.candidates;
  if (logits.device) {
    NIB_ASSIGN(DigestedLogits view, DigestedLogits::make(backend, logits, weighing, history, scratch));
    NIB_ASSIGN(const std::optional<Drawn> drawn, draw_from(view, options, vocabulary, position, tokens));
    if (drawn) return sample_of(*drawn, view.scale, options);
    NIB_TRY(logits.device->download(logits.here.data(), logits.there, logits.here.size_bytes()));
    logits.device = nullptr;
  }
  const Penalty penalty(logits.here, options.repetition_penalty, history, scratch);
  NIB_ASSIGN(HostLogits view, HostLogits::make(backend, logits.here, weighing, scratch));
  NIB_ASSIGN(const std::optional<Drawn> drawn, draw_from(view, options, vocabulary, position, tokens));
  return sample_of(*drawn, view.scale, options);
}

}  // namespace nib::inline v0
