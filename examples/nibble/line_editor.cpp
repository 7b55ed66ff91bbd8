#include "line_editor.hpp"

#include "terminal.hpp"

#include <cerrno>
#include <clocale>
#include <cstring>
#include <cwchar>

#include <unistd.h>

#ifdef NIBBLE_HAS_LIBEDIT
#include <histedit.h>
#endif

namespace nib::program {
namespace {

constexpr const char* kPrompt = "> ";
constexpr const char* kContinuation = ". ";

// Reads a descriptor itself: stdio would lose what it has buffered when a signal comes.
class PlainReader : public LineReader {
 public:
  explicit PlainReader(const Interrupts& interrupts)
      : interrupts_(interrupts), prompts_(is_terminal(kStdin)) {}

  Outcome read(const char* prompt, std::string& line) override {
    if (prompts_) say(prompt);
    for (;;) {
      if (const std::size_t newline = buffer_.find('\n'); newline != std::string::npos) {
        line = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        if (line.ends_with('\r')) line.pop_back();
        return Outcome::line;
      }
      if (!interrupts_.wait_for_input(kStdin)) {
        line = std::exchange(buffer_, {});
        return Outcome::interrupted;
      }
      char bytes[4096];
      const ssize_t count = ::read(kStdin, bytes, sizeof bytes);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        line = std::exchange(buffer_, {});
        return line.empty() ? Outcome::end : Outcome::line;
      }
      buffer_.append(bytes, static_cast<std::size_t>(count));
    }
  }

 private:
  const Interrupts& interrupts_;
  bool prompts_;
  std::string buffer_;
};

#ifdef NIBBLE_HAS_LIBEDIT

constexpr int kHistoryLines = 1000;
constexpr char kInvisible = '\1';  // stands around escape sequences in a prompt

class EditingReader : public LineReader {
 public:
  EditingReader(const std::string& history_file, const Interrupts& interrupts)
      : interrupts_(interrupts), history_file_(history_file) {
    // Characters of several bytes are typed and deleted whole only under a locale that has them.
    if (!std::setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor_ = el_init("nibble", stdin, is_terminal(kStdout) ? stdout : stderr, stderr);
    history_ = history_init();
    if (!editor_ || !history_) return;
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) history(history_, &event, H_LOAD, history_file_.c_str());
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT_ESC, &EditingReader::prompt_of, kInvisible);
    el_set(editor_, EL_GETCFN, &EditingReader::next_character);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_source(editor_, nullptr);  // the user's own ~/.editrc
  }
  ~EditingReader() override {
    if (history_) history_end(history_);
    if (editor_) el_end(editor_);
  }
  bool ready() const { return editor_ && history_; }

  Outcome read(const char* prompt, std::string& line) override {
    const Style style = style_for(is_terminal(kStdout) ? kStdout : kStderr);
    prompt_ = style.bold.empty() ? prompt : mark(style.bold) + prompt + mark(style.plain);
    el_resize(editor_);
    int count = 0;
    const char* text = el_gets(editor_, &count);
    if (interrupts_.presses() > 0) {
      const LineInfo* typed = el_line(editor_);
      line.assign(typed->buffer, typed->lastchar);
      el_reset(editor_);
      return Outcome::interrupted;
    }
    if (!text || count <= 0) return Outcome::end;
    line.assign(text, static_cast<std::size_t>(count));
    if (line.ends_with('\n')) line.pop_back();
    remember(line);
    return Outcome::line;
  }

 private:
  static std::string mark(std::string_view escape) { return kInvisible + std::string(escape) + kInvisible; }
  static char* prompt_of(EditLine* editor) {
    EditingReader* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return self->prompt_.data();
  }
  // One character of the locale's encoding: 1, or 0 at the end, or -1 when Ctrl-C came first.
  static int next_character(EditLine* editor, wchar_t* character) {
    EditingReader* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    std::mbstate_t state = {};
    for (;;) {
      if (!self->interrupts_.wait_for_input(kStdin)) return -1;
      char byte = 0;
      const ssize_t count = ::read(kStdin, &byte, 1);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return static_cast<int>(count);
      const std::size_t used = std::mbrtowc(character, &byte, 1, &state);
      if (used == static_cast<std::size_t>(-2)) continue;  // the beginning of a character
      if (used != static_cast<std::size_t>(-1)) return 1;
      state = {};  // no character of this encoding: passed over
    }
  }
  void remember(const std::string& line) {
    if (line.find_first_not_of(" \t") == std::string::npos) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (!history_file_.empty()) history(history_, &event, H_SAVE, history_file_.c_str());
  }

  const Interrupts& interrupts_;
  std::string history_file_, prompt_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
};

#endif

}  // namespace

std::unique_ptr<LineReader> make_line_reader([[maybe_unused]] const std::string& history_file,
                                             const Interrupts& interrupts) {
#ifdef NIBBLE_HAS_LIBEDIT
  if (is_terminal(kStdin)) {
    auto reader = std::make_unique<EditingReader>(history_file, interrupts);
    if (reader->ready()) return reader;
  }
#endif
  return std::make_unique<PlainReader>(interrupts);
}

LineReader::Outcome read_message(LineReader& reader, std::string& message) {
  message.clear();
  std::string line;
  const char* prompt = kPrompt;
  for (;;) {
    const LineReader::Outcome outcome = reader.read(prompt, line);
    message += line;
    if (outcome == LineReader::Outcome::end && !message.empty()) return LineReader::Outcome::line;
    if (outcome != LineReader::Outcome::line || !message.ends_with('\\')) return outcome;
    message.back() = '\n';
    prompt = kContinuation;
    line.clear();
  }
}

}  // namespace nib::program
