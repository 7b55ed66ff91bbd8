// Room text: harmony: the chat format of gpt-oss. Conversations to tokens, sampled tokens to messages.
//
//   <|start|> header <|message|> content <|end|>          header = role [ to=RECIPIENT] [<|channel|>CHANNEL]
//   [ TYPE]
//
// Each piece of text is encoded by itself with special tokens disabled, so nothing that a user or a tool says
// can become a control token.
#pragma once

#include <nibble/base/json.hpp>
#include <nibble/base/status.hpp>
#include <nibble/text/tokenizer.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nib::inline v0 {

enum class Role : std::uint8_t { system, developer, user, assistant, tool };
std::string_view role_name(Role role);

// One message. Empty fields are absent.
struct Message {
  Role role = Role::user;
  std::string name{};  // of a tool (then it is the author: "functions.get_weather"), or behind "assistant:"
  std::string recipient{};     // "functions.get_weather"; "all" and empty mean everybody
  std::string channel{};       // "analysis", "commentary", "final"
  std::string content_type{};  // "json", or "<|constrain|>json" for the special token and what follows
  std::string content{};
  friend bool operator==(const Message&, const Message&) = default;
};

// ---- what system and developer messages say
// ----------------------------------------------------------------------

// A tool that the model may call, with the JSON schema of its arguments.
struct FunctionTool {
  std::string name;
  std::string description;
  std::optional<Json> parameters{};  // none: it takes no arguments
};

// Tools under one name: "functions", or a built-in one.
struct ToolNamespace {
  std::string name;
  std::string description{};
  std::vector<FunctionTool> tools{};
};

// The built-in tools of gpt-oss, as the model was trained to see them.
ToolNamespace browser_tools();
ToolNamespace python_tool();

struct SystemContent {
  std::string identity = "You are ChatGPT, a large language model trained by OpenAI.";
  std::string knowledge_cutoff = "2024-06";
  std::string current_date{};        // "2025-06-28"; empty: the line is left out
  std::string reasoning = "medium";  // low, medium, high
  std::vector<ToolNamespace> tools{};
  std::vector<std::string> channels = {"analysis", "commentary", "final"};
  bool channel_required = true;
};

struct DeveloperContent {
  std::string instructions{};
  std::vector<FunctionTool> functions{};
};

// `has_functions`: the conversation's developer message defines function tools. Errors: unsupported when a
// schema is nested deeper than 64.
Result<Message> system_message(const SystemContent& content, bool has_functions = false);
Result<Message> developer_message(const DeveloperContent& content);

// ---- rendering
// ---------------------------------------------------------------------------------------------------

struct RenderOptions {
  // Leaves out the reasoning (channel analysis) of earlier turns once an answer is final, as the model
  // expects.
  bool drop_analysis = true;
  // Ends with the beginning of this role's next message; none: the conversation alone.
  std::optional<Role> next = Role::assistant;
};

// The format over one tokenizer. Immutable; any thread. The tokenizer is borrowed and outlives it.
class Harmony {
 public:
  // Errors: unsupported, naming the special token that the vocabulary lacks.
  static Result<Harmony> make(const Tokenizer& tokenizer);

  // Errors: argument (a tool message without a name), memory.
  Result<std::vector<Token>> render(std::span<const Message> messages,
                                    const RenderOptions& options = {}) const;

  // Tokens that end an assistant's turn: return, call, and the end of text where there is one.
  const std::vector<Token>& stop_ids() const { return stop_ids_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  friend class HarmonyParser;
  explicit Harmony(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  Status render_message(const Message& message, std::vector<Token>& out) const;

  const Tokenizer* tokenizer_;
  Token start_ = 0, end_ = 0, message_ = 0, channel_ = 0, constrain_ = 0, return_ = 0, call_ = 0;
  std::vector<Token> stop_ids_;
};

// ---- parsing
// -----------------------------------------------------------------------------------------------------

// Takes sampled tokens one by one and yields messages, and the text of the one at hand as it comes. One
// thread.
class HarmonyParser {
 public:
  // `role`: the prompt already ended with the beginning of a message of this role (the normal case when
  // sampling); none: the stream begins with <|start|>.
  explicit HarmonyParser(const Harmony& harmony, std::optional<Role> role = Role::assistant);

  // Errors: format (a token that cannot stand here, a header that cannot be read or is longer than 4 KiB).
  // After an error only reset() helps.
  Status push(Token id);
  // The stream ended: a message in the middle of its content is complete. Errors: format when it ended inside
  // a header.
  Status finish();
  void reset(std::optional<Role> role = Role::assistant);

  // Content is being received; current() then has its header and delta() the whole characters the last push
  // added.
  bool in_content() const { return state_ == State::content; }
  const Message& current() const { return current_; }
  std::string_view delta() const { return delta_; }
  // Messages that are complete.
  const std::vector<Message>& messages() const { return messages_; }

 private:
  enum class State : std::uint8_t { expect_start, header, content, failed };
  Status parse_header();
  void complete();
  Status fail(std::string sentence);

  const Harmony* harmony_;
  StreamDecoder decoder_;
  State state_ = State::expect_start;
  std::optional<Role> given_role_;
  std::string header_;
  std::string delta_;
  Message current_;
  std::vector<Message> messages_;
};

}  // namespace nib::inline v0
