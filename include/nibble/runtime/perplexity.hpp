// Room runtime: Perplexity: how well a model expects a text, and how far it is from another model on it.
//
// The text is cut into windows. Each is computed from an empty session, every one of its tokens is predicted
// from those before it in the window, and the mean of -log p is over all predictions of all windows. With
// stride = window (the default) windows stand side by side, and the first token of each is not predicted.
// With a smaller stride windows overlap: one begins every `stride` tokens, and only tokens are counted that
// no window before has counted, so that all but those of the first window have at least window - stride
// tokens before them. Tokens left at the end make a shorter window.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>
#include <nibble/runtime/session.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace nib::inline v0 {

struct PerplexityOptions {
  std::uint32_t window = 512;  // tokens of a window, `first` included; a plan's context must hold them
  std::uint32_t stride = 0;    // tokens from one window to the next; 0: as many as a window holds
  std::uint64_t windows = 0;   // at most so many, from the beginning of the text; 0: all
  // Put before every window (its bos); the window's first token is then predicted too.
  std::optional<Token> first{};
  ProgressSink progress{};  // stage prefill, name "text"; done and total count its tokens
  const Cancel* cancel = nullptr;
};

// A mean and its standard error, the predictions taken as independent.
struct Estimate {
  double value = 0, error = 0;
};

// A model against another one, P, whose distribution is taken for the truth. Logarithms are natural ones.
struct Comparison {
  Estimate nll, perplexity;  // of P: mean -log p of the text's tokens, and its exponential
  Estimate ratio;            // the model's perplexity by that of P; the error is of the pairs
  Estimate divergence;       // mean KL(P || model)
  double median = 0, p90 = 0, p95 = 0, p99 = 0, p999 = 0, most = 0;  // quantiles of KL over predictions
  Estimate agreement;  // share of predictions at which both have the same likeliest token
};

struct Perplexity {
  std::uint64_t windows = 0;
  std::uint64_t predictions = 0;
  Estimate nll;         // mean -log p of the text's tokens
  Estimate perplexity;  // its exponential
  std::optional<Comparison> comparison;
};

// Computes both, each model on the threads of its runtime; every sum is in double precision and in the order
// of the text, so that the numbers do not depend on the threads. Takes one session of `window` positions of
// each model, and with `against` room for a pass's logits (at most 64 MiB, or sixteen rows) from the model's
// allocator. Open the models with ModelOptions::logit_rows, or they multiply by the head row by row. Errors:
// argument (fewer than two tokens, a stride that is none, two models that are one or have different
// vocabularies), internal (a logit that is no number), stopped, and those of Session::create and append.
Result<Perplexity> measure_perplexity(const std::shared_ptr<Model>& model, std::span<const Token> tokens,
                                      const PerplexityOptions& options = {},
                                      const std::shared_ptr<Model>& against = nullptr);

}  // namespace nib::inline v0
