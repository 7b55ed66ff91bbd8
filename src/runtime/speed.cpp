#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/runtime/speed.hpp>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

namespace nib::inline v0 {
namespace {

using Clock = std::chrono::steady_clock;

std::uint32_t most_of(const std::vector<std::uint32_t>& counts) {
  return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
}

// A session cannot decode from nothing: it holds a token at least.
std::uint32_t held(std::uint32_t context) { return std::max(context, 1u); }

// From its making on: the clock, and that of each op where they are to be timed.
class Timing {
 public:
  Timing(Model& model, OpTimes* ops) : model_(model) {
    if (ops) *ops = {};
    model.time_ops(ops);
    start_ = Clock::now();
  }
  ~Timing() { model_.time_ops(nullptr); }
  Timing(const Timing&) = delete;
  Timing& operator=(const Timing&) = delete;
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  Model& model_;
  Clock::time_point start_;
};

class SpeedMeasurement {
 public:
  SpeedMeasurement(const std::shared_ptr<Model>& model, const SpeedOptions& options)
      : model_(model), options_(options), contexts_(options.contexts), batches_(options.batches) {
    std::sort(contexts_.begin(), contexts_.end());
    std::uint64_t decoded = 0;
    for (const std::uint32_t batch : batches_) decoded += std::uint64_t{batch} * options.decode;
    total_ = contexts_.size() * options.rounds * (options.prompt + decoded);
  }

  Result<std::vector<Speed>> run() {
    NIB_TRY(check());
    for (std::uint32_t i = 0; i < options_.sessions(); ++i) NIB_TRY(add_session(i));
    for (const std::uint32_t context : contexts_) {
      if (options_.prompt > 0) NIB_TRY(measure({Speed::Kind::prefill, context, 1, options_.prompt, {}, {}}));
      for (const std::uint32_t batch : batches_)
        if (options_.decode > 0)
          NIB_TRY(measure({Speed::Kind::decode, context, batch, options_.decode, {}, {}}));
    }
    return std::move(measured_);
  }

 private:
  struct Speaker {
    std::unique_ptr<Session> session;
    std::vector<Token> tokens;  // random, as many as any context and prompt take
  };

  Status check() const {
    const bool empty_batch = std::find(batches_.begin(), batches_.end(), 0u) != batches_.end();
    if (contexts_.empty() || options_.rounds == 0 ||
        (options_.prompt == 0 && (options_.decode == 0 || batches_.empty())))
      return {Code::argument,
              "a measurement of speed needs a context, rounds, and a prompt or tokens to decode"};
    if (empty_batch) return {Code::argument, "a batch of no sessions cannot be measured"};
    return {};
  }

  Status add_session(std::uint32_t index) {
    Speaker speaker;
    NIB_ASSIGN(speaker.session,
               Session::create(model_, {.context = options_.positions(), .ignore_model_stops = true}));
    // Sessions with other tokens each: a batch of experts' models works with more experts than one session.
    std::mt19937 random(index + 1);
    speaker.tokens.resize(held(most_of(contexts_)) + options_.prompt);
    for (Token& id : speaker.tokens) id = static_cast<Token>(random() % model_->info().vocabulary);
    speakers_.push_back(std::move(speaker));
    return {};
  }

  Status measure(Speed speed) {
    const auto round_of = [&](OpTimes* ops) -> Result<double> {
      for (std::uint32_t i = 0; i < speed.sessions; ++i) NIB_TRY(hold(speakers_[i], held(speed.context)));
      return speed.kind == Speed::Kind::prefill ? prefill(speed, ops) : decode(speed, ops);
    };
    // A device does one op while it is asked for the next, unless the op is timed: that is a round of its own.
    const bool apart = model_->device_memory() != nullptr;
    if (apart) NIB_TRY(round_of(&speed.ops).status());
    for (std::uint32_t round = 0; round < options_.rounds; ++round) {
      NIB_ASSIGN(const double seconds, round_of(apart ? nullptr : &ops_));
      const bool best =
          speed.seconds.empty() || seconds < *std::min_element(speed.seconds.begin(), speed.seconds.end());
      if (best && !apart) speed.ops = ops_;
      speed.seconds.push_back(seconds);
      done_ += std::uint64_t{speed.tokens} * speed.sessions;
      if (options_.progress({Stage::prefill, done_, total_, "benchmark"}))
        return {Code::stopped, concat(model_->info().path, ": stopped while its speed was measured")};
    }
    measured_.push_back(std::move(speed));
    return {};
  }

  // Exactly the first `count` of its tokens, and their logits.
  Status hold(Speaker& speaker, std::uint32_t count) const {
    return speaker.session->resume(std::span(speaker.tokens).first(count), options_.cancel).status();
  }

  Result<double> prefill(const Speed& speed, OpTimes* ops) {
    Speaker& speaker = speakers_.front();
    const auto prompt = std::span(speaker.tokens).subspan(held(speed.context), speed.tokens);
    const Timing timing(*model_, ops);
    NIB_TRY(speaker.session->append(prompt, options_.cancel));
    return timing.seconds();
  }

  Result<double> decode(const Speed& speed, OpTimes* ops) {
    std::vector<Session*> sessions;
    for (std::uint32_t i = 0; i < speed.sessions; ++i) sessions.push_back(speakers_[i].session.get());
    std::vector<StepResult> results(sessions.size());
    const auto step = [&]() -> Status {
      NIB_TRY(batch_step(sessions, results, options_.cancel));
      for (const StepResult& result : results) NIB_TRY(result.status);
      return {};
    };
    NIB_TRY(step());  // the first samples from the logits that are there
    const Timing timing(*model_, ops);
    for (std::uint32_t i = 0; i < speed.tokens; ++i) NIB_TRY(step());
    return timing.seconds();
  }

  const std::shared_ptr<Model>& model_;
  const SpeedOptions& options_;
  std::vector<std::uint32_t> contexts_, batches_;
  std::vector<Speaker> speakers_;
  std::vector<Speed> measured_;
  OpTimes ops_;  // of the round at hand
  std::uint64_t done_ = 0, total_ = 0;
};

}  // namespace

std::uint32_t SpeedOptions::positions() const {
  const std::uint64_t behind = std::max(std::uint64_t{prompt}, std::uint64_t{decode} + 1);
  return static_cast<std::uint32_t>(std::min(held(most_of(contexts)) + behind, std::uint64_t{UINT32_MAX}));
}

std::uint32_t SpeedOptions::sessions() const { return decode > 0 ? std::max(most_of(batches), 1u) : 1u; }

double Speed::tokens_per_second() const {
  if (seconds.empty()) return 0;
  return static_cast<double>(sessions) * tokens / *std::min_element(seconds.begin(), seconds.end());
}

Result<std::vector<Speed>> measure_speed(const std::shared_ptr<Model>& model, const SpeedOptions& options) {
  return within_memory(model->info().path, [&] { return SpeedMeasurement(model, options).run(); });
}

}  // namespace nib::inline v0
