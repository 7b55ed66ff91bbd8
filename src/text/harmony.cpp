#include "harmony_schema.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/text/harmony.hpp>

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kConstrain = "<|constrain|>";

void add_section(std::string& text, std::string_view section) {
  text += concat(text.empty() ? "" : "\n\n", section);
}

}  // namespace

std::string_view role_name(Role role) {
  constexpr std::string_view kNames[] = {"system", "developer", "user", "assistant", "tool"};
  return kNames[static_cast<int>(role)];
}

Result<Message> system_message(const SystemContent& content, bool has_functions) {
  std::string top = content.identity;
  const auto add_line = [&](std::string_view label, const std::string& value) {
    if (!value.empty()) top += concat(top.empty() ? "" : "\n", label, value);
  };
  add_line("Knowledge cutoff: ", content.knowledge_cutoff);
  add_line("Current date: ", content.current_date);
  Message message{.role = Role::system};
  std::string& text = message.content;
  if (!top.empty()) add_section(text, top);
  if (!content.reasoning.empty()) add_section(text, concat("Reasoning: ", content.reasoning));
  if (!content.tools.empty()) {
    NIB_ASSIGN(const std::string tools, tools_section(content.tools));
    add_section(text, tools);
  }
  if (!content.channels.empty()) {
    std::string line = "# Valid channels: ";
    for (std::size_t i = 0; i < content.channels.size(); ++i)
      line += concat(i ? ", " : "", content.channels[i]);
    line += content.channel_required ? ". Channel must be included for every message." : ".";
    if (has_functions) line += "\nCalls to these tools must go to the commentary channel: 'functions'.";
    add_section(text, line);
  }
  return message;
}

Result<Message> developer_message(const DeveloperContent& content) {
  Message message{.role = Role::developer};
  if (!content.instructions.empty()) {
    add_section(message.content, "# Instructions");
    add_section(message.content, content.instructions);
  }
  if (!content.functions.empty()) {
    NIB_ASSIGN(const std::string tools, tools_section({{"functions", "", content.functions}}));
    add_section(message.content, tools);
  }
  if (!content.response_formats.empty()) add_section(message.content, "# Response Formats");
  for (const ResponseFormat& format : content.response_formats) {
    add_section(message.content, concat("## ", format.name));
    const std::string_view slashes = format.description.empty() ? "" : "// ";
    add_section(message.content,
                concat(slashes, format.description, slashes.empty() ? "" : "\n", write_json(format.schema)));
  }
  return message;
}

Result<std::vector<Message>> opening_messages(const SystemContent& system,
                                              const DeveloperContent& developer) {
  std::vector<Message> messages;
  NIB_ASSIGN(messages.emplace_back(), system_message(system, !developer.functions.empty()));
  NIB_ASSIGN(Message second, developer_message(developer));
  if (!second.content.empty()) messages.push_back(std::move(second));
  return messages;
}

// ---- Rendering.

Result<Harmony> Harmony::make(const Tokenizer& tokenizer) {
  Harmony harmony(tokenizer);
  const std::pair<std::string_view, Token*> needed[] = {
      {"<|start|>", &harmony.start_},     {"<|end|>", &harmony.end_},
      {"<|message|>", &harmony.message_}, {"<|channel|>", &harmony.channel_},
      {kConstrain, &harmony.constrain_},  {"<|return|>", &harmony.return_},
      {"<|call|>", &harmony.call_}};
  for (const auto& [spelling, id] : needed) {
    const auto found = tokenizer.find_special(spelling);
    if (!found)
      return Status(Code::unsupported, concat("harmony: the vocabulary has no special token ", spelling));
    *id = *found;
  }
  harmony.stop_ids_ = {harmony.return_, harmony.call_};
  if (const auto end = tokenizer.find_special("<|endoftext|>")) harmony.stop_ids_.push_back(*end);
  return harmony;
}

Status Harmony::render_message(const Message& message, std::vector<Token>& out) const {
  const auto text = [&](std::string_view piece) {
    return tokenizer_->encode(piece, Specials::ordinary, out);
  };
  out.push_back(start_);
  if (message.role == Role::tool) {
    if (message.name.empty()) return Status(Code::argument, "harmony: a tool message needs the tool's name");
    NIB_TRY(text(message.name));
  } else {
    NIB_TRY(text(role_name(message.role)));
    if (!message.name.empty()) NIB_TRY(text(":" + message.name));
  }
  if (!message.recipient.empty() && message.recipient != "all") NIB_TRY(text(" to=" + message.recipient));
  if (!message.channel.empty()) {
    out.push_back(channel_);
    NIB_TRY(text(message.channel));
  }
  if (message.content_type.starts_with(kConstrain)) {
    NIB_TRY(text(" "));
    out.push_back(constrain_);
    NIB_TRY(text(std::string_view(message.content_type).substr(kConstrain.size())));
  } else if (!message.content_type.empty()) {
    NIB_TRY(text(" " + message.content_type));
  }
  out.push_back(message_);
  NIB_TRY(text(message.content));
  out.push_back(message.role == Role::assistant && !message.recipient.empty() ? call_ : end_);
  return {};
}

Result<std::vector<Token>> Harmony::render(std::span<const Message> messages,
                                           const RenderOptions& options) const {
  // Once the last word of the assistant is final, the reasoning before the first final word has served its
  // turn. (What stands after that first one is kept: the reference does so too.)
  const auto last = std::find_if(messages.rbegin(), messages.rend(),
                                 [](const Message& m) { return m.role == Role::assistant; });
  const auto first_final =
      std::find_if(messages.begin(), messages.end(), [](const Message& m) { return m.channel == "final"; });
  const bool drop = options.drop_analysis && last != messages.rend() && last->channel == "final";
  std::vector<Token> out;
  for (auto message = messages.begin(); message != messages.end(); ++message)
    if (!(drop && message < first_final && message->channel == "analysis"))
      NIB_TRY(render_message(*message, out));
  if (options.next) {
    out.push_back(start_);
    NIB_TRY(tokenizer_->encode(role_name(*options.next), Specials::ordinary, out));
  }
  return out;
}

}  // namespace nib::inline v0
