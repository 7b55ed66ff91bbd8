#include "answer_parsers.hpp"

#include <algorithm>
#include <utility>

namespace nib::inline v0 {
namespace {

class HarmonyAnswer final : public AnswerParser {
 public:
  explicit HarmonyAnswer(const Harmony& harmony) : tokenizer_(harmony.tokenizer()), parser_(harmony) {}

  Status push(Token id, bool end) override {
    // An end of text ends the stream, not a message: the format has no such token.
    over_ = end && !ends_message(id);
    return over_ ? Status() : parser_.push(id);
  }
  Status finish() override {
    over_ = false;
    return parser_.finish();
  }
  bool in_content() const override { return parser_.in_content(); }
  const Message& current() const override { return parser_.current(); }
  std::string_view delta() const override { return over_ ? std::string_view() : parser_.delta(); }
  const std::vector<Message>& messages() const override { return parser_.messages(); }

 private:
  bool ends_message(Token id) const {
    const std::string_view spelling = tokenizer_.bytes(id);
    return spelling == "<|return|>" || spelling == "<|call|>" || spelling == "<|end|>";
  }

  const Tokenizer& tokenizer_;
  HarmonyParser parser_;
  bool over_ = false;  // the last token was not the parser's
};

constexpr std::string_view kSpace = " \t\r\n";

// One message, or two: the reasoning and the answer. White space before either is dropped, as templates do
// when they show the answer to the model again.
class TemplateAnswer final : public AnswerParser {
 public:
  TemplateAnswer(const Tokenizer& tokenizer, ThinkingMarks thinking)
      : tokenizer_(tokenizer), decoder_(tokenizer), marks_(thinking) {
    if (marks_.begun) begin("analysis");
  }

  Status push(Token id, bool end) override {
    delta_.clear();
    if (end) return {};
    const std::string_view bytes = tokenizer_.bytes(id);
    if (marks_.known && (bytes == ThinkingMarks::kBegin || bytes == ThinkingMarks::kEnd))
      decoder_.push_bytes(bytes, held_);  // also where these are special
    else
      decoder_.push(id, held_);
    read(false);
    return {};
  }
  Status finish() override {
    delta_.clear();
    decoder_.finish(held_);
    read(true);
    if (in_content_) complete();
    return {};
  }
  bool in_content() const override { return in_content_; }
  const Message& current() const override { return current_; }
  std::string_view delta() const override { return delta_; }
  const std::vector<Message>& messages() const override { return messages_; }

 private:
  bool thinks() const { return current_.channel == "analysis"; }

  void begin(std::string_view channel) {
    in_content_ = true;
    may_think_ = false;
    current_ = {.role = Role::assistant, .channel = std::string(channel)};
  }
  void complete() {
    in_content_ = false;
    if (!current_.content.empty()) messages_.push_back(std::move(current_));
    current_ = {};
  }

  // Takes from held_ what is certain; at the `end` everything. A call completes at most one message, so that
  // delta_ belongs to one; what stands behind it waits for the next call.
  void read(bool end) {
    for (;;) {
      if (current_.content.empty()) held_.erase(0, std::min(held_.find_first_not_of(kSpace), held_.size()));
      if (!in_content_) {
        if (held_.empty()) return;
        if (may_think_ && marks_.known) {
          if (held_.starts_with(ThinkingMarks::kBegin)) {
            held_.erase(0, ThinkingMarks::kBegin.size());
            begin("analysis");
            continue;
          }
          if (!end && ThinkingMarks::kBegin.starts_with(held_)) return;
        }
        begin("final");
      }
      const std::size_t mark = thinks() ? held_.find(ThinkingMarks::kEnd) : std::string::npos;
      if (mark == std::string::npos) {
        say(end || !thinks() ? held_.size() : held_.size() - begun_mark());
        return;
      }
      say(mark);
      held_.erase(0, ThinkingMarks::kEnd.size());
      const bool said_something = !current_.content.empty();
      complete();
      if (said_something) return;
    }
  }

  void say(std::size_t bytes) {
    delta_.append(held_, 0, bytes);
    current_.content.append(held_, 0, bytes);
    held_.erase(0, bytes);
  }

  // How many bytes at the end of held_ may become the mark that ends the reasoning.
  std::size_t begun_mark() const {
    std::size_t size = std::min(held_.size(), ThinkingMarks::kEnd.size() - 1);
    while (!ThinkingMarks::kEnd.starts_with(std::string_view(held_).substr(held_.size() - size))) --size;
    return size;
  }

  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  ThinkingMarks marks_;
  std::string held_;       // whole characters of which it is not known yet what they are
  bool may_think_ = true;  // nothing was said yet
  bool in_content_ = false;
  Message current_;
  std::string delta_;
  std::vector<Message> messages_;
};

}  // namespace

std::unique_ptr<AnswerParser> harmony_answer(const Harmony& harmony) {
  return std::make_unique<HarmonyAnswer>(harmony);
}

std::unique_ptr<AnswerParser> template_answer(const Tokenizer& tokenizer, ThinkingMarks thinking) {
  return std::make_unique<TemplateAnswer>(tokenizer, thinking);
}

}  // namespace nib::inline v0
