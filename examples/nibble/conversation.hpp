// What was said so far, turn by turn, and what of it the model gets to see.
#pragma once

#include <nibble/base/status.hpp>
#include <nibble/text/chat.hpp>

#include <optional>
#include <string>
#include <vector>

namespace nib::program {

class Conversation {
 public:
  // The format is borrowed.
  explicit Conversation(const ChatFormat& format) : format_(&format) {}

  // Instructions from now on, never dropped; none for empty text.
  Status instruct(const std::string& instructions);

  // Begins a turn.
  void ask(std::string text);
  // Ends the turn with what the model said. When it said nothing the turn never was.
  void answer(std::vector<Message> messages);
  // The same turn without its question: it could not be put to the model.
  void withdraw() { turns_.pop_back(); }

  std::size_t turns() const { return turns_.size(); }
  void drop_oldest() { turns_.erase(turns_.begin()); }
  void reset() { turns_.clear(); }

  // The prompt for the next answer. The reasoning of turns that came to a final answer is left out, as
  // models' own templates do.
  Result<std::vector<Token>> render() const;

 private:
  struct Turn {
    Message question;
    std::vector<Message> answer;
  };
  const ChatFormat* format_;
  std::optional<Message> instructions_;
  std::vector<Turn> turns_;
};

// Whether a message is meant for the user's eyes: the final channel, or no channel at all.
bool is_final(const Message& message);

}  // namespace nib::program
