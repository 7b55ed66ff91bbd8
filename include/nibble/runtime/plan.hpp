// Room runtime: Plan: what opening a model will cost, from headers alone, before a byte of weight is read.
// What is opened spends no more than its plan says.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/json.hpp>
#include <nibble/base/memory.hpp>
#include <nibble/io/file.hpp>
#include <nibble/kernels/numerics.hpp>
#include <nibble/model/placement.hpp>
#include <nibble/runtime/runtime.hpp>
#include <nibble/runtime/sampler.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

struct ModelOptions {
  std::string backend{};  // empty: the best present
  Numerics numerics = Numerics::bf16;
  KvFormat kv_format = KvFormat::automatic;
  std::uint64_t host_budget = 0;   // bytes nibble may take; 0: the machine's memory
  std::uint32_t prefill_rows = 0;  // rows of one forward pass; 0: 256
  // Rows whose logits are computed at once, at most those of a pass; 0: one for each session, which is what
  // generating needs. More make LogitSink faster.
  std::uint32_t logit_rows = 0;
  bool vocabulary_only = false;  // open the tokenizer, no weights
  // Under int8 numerics: matrices that these cannot multiply (weights that are no whole numbers times scales,
  // and that bf16 does not hold exactly) are computed as under bf16 instead of refused.
  bool allow_fallback = false;
  // What a device computes, under bf16 numerics: the last so many layers (one more than there are: the head,
  // too), their experts aside if so wished; or whatever `placement` says in place of both.
  std::uint32_t device_layers = 0;
  bool host_experts = false;
  Placement placement{};
  int device = 0;                   // which one
  std::uint64_t device_budget = 0;  // bytes nibble may take there; 0: what is free when the model is opened
  // Of these, bytes for the experts that the device computes; 0: as many as they take. Where they do not fit,
  // all layers have equally many slots, whose experts are copied there from page-locked memory of the host as
  // tokens choose them. The bits of results are the same.
  std::uint64_t expert_cache_bytes = 0;
  // Products of long prompts may be of the fast class, where the device has kernels for it (compute
  // capability 9.0): of MXFP4 and bf16 matrices of layers, in passes of kFastRows rows or more. They add in
  // another order than smaller passes do, so that results depend, by rounding, on how a prompt is cut
  // (prefill_rows).
  bool may_be_fast = false;
  ProgressSink progress{};
  const Cancel* cancel = nullptr;
  const FileSystem* files = nullptr;  // null: the disk
};

struct SessionOptions {
  std::uint32_t context = 0;  // positions; 0: the smaller of 4096 and what the model was made for
  SamplerOptions sampler{};
  std::vector<Token> stop_ids{};          // beside the model's own
  bool ignore_model_stops = false;        // only stop_ids end a generation
  std::vector<std::string> stop_texts{};  // text that ends a generation and is not part of it
  bool show_specials = false;             // spell special tokens out in generated text
};

struct PlanItem {
  std::string device;  // "host", "cuda:0"
  Purpose purpose;
  std::string name;  // "experts (mxfp4)", "kv cache, 12 full layers", ...
  std::uint64_t bytes;
  std::uint64_t stored_bytes = 0;  // of weights: in the files
};

struct PlanSummary {
  std::uint64_t host_bytes = 0;                       // all items: the ceiling
  std::uint64_t host_budget = 0;                      // what was allowed
  std::uint64_t device_bytes = 0, device_budget = 0;  // of the device; no budget: 0
  bool fits = false;                                  // into both
  std::uint32_t context = 0;                          // positions of the session planned for
  std::uint32_t longest_context = 0;     // that would fit the budget; 0 when not even the weights do
  std::uint64_t kv_bytes_per_token = 0;  // growth of the cache, full-attention layers
  std::uint64_t decode_bytes = 0;        // weights read for one token at batch 1 (without the cache)
  std::uint64_t prefill_flops = 0;       // multiply-adds times two for one prompt token
  std::uint64_t stored_bytes = 0;        // tensors that the model uses, in the files
  std::uint64_t parameters = 0;          // of these tensors
};

// What the machine can do, measured (runtime/measure.hpp); zero where it was not.
struct MachineRates {
  double read_bytes_per_second = 0;
  double dot_flops_per_second = 0;
};

// Tokens per second that the rates would allow at best.
struct PredictedRates {
  double decode_tokens_per_second = 0;
  double prefill_tokens_per_second = 0;
};

struct Plan {
  std::string path;
  ModelOptions model;
  SessionOptions session;
  std::uint32_t sessions = 1;
  std::vector<PlanItem> items;
  PlanSummary summary;

  std::uint64_t bytes(Purpose purpose, Place place = Place::host) const;
  // Nothing where a device computes: the rates are those of the processor.
  PredictedRates predict(const MachineRates& rates) const;
};

// Reads config and headers only. The plan holds for `sessions` sessions of these options at once. A model
// that does not fit is no error here: summary.fits says so. Errors: what opening the files finds.
Result<Plan> make_plan(const Runtime& runtime, std::string_view path, const ModelOptions& model = {},
                       const SessionOptions& session = {}, std::uint32_t sessions = 1);

// The same from the text of a config.json alone (model/outline.hpp says what it tells); `name` is the file.
// Such a plan cannot be opened.
Result<Plan> make_plan_of_config(const Runtime& runtime, const Json& config, std::string_view name,
                                 const ModelOptions& model = {}, const SessionOptions& session = {},
                                 std::uint32_t sessions = 1);

}  // namespace nib::inline v0
