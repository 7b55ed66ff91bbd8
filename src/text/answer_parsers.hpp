// Answers as harmony and as chat templates have them. Private to the room.
#pragma once

#include <nibble/text/chat.hpp>

#include <memory>
#include <string_view>

namespace nib::inline v0 {

std::unique_ptr<AnswerParser> harmony_answer(const Harmony& harmony);

// Where a model without channels thinks.
struct ThinkingMarks {
  static constexpr std::string_view kBegin = "<think>", kEnd = "</think>";
  bool known = false;  // else they are words like others
  bool begun = false;  // the prompt ended with kBegin
};

std::unique_ptr<AnswerParser> template_answer(const Tokenizer& tokenizer, ThinkingMarks thinking);

}  // namespace nib::inline v0
