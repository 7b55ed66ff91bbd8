#include "conversation.hpp"

#include <algorithm>

namespace nib::program {

bool is_final(const Message& message) { return message.channel == "final" || message.channel.empty(); }

Status Conversation::instruct(const std::string& instructions) {
  instructions_.reset();
  if (instructions.empty()) return {};
  NIB_ASSIGN(instructions_, format_->instructions(instructions));
  return {};
}

void Conversation::ask(std::string text) {
  turns_.push_back({{.role = Role::user, .content = std::move(text)}, {}});
}

void Conversation::answer(std::vector<Message> messages) {
  std::erase_if(messages, [](const Message& message) { return message.content.empty(); });
  if (messages.empty()) return withdraw();
  turns_.back().answer = std::move(messages);
}

Result<std::vector<Token>> Conversation::render() const {
  std::vector<Message> messages;
  if (instructions_) messages.push_back(*instructions_);
  for (const Turn& turn : turns_) {
    messages.push_back(turn.question);
    const bool answered = std::any_of(turn.answer.begin(), turn.answer.end(), is_final);
    for (const Message& message : turn.answer)
      if (!answered || message.channel != "analysis") messages.push_back(message);
  }
  return format_->render(messages);
}

}  // namespace nib::program
