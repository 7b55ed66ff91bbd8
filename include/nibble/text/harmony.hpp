// Room text: harmony: the chat format of gpt-oss. Conversations to tokens, sampled tokens to messages.
//
//   <|start|> header <|message|> content <|end|>
//   header = role [ to=RECIPIENT] [<|channel|>CHANNEL] [ TYPE]
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
  std::string name{};          // of a tool: "functions.get_weather"; of others: what stands behind "user:"
  std::string recipient{};     // "functions.get_weather"; "all" and empty mean everybody
  std::string channel{};       // "analysis", "commentary", "final"
  std::string content_type{};  // "json", or "<|constrain|>json" for the special token and what follows
  std::string content{};
  friend bool operator==(const Message&, const Message&) = default;
};

// ---- What system and developer messages say.

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

// Empty fields are left out.
struct SystemContent {
  std::string identity = "You are ChatGPT, a large language model trained by OpenAI.";
  std::string knowledge_cutoff = "2024-06";
  std::string current_date{};          // "2025-06-28"
  std::string reasoning = "medium";    // low, medium, high
  std::vector<ToolNamespace> tools{};  // shown in the order of their names
  std::vector<std::string> channels = {"analysis", "commentary", "final"};
  bool channel_required = true;
};

// A form that an answer may be asked to take. Showing it to the model binds it to nothing: that is for a
// grammar.
struct ResponseFormat {
  std::string name;
  std::string description{};
  Json schema;
};

struct DeveloperContent {
  std::string instructions{};
  std::vector<FunctionTool> functions{};
  std::vector<ResponseFormat> response_formats{};
};

// `has_functions`: the conversation's developer message defines function tools, so the system message names
// the channel for calling them. Errors: unsupported when a schema is nested deeper than 64.
Result<Message> system_message(const SystemContent& content, bool has_functions = false);
Result<Message> developer_message(const DeveloperContent& content);

// Both, as a conversation begins; without the developer message when it says nothing. Errors: as above.
Result<std::vector<Message>> opening_messages(const SystemContent& system,
                                              const DeveloperContent& developer = {});

// ---- Rendering.

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

  // Errors: argument (a tool message without a name).
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

// ---- Parsing.

// Whether a message must have its <|message|>. A lenient parser takes a header that ends without one for
// what the model wanted to say, and a stream that ends inside a header for one that ends before it.
enum class Strictness : std::uint8_t { strict, lenient };

// Takes sampled tokens one by one and yields messages, and the text of the one at hand as it comes. Channel
// and recipient may stand in either order. One thread; the Harmony is borrowed and outlives it.
class HarmonyParser {
 public:
  // `role`: the prompt already ended with the beginning of a message of this role (the normal case when
  // sampling); none: the stream begins with <|start|>.
  explicit HarmonyParser(const Harmony& harmony, std::optional<Role> role = Role::assistant,
                         Strictness strictness = Strictness::strict);

  // Errors: format (a token that cannot stand here or is not in the vocabulary, a header that cannot be read
  // or is longer than 4 KiB). After an error every call gives it again, until reset().
  Status push(Token id);
  // The stream ended: a message in the middle of its content is complete. Errors: format when it ended inside
  // a header, also one of which only the role was given.
  Status finish();
  // As new, with the strictness it had.
  void reset(std::optional<Role> role = Role::assistant);

  // Content is being received: current() has its header and what there is of its content.
  bool in_content() const { return state_ == State::content; }
  const Message& current() const { return current_; }
  // The whole characters that the last push() or finish() added: to current(), or to messages().back() when
  // it completed a message (half a character at the end of one becomes U+FFFD).
  std::string_view delta() const { return delta_; }
  // Messages that are complete.
  const std::vector<Message>& messages() const { return messages_; }

 private:
  enum class State : std::uint8_t { expect_start, header, content, failed };
  Status begin_content();
  Status end_in_header();
  void complete();
  void expect_start();
  Status fail(std::string sentence);

  const Harmony* harmony_;
  StreamDecoder decoder_;
  Strictness strictness_;
  State state_ = State::expect_start;
  std::optional<Role> given_role_;
  Status failure_;
  std::string header_;
  std::string delta_;
  Message current_;
  std::vector<Message> messages_;
};

}  // namespace nib::inline v0
