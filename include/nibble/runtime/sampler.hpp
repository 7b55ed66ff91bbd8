// Room runtime: sampling: logits to one token.
#pragma once

#include <nibble/base/status.hpp>
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

// Draws the token for `position`. The generator is keyed by (seed, position) alone, so neither rewinding nor
// batching can shift it. `history` is what the repetition penalty looks at. `scratch` is reused between
// calls. Not-a-number logits are never drawn. Errors: internal when no logit is finite.
Result<Sample> sample(std::span<const float> logits, const SamplerOptions& options, std::uint64_t position,
                      std::span<const Token> history, std::vector<Token>& scratch);

}  // namespace nib::inline v0
