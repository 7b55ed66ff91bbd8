#include "opened.hpp"
#include "state.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/session.hpp>

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

namespace nib::inline v0 {
namespace {

Status context_full(std::uint64_t wanted, std::uint64_t context) {
  return Status(Code::context_full,
                concat("the context is full: ", wanted, " tokens wanted, ", context, " positions"));
}

// Undoes what a call had begun when it leaves early, by a status or by an exception.
template <class Undo>
class Rollback {
 public:
  explicit Rollback(Undo undo) : undo_(std::move(undo)) {}
  ~Rollback() {
    if (armed_) undo_();
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  void keep() { armed_ = false; }

 private:
  Undo undo_;
  bool armed_ = true;
};

std::size_t common_prefix(std::span<const Token> a, std::span<const Token> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

// ---- computing

Status Session::State::compute(std::span<State* const> sessions, For what, const Cancel* cancel,
                               const ProgressSink& progress, const Listener& listener) {
  const bool told = listener.sink.call != nullptr;
  Model::State& model = sessions.front()->shared();
  const std::lock_guard lock(model.forward);
  const bool logits_stay = what == For::step && model.transformer->head_place() == Place::device;
  std::int64_t total = 0;
  for (State* session : sessions) {
    session->settle();
    session->sampled.reset();
    total += session->missing();
  }
  struct Share {
    State* session;
    std::int64_t rows;
    bool last;
  };
  std::vector<Share> shares;
  std::vector<BatchRow> batch;
  std::vector<DrawnRow> drawn;
  for (std::int64_t done = 0; done < total;) {
    shares.clear();
    batch.clear();
    drawn.clear();
    std::int64_t room = model.rows, logit_room = model.workspace.logit_rows;
    for (State* session : sessions) {
      KvCache& cache = *session->cache;
      // A pass ends where a regular checkpoint is due.
      const std::int64_t to_checkpoint = kCheckpointEvery - cache.length() % kCheckpointEvery;
      const std::int64_t missing = session->missing();
      const std::int64_t rows = std::min({room, missing, to_checkpoint});
      const bool last = rows == missing;
      if (rows == 0 || (last && logit_room == 0)) continue;
      NIB_TRY(cache.extend(rows));
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t position = cache.length() + i;
        batch.push_back({&cache, session->tokens[static_cast<std::size_t>(position)], position,
                         !told && last && i == rows - 1});
      }
      shares.push_back({session, rows, last});
      if (last && logits_stay) drawn.push_back(session->drawn_row());
      room -= rows;
      logit_room -= last;
    }
    NIB_TRY(model.transformer->forward(batch, model.workspace, cancel, drawn));
    const float* logits = model.workspace.logits;
    if (told) {
      NIB_ASSIGN(logits, sessions.front()->tell(shares.front().rows, listener));
    }
    for (const Share& share : shares) {
      share.session->cache->advance(share.rows);
      done += share.rows;
      if (!share.last || logits_stay) continue;
      std::copy_n(logits, model.config.vocabulary, share.session->logits.as<float>().data());
      share.session->logits_position = share.session->tokens.size();
      logits += model.transformer->logit_stride();
    }
    std::size_t row = 0;
    for (const Share& share : shares)
      if (share.last && logits_stay) share.session->sample_there(row++);
    if (done < total &&
        progress({Stage::prefill, static_cast<std::uint64_t>(done), static_cast<std::uint64_t>(total), ""}))
      return Status(Code::stopped, "the computation was stopped by its progress callback");
  }
  return {};
}

Result<const float*> Session::State::tell(std::int64_t rows, const Listener& listener) {
  Model::State& all = shared();
  const std::int64_t stride = all.transformer->logit_stride(), begin = cache->length();
  const float* last = nullptr;
  for (std::int64_t row = std::max(listener.first - begin, std::int64_t{0}), count; row < rows;
       row += count) {
    count = std::min(rows - row, all.workspace.logit_rows);
    last = all.workspace.logits + (count - 1) * stride;
    NIB_TRY(all.transformer->logits_of(row, count, all.workspace));
    const LogitRows heard{static_cast<std::uint64_t>(begin + row), count, all.workspace.logits, stride,
                          all.config.vocabulary};
    if (listener.sink.call(listener.sink.user, heard) != 0)
      return Status(Code::stopped, "the computation was stopped by the receiver of its logits");
  }
  return last;
}

void Session::State::settle() {
  // All keys are there but the last token's logits are not: compute that token again.
  if (!has_logits() && !tokens.empty() && cache->length() >= static_cast<std::int64_t>(tokens.size()))
    cache->rewind(static_cast<std::int64_t>(tokens.size()) - 1);
}

void Session::State::truncate(std::size_t length) {
  tokens.resize(length);
  cache->rewind(static_cast<std::int64_t>(length));
  if (logits_position > length) logits_position = 0;
}

Status Session::State::check(std::span<const Token> appended) const {
  for (const Token id : appended)
    if (id >= shared().config.vocabulary)
      return Status(Code::argument, concat("token ", id, ": the model's vocabulary has ",
                                           shared().config.vocabulary, " tokens"));
  return {};
}

Status Session::State::can_step() const {
  if (tokens.empty())
    return Status(Code::state, "the session is empty: append a prompt before the first step");
  if (tokens.size() >= options.context) return context_full(tokens.size() + 1, options.context);
  return {};
}

PlacedLogits Session::State::place_logits() {
  const std::span<float> all = logits.as<float>();
  const std::size_t vocabulary = shared().config.vocabulary;
  scratch.weights = all.subspan(all.size() / 2, vocabulary);
  return {.here = all.first(vocabulary)};
}

Result<Sample> Session::State::sample_here() {
  PlacedLogits placed = place_logits();
  return sample(*shared().backend, placed, options.sampler, tokens.size(), tokens, scratch);
}

void Session::State::sample_there(std::size_t row) {
  const Model::State& of = shared();
  const auto start = std::chrono::steady_clock::now();
  const DeviceWorkspace& there = *of.workspace.on_device;
  PlacedLogits placed = place_logits();
  placed.device = of.device.get();
  placed.there = there.logits + static_cast<std::int64_t>(row) * of.transformer->logit_stride();
  placed.digest = there.digests.of(row);
  try {
    sampled = sample(*of.backend, placed, options.sampler, tokens.size(), tokens, scratch);
  } catch (const std::bad_alloc&) {
    sampled = Status(Code::memory, "no memory left");  // this session's alone; short enough to need none
  }
  // Where they had to be fetched, what was in their place is lost.
  if (!sampled->ok())
    logits_position = 0;
  else if (!placed.device)
    logits_position = tokens.size();
  of.transformer->add_time(Op::sample,
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

DrawnRow Session::State::drawn_row() {
  const LogitWeighing weighing = weighing_of(options.sampler);
  if (weighing.penalty != 1.0f) {
    seen.resize(static_cast<std::size_t>(seen_words(shared().config.vocabulary)));
    mark_seen(tokens, seen);
  }
  return {weighing, seen};
}

Result<StepResult> Session::State::draw(bool last) {
  const std::uint64_t position = tokens.size();
  NIB_ASSIGN(const Sample drawn, sampled ? *std::exchange(sampled, std::nullopt) : sample_here());
  StepResult step;
  step.id = drawn.id;
  step.log_probability = drawn.log_probability;
  step.position = position;
  const bool stop_id = std::find(stop_ids.begin(), stop_ids.end(), drawn.id) != stop_ids.end();
  const bool stop_text = text.push(drawn.id);
  tokens.push_back(drawn.id);  // has room for the whole context: nothing after the draw can fail
  step.end = stop_id || stop_text;
  if (stop_id || (last && !stop_text)) text.finish();
  step.text = text.text();
  if (step.end) text.forget_held();
  return step;
}

// ---- Session

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::create(std::shared_ptr<Model> model,
                                                 const SessionOptions& options) {
  Model::State& shared = *model->state_;
  if (!shared.transformer)
    return Status(Code::state, concat(shared.info.path, ": was opened for its vocabulary only"));
  NIB_TRY(validate(options.sampler));
  auto state = std::make_unique<State>(std::move(model), options);
  if (options.context == 0) state->options.context = shared.plan.session.context;
  if (state->options.context > shared.config.max_context)
    return Status(Code::argument, concat("context: ", options.context, " positions asked for, but ",
                                         shared.info.path, " was made for ", shared.config.max_context));
  if (!options.ignore_model_stops) state->stop_ids = shared.defaults.stop_ids;
  state->stop_ids.insert(state->stop_ids.end(), options.stop_ids.begin(), options.stop_ids.end());
  NIB_ASSIGN(state->cache, KvCache::make(shared.kv, shared.pools, state->options.context, shared.rows));
  const auto floats = 2 * static_cast<std::size_t>(shared.transformer->logit_stride());
  NIB_ASSIGN(state->logits, Buffer::make(floats * sizeof(float), shared.memory, Purpose::activations,
                                         "the logits of a session"));
  state->tokens.reserve(state->options.context);
  return std::unique_ptr<Session>(new Session(std::move(state)));
}

Status Session::append(std::span<const Token> tokens, const Cancel* cancel, ProgressSink progress,
                       LogitSink each) {
  State& state = *state_;
  if (tokens.empty()) return {};
  NIB_TRY(state.check(tokens));
  const std::size_t before = state.tokens.size();
  if (tokens.size() > state.options.context - before)
    return context_full(before + tokens.size(), state.options.context);
  Rollback rollback([&] { state.truncate(before); });
  state.tokens.insert(state.tokens.end(), tokens.begin(), tokens.end());
  State* const all[] = {&state};
  NIB_TRY(
      State::compute(all, State::For::logits, cancel, progress, {each, static_cast<std::int64_t>(before)}));
  state.cache->checkpoint();
  rollback.keep();
  state.text.reset();
  return {};
}

Result<std::uint64_t> Session::resume(std::span<const Token> tokens, const Cancel* cancel,
                                      ProgressSink progress) {
  State& state = *state_;
  NIB_TRY(state.check(tokens));
  if (tokens.size() > state.options.context) return context_full(tokens.size(), state.options.context);
  const std::size_t shared = common_prefix(state.tokens, tokens);
  const std::vector<Token> dropped(state.tokens.begin() + static_cast<std::ptrdiff_t>(shared),
                                   state.tokens.end());
  const std::uint64_t logits_position = state.logits_position;
  bool computed = false;
  Rollback rollback([&] {
    state.truncate(shared);
    state.tokens.insert(state.tokens.end(), dropped.begin(), dropped.end());
    if (!computed) state.logits_position = logits_position;  // else they are of other tokens by now
  });
  state.truncate(shared);
  state.tokens.insert(state.tokens.end(), tokens.begin() + static_cast<std::ptrdiff_t>(shared), tokens.end());
  if (state.tokens.empty()) {
    rollback.keep();
    return std::uint64_t{0};
  }
  State* const all[] = {&state};
  state.settle();
  const auto missing = static_cast<std::uint64_t>(state.missing());
  NIB_TRY(State::compute(all, State::For::logits, cancel, progress));
  computed = true;
  state.cache->checkpoint();
  rollback.keep();
  state.text.reset();
  return missing;
}

Result<StepResult> Session::step(const Cancel* cancel) {
  NIB_TRY(state_->can_step());
  State* const all[] = {state_.get()};
  NIB_TRY(State::compute(all, State::For::step, cancel, {}));
  return state_->draw(false);
}

Result<GenerateResult> Session::generate(const GenerateOptions& options) {
  State& state = *state_;
  GenerateResult result;
  for (;;) {
    if (options.max_tokens && result.tokens == options.max_tokens) return result;
    if (state.tokens.size() >= state.options.context && !state.tokens.empty()) {
      result.finish = Finish::context_full;
      return result;
    }
    NIB_TRY(state.can_step());
    State* const all[] = {&state};
    if (Status status = State::compute(all, State::For::step, options.cancel, {}); !status.ok()) {
      if (status.code() != Code::stopped) return status;
      result.finish = Finish::cancelled;
      return result;
    }
    const bool last =
        result.tokens + 1 == options.max_tokens || state.tokens.size() + 1 >= state.options.context;
    NIB_ASSIGN(const StepResult step, state.draw(last));
    ++result.tokens;
    const bool stop = options.on_token && options.on_token(options.user, step) != 0;
    if (step.end || stop) {
      result.finish = step.end ? Finish::stop : Finish::cancelled;
      return result;
    }
  }
}

Status Session::rewind(std::uint64_t position) {
  State& state = *state_;
  if (position > state.tokens.size())
    return Status(Code::argument, concat("rewind: position ", position, " asked for, but the session holds ",
                                         state.tokens.size(), " tokens"));
  state.truncate(static_cast<std::size_t>(position));
  state.text.reset();
  return {};
}

std::span<const float> Session::logits() const {
  if (!state_->has_logits()) return {};
  return std::as_const(state_->logits).as<float>().first(state_->shared().config.vocabulary);
}

std::span<const Token> Session::tokens() const { return state_->tokens; }
std::uint32_t Session::context() const { return state_->options.context; }
const Model& Session::model() const { return *state_->model; }

Status batch_step(std::span<Session* const> sessions, std::span<StepResult> results, const Cancel* cancel) {
  if (sessions.size() != results.size())
    return Status(Code::argument,
                  concat("batch: ", sessions.size(), " sessions, but room for ", results.size(), " results"));
  std::vector<Session::State*> ready;
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    if (sessions[i]->state_->model->state_ != sessions[0]->state_->model->state_)
      return Status(Code::argument, "batch: the sessions are of different models");
    if (std::find(sessions.begin(), sessions.begin() + static_cast<std::ptrdiff_t>(i), sessions[i]) !=
        sessions.begin() + static_cast<std::ptrdiff_t>(i))
      return Status(Code::argument, concat("batch: session ", i, " is in the batch twice"));
    results[i] = {};
    results[i].status = sessions[i]->state_->can_step();
    if (results[i].status.ok()) ready.push_back(sessions[i]->state_.get());
  }
  if (ready.empty()) return {};
  NIB_TRY(Session::State::compute(ready, Session::State::For::step, cancel, {}));
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    if (!results[i].status.ok()) continue;
    try {
      Result<StepResult> step = sessions[i]->state_->draw(false);
      if (step.ok())
        results[i] = step.take();
      else
        results[i].status = step.status();
    } catch (const std::bad_alloc&) {
      // The sessions before have taken their step: this one alone has none. Short enough to need no memory.
      results[i].status = Status(Code::memory, "no memory left");
    }
  }
  return {};
}

}  // namespace nib::inline v0
