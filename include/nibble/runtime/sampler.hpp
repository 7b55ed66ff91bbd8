// Room runtime: sampling: logits to one token.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <span>
#include <utility>
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

// What sampling works with; reused between calls.
struct SamplerScratch {
  std::span<float> weights{};  // as many as there are logits
  std::vector<Token> ids{};
  std::vector<float> maxima{}, sums{};  // of blocks
  std::vector<std::pair<Token, float>> replaced{};
};

// Draws the token for `position`. The generator is keyed by (seed, position) alone, so neither rewinding nor
// batching can shift it; nor does it matter which backend helps. `history` is what the repetition penalty
// looks at. Logits change meanwhile and are as before afterwards. Those that are not finite are never drawn.
// Errors: internal when there is no other.
Result<Sample> sample(const Backend& backend, std::span<float> logits, const SamplerOptions& options,
                      std::uint64_t position, std::span<const Token> history, SamplerScratch& scratch);

}  // namespace nib::inline v0
