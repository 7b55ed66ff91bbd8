// Room capi: nib_session and the batch step.
#include "handles.hpp"
#include "versioned.hpp"

#include <chrono>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

static_assert(std::is_same_v<nib_token, nib::Token>);

namespace nib::capi {
namespace {

using Use = nib_session::Use;

// One call at work in a session, from take() until it leaves the scope.
class Claim {
 public:
  Claim() = default;
  Claim(Claim&& other) noexcept : session_(std::exchange(other.session_, nullptr)) {}
  ~Claim() {
    Use at_work = Use::at_work;
    if (session_ && !session_->use.compare_exchange_strong(at_work, Use::idle)) delete session_;
  }

  // Errors: argument, state (a forked child), busy.
  Status take(const nib_session* session) {
    NIB_TRY(usable_here(session, "session"));
    Use idle = Use::idle;
    if (!session->use.compare_exchange_strong(idle, Use::at_work))
      return {Code::busy, "the session is at work for another caller"};
    session_ = session;
    return {};
  }

 private:
  const nib_session* session_ = nullptr;
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

Result<std::span<const Token>> read_tokens(const nib_token* tokens, std::size_t count) {
  if (count != 0) NIB_TRY(require(tokens, "tokens"));
  return std::span<const Token>(tokens, count);
}

// A caller's token callback behind the runtime's.
struct TokenCall {
  nib_token_fn call;
  void* user;
  const nib_session* session;

  static int on_token(void* self, const StepResult& step) {
    const auto& to = *static_cast<const TokenCall*>(self);
    nib_token_event event{};
    event.struct_size = sizeof event;
    event.flags = step.end ? NIB_TOKEN_END : 0;
    event.position = step.position;
    event.text = not_null(step.text);
    event.text_size = step.text.size();
    event.id = step.id;
    event.log_probability = step.log_probability;
    if (to.call(to.user, &event) != 0) return 1;
    return to.session->use.load() == Use::to_be_freed;
  }
};

std::uint32_t finish_code(Finish finish) {
  switch (finish) {
    case Finish::stop:
      return NIB_FINISH_STOP;
    case Finish::length:
      return NIB_FINISH_LENGTH;
    case Finish::context_full:
      return NIB_FINISH_CONTEXT_FULL;
    case Finish::cancelled:
      break;
  }
  return NIB_FINISH_CANCELLED;
}

Status stopped() { return {Code::stopped, "stopped by a callback or a cancel"}; }

// What one session got of a batch step. Nothing here can fail: the step has been taken.
nib_step_result write_result(nib_session& session, StepResult& step) {
  nib_step_result value{};
  session.outcome = std::move(step.status);
  const Status& outcome = session.outcome;
  value.status = static_cast<nib_status>(outcome.ok() && step.end ? Code::end : outcome.code());
  value.id = step.id;
  value.position = step.position;
  value.text = not_null(step.text);
  value.text_size = step.text.size();
  value.message = outcome.message().c_str();
  value.message_size = outcome.message().size();
  value.log_probability = step.log_probability;
  return value;
}

// Claims them all. A session that is listed twice is the caller's mistake, not somebody else's call.
Result<std::vector<Claim>> claim_all(std::span<nib_session* const> sessions) {
  std::vector<Claim> claims(sessions.size());
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    const Status status = claims[i].take(sessions[i]);
    if (status.ok()) continue;
    for (std::size_t j = 0; j < i; ++j)
      if (sessions[j] == sessions[i])
        return Status(Code::argument, concat("sessions ", j, " and ", i, " are the same"));
    return status;
  }
  return claims;
}

}  // namespace
}  // namespace nib::capi

using namespace nib;
using namespace nib::capi;

extern "C" {

nib_status nib_session_create(nib_model* model, const nib_session_options* options, nib_session** out,
                              nib_error* error) {
  if (out) *out = nullptr;
  return guard(error, [&]() -> Status {
    NIB_TRY(require(out, "out"));
    NIB_TRY(usable_here(model, "model"));
    SessionRequest request;
    NIB_TRY(request.read(options, model->model->defaults().sampler));
    auto session = std::make_unique<nib_session>();
    session->host = model->host;
    session->cancel = std::move(request.cancel);
    session->progress = request.progress;
    NIB_ASSIGN(session->session, Session::create(model->model, request.options));
    *out = session.release();
    return {};
  });
}

nib_status nib_session_append(nib_session* session, const nib_token* tokens, size_t count, nib_error* error) {
  return guard(error, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    NIB_ASSIGN(const std::span<const Token> given, read_tokens(tokens, count));
    const Stopwatch watch;
    NIB_TRY(session->session->append(given, session->cancel.get(), session->progress.sink()));
    session->prompt_tokens += count;
    session->prefill_seconds += watch.seconds();
    return {};
  });
}

nib_status nib_session_resume(nib_session* session, const nib_token* tokens, size_t count,
                              size_t* out_computed, nib_error* error) {
  return guard(error, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    NIB_ASSIGN(const std::span<const Token> given, read_tokens(tokens, count));
    const Stopwatch watch;
    NIB_ASSIGN(const std::uint64_t computed,
               session->session->resume(given, session->cancel.get(), session->progress.sink()));
    session->prompt_tokens += computed;
    session->prefill_seconds += watch.seconds();
    if (out_computed) *out_computed = computed;
    return {};
  });
}

nib_status nib_session_step(nib_session* session, nib_token* out, nib_error* error) {
  return guard(error, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    NIB_TRY(require(out, "out"));
    NIB_ASSIGN(const StepResult step, session->session->step(session->cancel.get()));
    NIB_TRY(step.status);
    *out = step.id;
    return step.end ? Status(Code::end, "the token ends the answer") : Status();
  });
}

nib_status nib_session_generate(nib_session* session, const nib_generate_options* options, nib_usage* out,
                                nib_error* error) {
  return guard(error, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    nib_generate_options given;
    NIB_TRY(read_struct(options, "nib_generate_options", given));
    NIB_TRY(check_flags(given.flags, 0, "nib_generate_options"));
    NIB_TRY(check_reserved(given.reserved, "nib_generate_options"));
    if (out) NIB_TRY(check_output(out, "nib_usage"));

    TokenCall to{given.on_token, given.on_token_user, session};
    std::shared_ptr<Cancel> cancel = session->cancel;  // kept for the call, whoever frees its handle
    if (given.cancel) cancel = given.cancel->shared;
    GenerateOptions wanted;
    wanted.max_tokens = given.max_tokens;
    wanted.on_token = given.on_token ? TokenCall::on_token : nullptr;
    wanted.user = &to;
    wanted.cancel = cancel.get();

    const Stopwatch watch;
    const std::uint64_t before = session->session->position();
    const Result<GenerateResult> result = session->session->generate(wanted);
    if (!result.ok() && result.status().code() != Code::stopped) return result.status();
    const Finish finish = result.ok() ? result.value().finish : Finish::cancelled;
    nib_usage usage = NIB_USAGE_INIT;
    usage.finish = finish_code(finish);
    usage.prompt_tokens = std::exchange(session->prompt_tokens, 0);
    usage.tokens = session->session->position() - before;
    usage.prefill_seconds = std::exchange(session->prefill_seconds, 0);
    usage.decode_seconds = watch.seconds();
    if (out) write_struct(usage, out);
    return finish == Finish::cancelled ? stopped() : Status();
  });
}

nib_status nib_session_rewind(nib_session* session, size_t position, nib_error* error) {
  return guard(error, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    return session->session->rewind(position);
  });
}

nib_status nib_session_get_logits(const nib_session* session, const float** out, size_t* out_count) {
  return guard(nullptr, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    NIB_TRY(require(out, "out"));
    NIB_TRY(require(out_count, "out_count"));
    const std::span<const float> logits = session->session->logits();
    if (logits.empty()) return {Code::state, "no logits have been computed"};
    *out = logits.data();
    *out_count = logits.size();
    return {};
  });
}

nib_status nib_session_get_tokens(const nib_session* session, const nib_token** out, size_t* out_count) {
  return guard(nullptr, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    NIB_TRY(require(out, "out"));
    NIB_TRY(require(out_count, "out_count"));
    const std::span<const Token> tokens = session->session->tokens();
    *out = tokens.data();
    *out_count = tokens.size();
    return {};
  });
}

nib_status nib_session_get_position(const nib_session* session, size_t* out, size_t* out_context) {
  return guard(nullptr, [&]() -> Status {
    Claim claim;
    NIB_TRY(claim.take(session));
    if (out) *out = session->session->position();
    if (out_context) *out_context = session->session->context();
    return {};
  });
}

void nib_session_free(nib_session* session) {
  if (!session || !session->host->here()) return;
  // At work: the Claim of that call sees the mark and frees.
  if (session->use.exchange(Use::to_be_freed) == Use::idle) delete session;
}

nib_status nib_batch_step(nib_session* const* sessions, size_t count, nib_step_result* results,
                          size_t result_size, nib_error* error) {
  return guard(error, [&]() -> Status {
    if (count == 0) return {};
    NIB_TRY(require(sessions, "sessions"));
    NIB_TRY(require(results, "results"));
    NIB_TRY(check_size<nib_step_result>(result_size, "nib_step_result (result_size)"));
    const std::span<nib_session* const> all(sessions, count);
    NIB_ASSIGN(const std::vector<Claim> claims, claim_all(all));

    // results of those that go first, then of those that were stopped: all made before the step is taken.
    std::vector<nib::Session*> going;
    std::vector<std::size_t> order, left_out;
    for (std::size_t i = 0; i < count; ++i) {
      const bool stop = all[i]->cancel && all[i]->cancel->triggered();
      (stop ? left_out : order).push_back(i);
      if (!stop) going.push_back(all[i]->session.get());
    }
    order.insert(order.end(), left_out.begin(), left_out.end());
    std::vector<StepResult> steps(count);
    for (std::size_t k = going.size(); k < count; ++k) steps[k].status = stopped();
    if (!going.empty()) NIB_TRY(batch_step(going, std::span(steps).first(going.size()), nullptr));

    for (std::size_t k = 0; k < count; ++k)
      write_element(write_result(*all[order[k]], steps[k]),
                    reinterpret_cast<char*>(results) + order[k] * result_size, result_size);
    return {};
  });
}

}  // extern "C"
