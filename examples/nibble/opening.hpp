// From flags to an opened model, as every verb that needs one does it.
#pragma once

#include "flags.hpp"
#include <nibble/base/cancel.hpp>
#include <nibble/runtime/plan.hpp>
#include <nibble/runtime/session.hpp>

#include <memory>
#include <string>

namespace nib::program {

// The options of the library for these flags; the budget is what --memory says or what this process may still
// take.
ModelOptions model_options(const ModelFlags& flags);

// The model's wishes, with the flags over them. The seed is drawn when none is given and one is needed.
SamplerOptions sampler_options(const SamplerOptions& wishes, const SamplingFlags& flags);

struct Opened {
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<Model> model;
  bool shipped = false;  // the model that comes with the program
  PlanSummary summary;   // of the plan that it was opened with
};

// What a verb needs of the model beyond its flags.
struct Needs {
  std::uint32_t logit_rows = 0;           // as in ModelOptions
  bool tokenizer = true;                  // it is an error when there is none
  std::uint32_t sessions = 1;             // at once
  std::shared_ptr<Runtime> runtime = {};  // to share with another model; null: one of its own
};

// Finds, plans and opens, with progress on a terminal. Errors: those of the library; `advice` then says what
// to do about it, where there is something.
Result<Opened> open_for(const ModelFlags& flags, const Cancel* cancel, std::string& advice,
                        const Needs& needs = {});

// What one answer took.
struct Timing {
  std::uint64_t prompt_tokens = 0;
  std::uint64_t computed_tokens = 0;  // of the prompt; the others were still in the cache
  double prompt_seconds = 0;
  std::uint64_t answer_tokens = 0;
  double answer_seconds = 0;
};

// How fast this machine reads memory, measured over a block of `most_bytes` or a quarter of the memory that
// may still be taken, whichever is less. 0 when there is too little of it to tell.
double measured_bandwidth(const Runtime& runtime, double seconds, std::uint64_t most_bytes);
// The same in a moment, for a closing line; of a model's runtime: 0 where a device computes, too, whose
// memory is another.
double roughly_measured_bandwidth(const Runtime& runtime);
double roughly_measured_bandwidth(const Model& model);

// "avx2", or "avx2 and NVIDIA H200 (9.1 GiB of 12.8 GiB of weights)".
std::string computed_by(const Model& model);

// The closing line, without colour or newline: what was done, how fast, and how fast reading the weights of
// each token at `read_bytes_per_second` (0: not measured) would allow.
std::string timing_text(const Timing& timing, double read_bytes_per_second, std::uint64_t decode_bytes);

}  // namespace nib::program
