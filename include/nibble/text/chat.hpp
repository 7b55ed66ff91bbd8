// Room text: ChatFormat: how a model wants a conversation written, and how what it then says is read. Two
// kinds: harmony, and the chat template that a model ships.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/harmony.hpp>
#include <nibble/text/template.hpp>
#include <nibble/text/tokenizer.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {

// Takes the sampled tokens of one answer and yields its messages, and the text of the one at hand as it
// comes. Reasoning is a message of the channel "analysis", what is meant for the user one of "final" or of
// none. One thread; the format that made it outlives it.
class AnswerParser {
 public:
  virtual ~AnswerParser() = default;

  // `end`: the token ended the generation. Errors: format, when the token cannot stand here; the messages
  // before it stay.
  virtual Status push(Token id, bool end) = 0;
  // The answer is over, also when it was cut off: what it says so far is complete. Errors: format.
  virtual Status finish() = 0;

  // current() has what there is of a message.
  virtual bool in_content() const = 0;
  virtual const Message& current() const = 0;
  // The whole characters that the last call added: to current(), or to messages().back() when it completed a
  // message.
  virtual std::string_view delta() const = 0;
  // Messages that are complete.
  virtual const std::vector<Message>& messages() const = 0;
};

// Immutable; any thread. The tokenizer is borrowed and outlives it.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;

  // The conversation up to where the assistant's next answer begins. Special tokens come from the format
  // alone: their spellings in a message stay text. Errors: argument (the template refuses the conversation,
  // in its own words), format (the template fails, by line), memory.
  virtual Result<std::vector<Token>> render(std::span<const Message> messages) const = 0;

  // The message that gives the model instructions; it stands before the others. Errors: unsupported.
  virtual Result<Message> instructions(std::string text) const = 0;

  // For the answer to what was rendered.
  virtual std::unique_ptr<AnswerParser> parser() const = 0;

  // Tokens that end an answer, beside those that end any text of the model.
  const std::vector<Token>& stop_ids() const { return stop_ids_; }

 protected:
  std::vector<Token> stop_ids_;
};

// What the model's files and the caller say about its conversations. All is copied.
struct ChatOptions {
  std::string_view chat_template{};                  // text of the Jinja template; empty: none
  std::string_view template_name = "chat_template";  // in messages
  bool only_template = false;                        // also where the vocabulary is that of harmony
  // By the names that templates have for them: bos_token, eos_token, ...
  std::span<const std::pair<std::string, std::string>> special_tokens{};
  std::string_view reasoning = "medium";  // how much a model that was trained for it thinks
  std::optional<TemplateDate> date{};     // today; none: templates that ask for it may fail
};

// Harmony, where the vocabulary has its tokens and the template (if any) writes it; else the template. With
// a template, the token that it puts behind an assistant's message is a stop id, and what the model says
// between <think> and </think> is reasoning, where template or vocabulary know these.
// Errors: unsupported (neither; the template has a construct that nibble does not know), format (the template
// cannot be read), memory.
Result<std::unique_ptr<ChatFormat>> make_chat_format(const Tokenizer& tokenizer, const ChatOptions& options);

}  // namespace nib::inline v0
