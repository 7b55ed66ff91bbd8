#include "answer_view.hpp"

#include "conversation.hpp"
#include "terminal.hpp"
#include <nibble/base/concat.hpp>

#include <utility>

namespace nib::program {

AnswerView::AnswerView(bool interactive)
    : interactive_(interactive), aside_(is_terminal(kStdout) ? kStdout : kStderr) {}

Status AnswerView::write(std::string_view text) {
  if (text.empty()) return {};
  at_line_start_ = text.back() == '\n';
  return write_all(descriptor_, text);
}

Status AnswerView::begin(const Message& message, Kind kind) {
  open_ = kind;
  descriptor_ = kind == Kind::final ? kStdout : aside_;
  wrap_ = WordWrap(is_terminal(descriptor_) ? columns(descriptor_) : 0);
  if (kind == Kind::final) return {};
  const Style style = style_for(descriptor_);
  // Where nothing can be dimmed a word in front says what it is.
  if (style.dim.empty()) return write(wrap_.push(concat("(", message.channel, ") ")));
  return write_all(descriptor_, style.dim);
}

Status AnswerView::show(const Message& message, std::string_view text) {
  const Kind kind = is_final(message) ? Kind::final : Kind::aside;
  if (text.empty() || (kind == Kind::aside && !interactive_)) return {};
  if (open_ == Kind::nothing) NIB_TRY(begin(message, kind));
  return write(wrap_.push(text));
}

Status AnswerView::message_done() {
  const Kind kind = std::exchange(open_, Kind::nothing);
  if (kind == Kind::nothing) return {};
  NIB_TRY(write(wrap_.finish()));
  if (kind == Kind::aside) NIB_TRY(write_all(descriptor_, style_for(descriptor_).plain));
  if (!at_line_start_) NIB_TRY(write("\n"));
  // A blank line sets reasoning apart from the answer.
  return kind == Kind::aside ? write("\n") : Status();
}

Status AnswerView::done() { return message_done(); }

}  // namespace nib::program
