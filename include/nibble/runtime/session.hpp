// Room runtime: Model and Session: an opened model, shared and immutable, and one conversation with it.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>
#include <nibble/model/op_times.hpp>
#include <nibble/runtime/explain.hpp>
#include <nibble/runtime/plan.hpp>
#include <nibble/runtime/runtime.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

class Session;

struct ModelInfo {
  std::string path;
  std::string architecture;  // "gpt-oss"
  std::string backend;       // "avx2"
  std::string device;        // "NVIDIA H200"; empty: the processor computes all
  Numerics numerics = Numerics::bf16;
  KvFormat kv_format = KvFormat::bf16;
  std::uint32_t layers = 0, hidden = 0, vocabulary = 0, experts = 0, experts_per_token = 0;
  std::uint32_t max_context = 0;  // what the model was made for
  std::uint64_t parameters = 0;
  std::uint64_t decode_bytes = 0;   // weights read for one token at batch 1
  std::uint64_t prefill_flops = 0;  // for one prompt token
};

// What the model's own files wish for, from generation_config.json and the tokenizer's files.
struct ModelDefaults {
  SamplerOptions sampler;       // greedy when do_sample is false
  std::vector<Token> stop_ids;  // eos_token_id of generation_config, else of config
  std::optional<Token> bos;
  std::string chat_template;  // text of the Jinja template; empty when there is none
  // Special tokens by the names that chat templates have for them ("bos_token"), with their spellings.
  std::vector<std::pair<std::string, std::string>> special_tokens;
};

// Any thread; immutable. Sessions keep it alive; it keeps its runtime alive.
class Model {
 public:
  // Plans and opens. Errors: budget when the plan does not fit, stopped when cancelled, and whatever reading
  // finds.
  static Result<std::shared_ptr<Model>> open(std::shared_ptr<Runtime> runtime, std::string_view path,
                                             const ModelOptions& options = {},
                                             const SessionOptions& session = {});
  // Opens what was planned. Nothing of size is allocated beyond it.
  static Result<std::shared_ptr<Model>> open(std::shared_ptr<Runtime> runtime, const Plan& plan);
  ~Model();

  const ModelInfo& info() const;
  const ModelDefaults& defaults() const;
  // Null when the directory has no tokenizer.
  const Tokenizer* tokenizer() const;
  // Bytes in use now and at the worst, by purpose.
  const Memory& memory() const;
  // The same of the device; null: the processor computes all.
  const Memory* device_memory() const;
  // How every tensor and the cache are stored and computed, in the order of the graph. Empty for a vocabulary
  // alone.
  std::span<const ExplainItem> explain() const;
  const std::shared_ptr<Runtime>& runtime() const;
  // From now on forward passes add the time of their ops to `times`, which outlives that; null: to none. Any
  // thread; waits for a pass that is at work. Not for a vocabulary alone.
  void time_ops(OpTimes* times);

 private:
  friend class Session;
  friend Status batch_step(std::span<Session* const>, std::span<struct StepResult>, const Cancel*);
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct StepResult {
  Status status;  // ok, or why this session has no token
  Token id = 0;
  float log_probability = 0;
  std::uint64_t position = 0;  // of the new token
  bool end = false;            // a stop id or a stop text: generation is over
  std::string_view text;  // whole UTF-8 that became certain with this token; borrowed until the next call
};

struct GenerateOptions {
  std::uint32_t max_tokens = 0;  // 0: until a stop or the context is full
  // Called for each token, on the calling thread; non-zero stops after it. Null: none.
  int (*on_token)(void* user, const StepResult&) = nullptr;
  void* user = nullptr;
  const Cancel* cancel = nullptr;
};

enum class Finish : std::uint8_t { stop, length, context_full, cancelled };

struct GenerateResult {
  Finish finish = Finish::length;
  std::uint32_t tokens = 0;
};

// Logits after consecutive tokens: row i is what the model expects to follow token `position + i`. Borrowed
// for the call.
struct LogitRows {
  std::uint64_t position = 0;
  std::int64_t rows = 0;
  const float* logits = nullptr;  // [rows][stride]
  std::int64_t stride = 0;
  std::uint32_t vocabulary = 0;
  std::span<const float> row(std::int64_t i) const { return {logits + i * stride, vocabulary}; }
};

// Receives the logits of every token of an append, in order, on the calling thread, as many rows at a time as
// ModelOptions::logit_rows has room for. Non-zero asks to stop. It may not use a session of the same model.
struct LogitSink {
  int (*call)(void* user, const LogitRows&) = nullptr;
  void* user = nullptr;
};

// One thread at a time. Holds tokens and their keys and values; copies nothing of the model.
class Session {
 public:
  // Takes its share of the cache. Errors: budget when the plan's sessions are all in use.
  static Result<std::unique_ptr<Session>> create(std::shared_ptr<Model> model,
                                                 const SessionOptions& options = {});
  ~Session();

  // Appends tokens and computes them: afterwards logits() are those of the last. All or nothing: on an error
  // or a cancel the session holds what it held. Errors: context_full with both numbers, argument (an id the
  // model does not have), stopped. `each`, where there is one, hears of the logits of each of the tokens.
  Status append(std::span<const Token> tokens, const Cancel* cancel = nullptr, ProgressSink progress = {},
                LogitSink each = {});

  // Makes the session hold exactly `tokens`, keeping the longest common prefix it already holds. Returns how
  // many tokens were computed anew (what lies beyond the nearest checkpoint). Errors as append.
  Result<std::uint64_t> resume(std::span<const Token> tokens, const Cancel* cancel = nullptr,
                               ProgressSink progress = {});

  // One forward pass (none right after an append) and one sample, which the session then holds. Errors: state
  // when the session is empty, context_full, stopped; the session is unchanged by them.
  Result<StepResult> step(const Cancel* cancel = nullptr);

  // Steps until a stop, a limit, the callback or the cancel. A stop token is held and reported; stop texts
  // never leak into event text.
  Result<GenerateResult> generate(const GenerateOptions& options);

  // Forgets everything from `position` on. Lazy: what has to be computed again runs in the next call, under
  // its cancel. Errors: argument when the session does not hold that many.
  Status rewind(std::uint64_t position);

  // Logits of the last position [vocabulary]; empty when not computed (after create, step, rewind, or an
  // error).
  // Borrowed until the next call.
  std::span<const float> logits() const;

  std::span<const Token> tokens() const;
  std::uint64_t position() const { return tokens().size(); }
  std::uint32_t context() const;
  const Model& model() const;

 private:
  friend Status batch_step(std::span<Session* const>, std::span<StepResult>, const Cancel*);
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One step of many sessions of one model in one forward pass; the same bits as stepping them one by one.
// results[i] belongs to sessions[i]; a session that fails says so there and the others go on. Errors:
// argument (a session twice, different models, sizes that differ), stopped.
Status batch_step(std::span<Session* const> sessions, std::span<StepResult> results,
                  const Cancel* cancel = nullptr);

}  // namespace nib::inline v0
