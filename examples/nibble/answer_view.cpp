#include "answer_view.hpp"

#include "conversation.hpp"
#include "terminal.hpp"
#include <nibble/base/concat.hpp>

namespace nib::program {

AnswerView::AnswerView(bool interactive)
    : interactive_(interactive), aside_(is_terminal(kStdout) ? kStdout : kStderr) {}

int AnswerView::descriptor(Kind kind) const { return kind == Kind::final ? kStdout : aside_; }

Status AnswerView::write(int descriptor, std::string_view text) {
  if (text.empty()) return {};
  at_line_start_ = text.back() == '\n';
  return write_all(descriptor, text);
}

Status AnswerView::begin(const Message& message, Kind kind) {
  open_ = kind;
  if (kind == Kind::final) return {};
  const Style style = style_for(aside_);
  // Where nothing can be dimmed a word in front says what it is.
  return write(aside_, style.dim.empty() ? concat("(", message.channel, ") ") : std::string(style.dim));
}

Status AnswerView::show(const Message& message, std::string_view text) {
  const Kind kind = is_final(message) ? Kind::final : Kind::aside;
  if (kind == Kind::aside && !interactive_) return {};
  if (text.empty()) return {};
  if (open_ == Kind::nothing) NIB_TRY(begin(message, kind));
  return write(descriptor(kind), text);
}

Status AnswerView::message_done() {
  const Kind kind = std::exchange(open_, Kind::nothing);
  if (kind == Kind::nothing) return {};
  if (kind == Kind::aside) NIB_TRY(write_all(aside_, style_for(aside_).plain));
  if (!at_line_start_) NIB_TRY(write(descriptor(kind), "\n"));
  // A blank line sets reasoning apart from the answer.
  return kind == Kind::aside ? write(aside_, "\n") : Status();
}

Status AnswerView::done() { return message_done(); }

}  // namespace nib::program
