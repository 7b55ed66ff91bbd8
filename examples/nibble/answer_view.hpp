// An answer as it comes, wrapped where it goes to a terminal: the final channel plain on stdout; everything
// else, such as the model's reasoning, only where a person is looking, dimmed.
#pragma once

#include "word_wrap.hpp"
#include <nibble/base/status.hpp>
#include <nibble/text/harmony.hpp>

#include <string>
#include <string_view>

namespace nib::program {

class AnswerView {
 public:
  // `interactive`: a person asked, and is shown the reasoning too.
  explicit AnswerView(bool interactive);

  // More text of a message.
  Status show(const Message& message, std::string_view text);
  // The message is complete.
  Status message_done();
  // The answer is over; ends the line, also of an answer that was cut off.
  Status done();

 private:
  enum class Kind { nothing, aside, final };
  Status begin(const Message& message, Kind kind);
  Status write(std::string_view text);

  bool interactive_;
  int aside_;  // where reasoning goes
  Kind open_ = Kind::nothing;
  int descriptor_ = 0;  // of the message at hand
  WordWrap wrap_{0};
  bool at_line_start_ = true;
};

}  // namespace nib::program
