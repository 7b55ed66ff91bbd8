// Room runtime: sampling: logits to one token.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/kernels/device_logits.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace nib::inline v0 {

// Applied in this order: repetition penalty, temperature, top-k, softmax, min-p, top-p, draw. Unset means not
// applied.
struct SamplerOptions {
  float temperature = 1.0f;  // > 0; 0 means greedy too
  bool greedy = false;       // the largest logit (lowest id on ties); nothing below matters but the penalty
  std::uint32_t top_k = 0;   // 0: all
  float top_p = 1.0f;        // the smallest set of likeliest tokens whose probabilities reach it; (0, 1]
  float min_p = 0.0f;        // drops tokens less likely than min_p times the likeliest; [0, 1]
  float repetition_penalty =
      1.0f;  // > 0: divides positive and multiplies negative logits of tokens seen before
  std::uint64_t seed = 0;
};

struct Sample {
  Token id = 0;
  float log_probability =
      0;  // natural log, under the distribution that was drawn from (after temperature and cuts)
};

// Checks the ranges above; Code::argument names the option.
Status validate(const SamplerOptions& options);

// A token that may be drawn.
struct Candidate {
  Token id;
  float logit, weight;
};

// What sampling works with; reused between calls.
struct SamplerScratch {
  std::span<float> weights{};  // as many as there are logits
  std::vector<Candidate> candidates{};
  std::vector<float> maxima{}, ranked{}, sums{};  // of blocks
  std::vector<float> few{};                       // logits and weights of one block, or of candidates
  std::vector<Candidate> replaced{};              // by the penalty
};

// Logits of one position, wherever they are.
struct PlacedLogits {
  std::span<float> here{};  // one for each token; those of a device: room for them, should they be fetched
  const Device* device = nullptr;       // null: they are here
  const float* there = nullptr;         // on the device
  std::span<const std::byte> digest{};  // what the device told of them, as weighing_of() wanted them weighed
};

// How logits are weighed under these options.
LogitWeighing weighing_of(const SamplerOptions& options);

// Draws the token for `position`. The generator is keyed by (seed, position) alone, so neither rewinding nor
// batching can shift it; nor does it matter which backend helps, or where the logits are. `history` is what
// the repetition penalty looks at. Logits that are here change meanwhile and are as before afterwards. Those
// that are not finite are never drawn. Of a device's a block at most is fetched, unless so many tokens are
// likely that the digest does not list them: then all are, and logits.device becomes null. Errors: internal
// when there is no finite logit; device.
Result<Sample> sample(const Backend& backend, PlacedLogits& logits, const SamplerOptions& options,
                      std::uint64_t position, std::span<const Token> history, SamplerScratch& scratch);
inline Result<Sample> sample(const Backend& backend, std::span<float> logits, const SamplerOptions& options,
                             std::uint64_t position, std::span<const Token> history,
                             SamplerScratch& scratch) {
  PlacedLogits here{.here = logits};
  return sample(backend, here, options, position, history, scratch);
}

// Bits of the tokens seen, for a device. words: seen_words(vocabulary).
void mark_seen(std::span<const Token> history, std::span<std::uint32_t> words);

}  // namespace nib::inline v0
