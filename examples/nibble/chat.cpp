// nibble chat: a conversation with a person or with a script, in the format that the model was made for.
#include "answer_view.hpp"
#include "conversation.hpp"
#include "exit_code.hpp"
#include "interrupt.hpp"
#include "line_editor.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "paths.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>
#include <nibble/runtime/session.hpp>
#include <nibble/text/chat.hpp>

#include <algorithm>
#include <chrono>
#include <ctime>

namespace nib::program {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kHelp =
    "/help         this list\n"
    "/reset        forget the conversation\n"
    "/system TEXT  instructions for the model, from the next message on; without TEXT: none\n"
    "/stats        tokens and rates of the last answer\n"
    "/quit         leave; so does Ctrl-D\n"
    "A line that ends with \\ goes on in the next. Ctrl-C stops an answer; twice, it leaves.\n";

Result<std::string> read_template(const std::string& path) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 20;
  NIB_ASSIGN(const std::unique_ptr<File> file, disk_file_system().open(path));
  return read_all(*file, kMostBytes);
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

TemplateDate today() {
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  return {local.tm_year + 1900, local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec};
}

// One answer being made: feeds tokens to the parser and the parser's text to the screen.
class Answer {
 public:
  Answer(const ChatFormat& format, AnswerView& view) : parser_(format.parser()), view_(view) {}

  static int on_token(void* user, const StepResult& step) {
    auto& answer = *static_cast<Answer*>(user);
    return answer.take(step.id, step.end) ? 0 : 1;
  }

  // What was said, the message at hand included.
  std::vector<Message> messages() {
    std::vector<Message> all = parser_->messages();
    if (cut_off_) all.push_back(*cut_off_);
    return all;
  }
  void finish() {
    if (!format_.ok() || over_) return;
    // An answer that was stopped inside a header has said nothing in that message.
    if (parser_->finish().ok()) show_new();
  }
  const Status& output() const { return output_; }
  // Not ok when the model said something that the chat format does not allow.
  const Status& format() const { return format_; }

 private:
  bool take(Token id, bool end) {
    const bool was_in_content = parser_->in_content();
    const Message before = was_in_content ? parser_->current() : Message();
    format_ = parser_->push(id, end);
    if (!format_.ok()) {
      if (was_in_content) cut_off_ = before;
      return false;
    }
    show_new();
    // The final answer is the end of a turn, also when the model forgets to say so.
    over_ = complete_ > 0 && is_final(parser_->messages().back());
    return output_.ok() && !over_;
  }

  void show_new() {
    if (!output_.ok()) return;
    const std::size_t complete = parser_->messages().size();
    if (complete > complete_) {
      output_ = view_.show(parser_->messages().back(), parser_->delta());
      if (output_.ok()) output_ = view_.message_done();
      complete_ = complete;
    } else if (parser_->in_content()) {
      output_ = view_.show(parser_->current(), parser_->delta());
    }
  }

  std::unique_ptr<AnswerParser> parser_;
  AnswerView& view_;
  std::size_t complete_ = 0;
  std::optional<Message> cut_off_;
  bool over_ = false;
  Status output_, format_;
};

class Chat {
 public:
  Chat(const ChatFlags& flags, Interrupts& interrupts, const Opened& opened, const ChatFormat& format,
       Conversation& conversation, Session& session)
      : flags_(flags),
        interrupts_(interrupts),
        opened_(opened),
        format_(format),
        conversation_(conversation),
        session_(session),
        interactive_(is_terminal(kStdin)) {}

  int loop();

 private:
  enum class Next { go_on, leave };

  void greet() const;
  Next obey(const std::string& line);
  Status respond(std::string question);
  Status prepare(std::vector<Token>& prompt);
  Status generate(std::vector<Token> prompt, Answer& answer);
  // Leaves out the oldest turn and says so; false when there is only the one at hand.
  bool make_room();
  void note(std::string_view text) const;
  void show_statistics();

  const ChatFlags& flags_;
  Interrupts& interrupts_;
  const Opened& opened_;
  const ChatFormat& format_;
  Conversation& conversation_;
  Session& session_;
  bool interactive_;
  Timing timing_;
  double read_bytes_per_second_ = 0;
};

void Chat::note(std::string_view text) const {
  const Style style = style_for(kStderr);
  say(interactive_ ? concat(style.dim, text, style.plain, "\n") : concat("nibble: ", text, "\n"));
}

void Chat::greet() const {
  const Style style = style_for(kStderr);
  const ModelInfo& info = opened_.model->info();
  std::string name = info.path;
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  name.erase(0, name.rfind('/') + 1);
  say(concat(style.bold, name, style.plain, style.dim, "  ", info.architecture, ", ",
             count_text(info.parameters), " parameters, context ", session_.context(),
             "; /help lists the commands\n", style.plain));
  if (opened_.shipped)
    say(concat(style.dim,
               "It tells short stories and knows nothing else. Try: Tell me a story about a dog.\n",
               style.plain));
}

bool Chat::make_room() {
  if (conversation_.turns() <= 1) return false;
  conversation_.drop_oldest();
  note("the context is full: the oldest turn was dropped");
  return true;
}

// The prompt for the turn at hand, with room left for an answer.
Status Chat::prepare(std::vector<Token>& prompt) {
  constexpr std::uint32_t kAnswerShare =
      4;  // a quarter of the context is kept free while there is something to drop
  const std::size_t context = session_.context();
  for (;;) {
    NIB_ASSIGN(prompt, conversation_.render());
    if (prompt.size() + context / kAnswerShare <= context || !make_room()) break;
  }
  if (prompt.size() < context) return {};
  return Status(Code::context_full, concat("the message is too long: with what stands before it, it makes ",
                                           prompt.size(), " tokens, and the context has ", context));
}

// Generates until the answer is over, also beyond the end of the context while there are turns to drop.
Status Chat::generate(std::vector<Token> prompt, Answer& answer) {
  timing_ = {.prompt_tokens = prompt.size()};
  std::vector<Token> said;
  for (;;) {
    auto start = Clock::now();
    {
      ProgressLine progress;
      std::vector<Token> all = prompt;
      all.insert(all.end(), said.begin(), said.end());
      NIB_ASSIGN(const std::uint64_t computed, session_.resume(all, interrupts_.cancel(), progress.sink()));
      timing_.computed_tokens += computed;
      timing_.prompt_seconds += seconds_since(start);
    }
    GenerateOptions options{.on_token = Answer::on_token, .user = &answer, .cancel = interrupts_.cancel()};
    if (flags_.most_tokens >= 0) {
      const auto most = static_cast<std::uint64_t>(flags_.most_tokens);
      if (timing_.answer_tokens >= most) return {};
      options.max_tokens = static_cast<std::uint32_t>(most - timing_.answer_tokens);
    }
    start = Clock::now();
    NIB_ASSIGN(const GenerateResult result, session_.generate(options));
    timing_.answer_tokens += result.tokens;
    timing_.answer_seconds += seconds_since(start);
    if (result.finish != Finish::context_full) return {};
    const std::span<const Token> held = session_.tokens();
    said.assign(held.begin() + static_cast<std::ptrdiff_t>(prompt.size()), held.end());
    if (!make_room()) {
      note(concat("the context of ", session_.context(),
                  " tokens is full: the answer ends here; -c N makes it longer"));
      return {};
    }
    NIB_ASSIGN(prompt, conversation_.render());
  }
}

Status Chat::respond(std::string question) {
  conversation_.ask(std::move(question));
  std::vector<Token> prompt;
  if (Status status = prepare(prompt); !status.ok()) {
    conversation_.withdraw();
    return status;
  }
  AnswerView view(interactive_);
  Answer answer(format_, view);
  const Status status = generate(std::move(prompt), answer);
  answer.finish();
  const Status shown = view.done();
  conversation_.answer(answer.messages());
  if (!answer.output().ok()) return answer.output();
  if (!shown.ok()) return shown;
  if (!answer.format().ok()) note(concat("the model left the chat format: ", answer.format().message()));
  return status;
}

void Chat::show_statistics() {
  if (read_bytes_per_second_ == 0) read_bytes_per_second_ = roughly_measured_bandwidth(*opened_.model);
  note(concat(timing_text(timing_, read_bytes_per_second_, opened_.model->info().decode_bytes), ", context ",
              session_.position(), " of ", session_.context()));
}

Chat::Next Chat::obey(const std::string& line) {
  const std::string word = line.substr(0, line.find(' '));
  const std::size_t rest = std::min(line.find_first_not_of(' ', word.size()), line.size());
  if (word == "/quit" || word == "/exit") return Next::leave;
  if (word == "/help") {
    say(kHelp);
  } else if (word == "/reset") {
    conversation_.reset();
    note("the conversation is forgotten");
  } else if (word == "/stats") {
    show_statistics();
  } else if (word == "/system") {
    const Status status = conversation_.instruct(line.substr(rest));
    note(!status.ok()          ? status.message()
         : rest == line.size() ? "no instructions from here on"
                               : "it will be told");
  } else {
    note(concat(word, " is no command; /help lists them"));
  }
  return Next::go_on;
}

int Chat::loop() {
  if (interactive_) greet();
  const auto reader = make_line_reader(interactive_ ? history_path() : "", interrupts_);
  bool warned = false;  // the last thing that happened was a Ctrl-C
  for (;;) {
    std::string line;
    const LineReader::Outcome outcome = read_message(*reader, line);
    if (outcome == LineReader::Outcome::interrupted) {
      interrupts_.forget();
      if (!interactive_) return kInterrupted;
      say("\n");
      if (warned && line.empty()) return kInterrupted;
      if (line.empty()) note("Ctrl-C again leaves");
      warned = true;
      continue;
    }
    warned = false;
    if (outcome == LineReader::Outcome::end) {
      if (interactive_) say("\n");
      return kSuccess;
    }
    if (line.find_first_not_of(" \t\n") == std::string::npos) continue;
    if (interactive_ && line.starts_with('/')) {
      if (obey(line) == Next::leave) return kSuccess;
      interrupts_.forget();
      continue;
    }
    interrupts_.forget();
    const Status status = respond(std::move(line));
    const int presses = interrupts_.presses();
    if (presses > 1 || (presses > 0 && !interactive_)) return kInterrupted;
    warned = presses > 0;
    interrupts_.forget();
    if (!status.ok() && status.code() != Code::stopped) {
      const int code = fail(status);
      if (!interactive_ || status.code() != Code::context_full) return code;
      continue;
    }
    if (flags_.statistics) show_statistics();
    if (interactive_) say("\n");
  }
}

}  // namespace

int chat(const ChatFlags& flags) {
  if (Status status = validate(sampler_options({}, flags.sampling)); !status.ok()) return fail(status);
  Interrupts interrupts;
  std::string advice;
  auto opened = open_for(flags.model, interrupts.cancel(), advice);
  if (!opened.ok()) return fail(opened.status(), advice);
  const std::shared_ptr<Model>& model = opened->model;
  std::string source = model->defaults().chat_template, name = concat(model->info().path, ": chat_template");
  if (!flags.chat_template.empty()) {
    auto text = read_template(flags.chat_template);
    if (!text.ok()) return fail(text.status());
    source = text.take();
    name = flags.chat_template;
  }
  const auto format =
      make_chat_format(*model->tokenizer(), {.chat_template = source,
                                             .template_name = name,
                                             .only_template = !flags.chat_template.empty(),
                                             .special_tokens = model->defaults().special_tokens,
                                             .reasoning = flags.reasoning,
                                             .date = today()});
  if (!format.ok())
    return fail(format.status(),
                "--chat-template FILE gives one of your own; nibble run continues plain text.");

  Conversation conversation(**format);
  if (Status status = conversation.instruct(flags.instructions); !status.ok()) return fail(status);
  auto session =
      Session::create(model, {.context = flags.model.context,
                              .sampler = sampler_options(model->defaults().sampler, flags.sampling),
                              .stop_ids = (*format)->stop_ids()});
  if (!session.ok()) return fail(session.status());
  return Chat(flags, interrupts, *opened, **format, conversation, **session).loop();
}

}  // namespace nib::program
