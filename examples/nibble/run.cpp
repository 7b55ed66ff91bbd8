// nibble run: one text in, its continuation out.
#include "exit_code.hpp"
#include "input.hpp"
#include "interrupt.hpp"
#include "opening.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/session.hpp>

#include <chrono>

namespace nib::program {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMostPromptBytes = std::uint64_t{64} << 20;
constexpr const char* kOpening = "Once upon a time";  // what the shipped model likes best

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What is to be continued; empty when nothing was given.
Result<std::string> read_prompt(const RunFlags& flags, const Cancel& cancel) {
  if ((flags.prompt && *flags.prompt == "-") || (flags.prompt_file && *flags.prompt_file == "-"))
    return read_input("-", kMostPromptBytes, &cancel);
  if (!flags.prompt_file) return flags.prompt.value_or("");
  return read_input(*flags.prompt_file, kMostPromptBytes, &cancel);
}

// Receives the text as it is made.
struct Output {
  Status status{};
  bool at_line_start = true;

  void write(std::string_view text) {
    if (text.empty() || !status.ok()) return;
    status = put(text);
    at_line_start = text.back() == '\n';
  }
  static int on_token(void* user, const StepResult& step) {
    auto& output = *static_cast<Output*>(user);
    output.write(step.text);
    return output.status.ok() ? 0 : 1;
  }
};

Status encode_prompt(const Model& model, const RunFlags& flags, const std::string& prompt,
                     std::vector<Token>& tokens) {
  NIB_TRY(
      model.tokenizer()->encode(prompt, flags.specials ? Specials::recognised : Specials::ordinary, tokens));
  if (!tokens.empty()) return {};
  if (!model.defaults().bos)
    return Status(Code::argument, "there is nothing to continue: give a text with -p TEXT, -p - or -f FILE");
  tokens.push_back(*model.defaults().bos);
  return {};
}

// Prefill and decode, timed. Whatever happens, `timing` says what was done.
Status write_text(const RunFlags& flags, Session& session, std::span<const Token> prompt,
                  const Cancel* cancel, Output& output, Timing& timing, Finish& finish) {
  auto start = Clock::now();
  {
    ProgressLine progress;
    NIB_TRY(session.append(prompt, cancel, progress.sink()));
  }
  timing.prompt_tokens = timing.computed_tokens = prompt.size();
  timing.prompt_seconds = seconds_since(start);
  finish = Finish::length;
  if (flags.most_tokens == 0) return {};
  start = Clock::now();
  const GenerateOptions options{
      .max_tokens = static_cast<std::uint32_t>(std::max<std::int64_t>(flags.most_tokens, 0)),
      .on_token = Output::on_token,
      .user = &output,
      .cancel = cancel};
  NIB_ASSIGN(const GenerateResult result, session.generate(options));
  timing.answer_tokens = result.tokens;
  timing.answer_seconds = seconds_since(start);
  finish = result.finish;
  return output.status;
}

}  // namespace

int run(const RunFlags& flags) {
  if (Status status = validate(sampler_options({}, flags.sampling)); !status.ok()) return fail(status);
  const Interrupts interrupts;
  const Cancel* cancel = interrupts.cancel();
  auto given = read_prompt(flags, *cancel);
  if (!given.ok()) return fail(given.status());

  std::string advice;
  auto opened = open_for(flags.model, cancel, advice);
  if (!opened.ok()) return fail(opened.status(), advice);
  const std::shared_ptr<Model>& model = opened->model;
  const bool nothing_given = !flags.prompt && !flags.prompt_file;
  const std::string prompt = nothing_given && opened->shipped ? kOpening : given.take();

  std::vector<Token> tokens;
  if (Status status = encode_prompt(*model, flags, prompt, tokens); !status.ok()) return fail(status);
  const SamplerOptions sampler = sampler_options(model->defaults().sampler, flags.sampling);
  auto session = Session::create(model, {.context = flags.model.context,
                                         .sampler = sampler,
                                         .ignore_model_stops = flags.ignore_stops,
                                         .stop_texts = flags.stop_texts,
                                         .show_specials = flags.specials});
  if (!session.ok()) return fail(session.status());

  // Where one person sees both streams, the text begins with what it continues.
  const Style style = style_for(kStderr);
  const bool on_screen = is_terminal(kStdout) && is_terminal(kStderr);
  if (on_screen) say(concat(style.dim, prompt, style.plain));
  Output output{.at_line_start = !on_screen || prompt.ends_with('\n')};
  Timing timing;
  Finish finish = Finish::length;
  const Status status = write_text(flags, **session, tokens, cancel, output, timing, finish);
  if (is_terminal(kStdout) && !output.at_line_start) output.write("\n");

  if (!status.ok() && status.code() != Code::stopped)
    return fail(status, status.code() == Code::context_full ? "A longer context is set with -c N." : "");
  if (finish == Finish::context_full)
    say(concat("nibble: the context of ", (*session)->context(), " tokens is full; -c N makes it longer\n"));
  if (flags.statistics || is_terminal(kStderr)) {
    std::string line = timing_text(timing, roughly_measured_bandwidth(*model), model->info().decode_bytes);
    if (!sampler.greedy) line += concat(", seed ", sampler.seed);
    say(concat(style.dim, line, style.plain, "\n"));
  }
  return interrupts.presses() > 0 ? kInterrupted : kSuccess;
}

}  // namespace nib::program
