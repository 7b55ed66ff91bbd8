// The program on a terminal, as a person meets it.
#include "process.hpp"
#include "support/data.hpp"

#include <cstdint>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Slow enough that a key can be pressed while it answers.
const std::vector<std::string> kSlowChat = {"chat",      "--temp", "0",  "--numerics", "f32",
                                            "--backend", "scalar", "-t", "1"};
constexpr const char* kDog = "Tell me a story about a dog.\r";

std::int64_t number_after(const std::string& text, const char* words) {
  const std::size_t at = text.rfind(words);
  REQUIRE(at != std::string::npos);
  return std::stoll(text.substr(at + std::string_view(words).size()));
}

TEST_CASE("chat on a terminal: reasoning dimmed, Ctrl-C stops an answer and keeps it, twice leaves") {
  NIB_REQUIRE_TERMINAL();
  const Folder home;
  OnTerminal chat(kSlowChat, {{"HOME", home.path().string()}});
  REQUIRE(chat.wait_for("/help"));
  REQUIRE(chat.wait_for("> "));
  chat.type(kDog);
  REQUIRE(chat.wait_for("\033[2mThe user"));
  REQUIRE(chat.wait_for("\033[0m"));
  REQUIRE(chat.wait_for("Once upon"));
  chat.type(kCtrlC);
  REQUIRE(chat.wait_for("> "));
  chat.type("/stats\r");
  REQUIRE(chat.wait_for("context "));
  const std::int64_t first_prompt = number_after(chat.shown(), "prompt ");
  CHECK(number_after(chat.shown(), "answer ") < 120);  // the whole story has 126 tokens
  REQUIRE(chat.wait_for("> "));
  chat.type(kDog);
  REQUIRE(chat.wait_for("The user"));
  chat.type(kCtrlC);
  REQUIRE(chat.wait_for("> "));
  chat.type("/stats\r");
  REQUIRE(chat.wait_for("context "));
  // The second prompt holds both questions and what was said of the first answer.
  CHECK(number_after(chat.shown(), "prompt ") > 2 * first_prompt);
  REQUIRE(chat.wait_for("> "));
  chat.type(kCtrlC);
  REQUIRE(chat.wait_for("again leaves"));
  REQUIRE(chat.wait_for("> "));
  chat.type(kCtrlC);
  CHECK(chat.finish() == 130);
  // What was typed is there the next time.
  const std::string kept = read_text((home.path() / ".local/state/nibble/chat_history").string());
  CHECK(kept.find("story") != std::string::npos);
}

TEST_CASE("chat on a terminal: Ctrl-C drops what was typed; Ctrl-D leaves; history comes back") {
  NIB_REQUIRE_TERMINAL();
  const Folder home;
  const Environment environment = {{"XDG_STATE_HOME", home.path().string()}};
  {
    OnTerminal chat({"chat"}, environment);
    REQUIRE(chat.wait_for("> "));
    chat.type("half a thought");
    REQUIRE(chat.wait_for("half a thought"));
    chat.type(kCtrlC);
    REQUIRE(chat.wait_for("> "));
    chat.type("/frob\r");
    REQUIRE(chat.wait_for("/frob is no command"));
    REQUIRE(chat.wait_for("> "));
    CHECK(chat.leave() == 0);
  }
  OnTerminal chat({"chat"}, environment);
  REQUIRE(chat.wait_for("> "));
  chat.type("\033[A");  // up
  REQUIRE(chat.wait_for("/frob"));
  chat.type("\x15/quit\r");  // Ctrl-U, then leave
  CHECK(chat.finish() == 0);
}

TEST_CASE("chat on a terminal without colour: a word says what is reasoning") {
  NIB_REQUIRE_TERMINAL();
  const Folder home;
  OnTerminal chat({"chat", "--temp", "0", "--numerics", "f32"},
                  {{"HOME", home.path().string()}, {"NO_COLOR", "1"}});
  REQUIRE(chat.wait_for("> "));
  chat.type(kDog);
  REQUIRE(chat.wait_for("(analysis) The user"));
  REQUIRE(chat.wait_for("Once upon"));
  REQUIRE(chat.wait_for("> "));
  CHECK(chat.shown().find("\033[2m") == std::string::npos);
  CHECK(chat.shown().find("\033[1m") == std::string::npos);
  chat.type("/reset\r");
  REQUIRE(chat.wait_for("forgotten"));
  chat.type("/system Be short.\r");
  REQUIRE(chat.wait_for("> "));
  chat.type("/help\r");
  REQUIRE(chat.wait_for("/quit"));
  REQUIRE(chat.wait_for("> "));
  CHECK(chat.leave() == 0);
}

TEST_CASE("run on a terminal: the text goes on from what it continues, and closes with a line") {
  NIB_REQUIRE_TERMINAL();
  OnTerminal run({"run", "--temp", "0", "--numerics", "f32", "-n", "20"});
  REQUIRE(run.wait_for("Once upon a time"));
  REQUIRE(run.wait_for(", there was a little girl"));
  REQUIRE(run.wait_for("long.\r\n"));
  REQUIRE(run.wait_for("answer 20 tokens at"));
  CHECK(run.finish() == 0);
}

TEST_CASE("run on a terminal: Ctrl-C") {
  NIB_REQUIRE_TERMINAL();
  OnTerminal run({"run", "--temp", "0", "--ignore-eos", "-n", "-1", "-c", "20000"});
  REQUIRE(run.wait_for("Lily"));
  run.type(kCtrlC);
  REQUIRE(run.wait_for("answer "));
  CHECK(run.finish() == 130);
}

}  // namespace
}  // namespace nib::test
