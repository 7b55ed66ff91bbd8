// What is behind Model and Session. Private to the room.
#pragma once

#include "text_stream.hpp"
#include <nibble/model/transformer.hpp>
#include <nibble/runtime/session.hpp>

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace nib::inline v0 {

struct Model::State {
  std::shared_ptr<Runtime> runtime;
  Plan plan;
  ModelInfo info;
  ModelDefaults defaults;
  std::optional<Tokenizer> tokenizer;
  ModelConfig config;
  const Backend* backend = nullptr;
  std::uint32_t rows = 0;  // of one forward pass
  Memory memory;
  std::unique_ptr<Device> device;  // null: the host computes all
  std::optional<Memory> device_memory;
  Weights weights;
  std::vector<ExplainItem> explained;
  KvGeometry kv;
  std::vector<std::unique_ptr<PagePool>> pools;  // by layer kind
  Workspace workspace;
  std::optional<Transformer> transformer;  // none for a vocabulary alone
  std::mutex forward;                      // one forward pass at a time: they share threads and workspace

  explicit State(std::shared_ptr<Runtime> with) : runtime(std::move(with)), memory(runtime->allocator()) {}
};

// Who hears of logits while they are computed.
struct Listener {
  LogitSink sink{};
  std::int64_t first = 0;  // position from which on it hears
};

struct Session::State {
  std::shared_ptr<Model> model;
  SessionOptions options;
  std::vector<Token> stop_ids;
  std::unique_ptr<KvCache> cache;
  std::vector<Token> tokens;          // held; the first cache->length() of them are computed
  Buffer logits;                      // of the last token computed; behind them room for their weights
  std::uint64_t logits_position = 0;  // tokens held when they were computed; 0: never
  TextStream text;
  SamplerScratch scratch;
  std::vector<std::uint32_t> seen;        // for a device that penalizes what was seen
  std::optional<Result<Sample>> sampled;  // of the last token computed, whose logits stayed on the device

  State(std::shared_ptr<Model> of, const SessionOptions& with)
      : model(std::move(of)), options(with), text(model->tokenizer(), with.show_specials, with.stop_texts) {}

  Model::State& shared() const { return *model->state_; }
  bool has_logits() const { return !tokens.empty() && logits_position == tokens.size(); }
  // Rows to compute until the logits of the last token are there.
  std::int64_t missing() const {
    return has_logits() ? 0 : static_cast<std::int64_t>(tokens.size()) - cache->length();
  }
  // After forgetting tokens: what of the cache is still true, and no logits of a token that must be computed
  // again.
  void settle();
  void truncate(std::size_t length);
  Status check(std::span<const Token> appended) const;
  // Draws from the logits of the last token.
  Result<Sample> sample_here();
  // The same of row `row` of those that the pass has left on the device, for draw(). Under the pass's lock.
  void sample_there(std::size_t row);
  DrawnRow drawn_row();
  PlacedLogits place_logits();
  // The session then holds what was drawn.
  Result<StepResult> draw(bool last);
  Status can_step() const;
  // Computes what the sessions (of one model) miss, in as few forward passes as the workspace allows. With a
  // listener there is one session. For a step nobody but the sampler will see the logits, so that those on a
  // device stay there.
  enum class For : std::uint8_t { logits, step };
  static Status compute(std::span<State* const> sessions, For what, const Cancel* cancel,
                        const ProgressSink& progress, const Listener& listener = {});
  // Tells of the rows of the pass just computed, which continue the cache. Returns the last one's logits.
  Result<const float*> tell(std::int64_t rows, const Listener& listener);
};

}  // namespace nib::inline v0
