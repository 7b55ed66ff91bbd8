// nibble chat driven by a script: one message a line, answers alone on stdout.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <cstdint>
#include <sstream>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr const char* kDog = "Tell me a story about a dog.\n";

std::vector<std::string> greedy(std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"chat", "--temp", "0", "--numerics", "f32"});
  return more;
}

// "prompt 138 tokens, 119 computed at ..." of each turn.
struct Turn {
  std::int64_t prompt = 0, computed = 0;
};
std::vector<Turn> turns(const std::string& err) {
  std::vector<Turn> all;
  std::istringstream lines(err);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find("prompt ");
    if (at == std::string::npos) continue;
    Turn turn;
    std::istringstream words(line.substr(at));
    std::string word;
    words >> word >> turn.prompt >> word;
    turn.computed = turn.prompt;
    if (word == "tokens,") words >> turn.computed;
    all.push_back(turn);
  }
  return all;
}

TEST_CASE("chat: a story in the final channel, as recorded") {
  NIB_REQUIRE_DATA(data);
  const Json record = parse_json(read_text(data + "/models/tales/golden.json"), "golden.json").take();
  const std::string text = record.find("dog")->find("text")->as_string();
  const std::string final_part = text.substr(text.find("final<|message|>") + 16);
  const Finished chat = nibble(greedy(), kDog);
  CHECK(chat.code == 0);
  CHECK(chat.out.starts_with(final_part));
  CHECK(chat.err.empty());
}

TEST_CASE("chat: stdout has the answers alone, and each ends its line") {
  const Finished one = nibble(greedy(), kDog);
  CHECK(one.code == 0);
  CHECK(one.err.empty());
  CHECK(one.out.starts_with("Once upon a time, there was"));
  CHECK(one.out.ends_with(".\n"));
  CHECK(one.out.find("<|") == std::string::npos);
  CHECK(one.out.find("The user wants") == std::string::npos);
  // Empty lines are no messages; a line without its newline is one; a slash is nothing special.
  CHECK(nibble(greedy(), std::string("\n  \n") + "Tell me a story about a dog.").out == one.out);
  CHECK(nibble(greedy(), "").out.empty());
  const Finished slash = nibble(greedy(), "/help\n");
  CHECK(slash.out.find("/quit") == std::string::npos);
  CHECK_FALSE(slash.out.empty());
}

TEST_CASE("chat: a message of several lines") {
  const std::string two_lines = nibble(greedy({"--stats"}), "Tell me a story\\\nabout a dog.\n").err;
  REQUIRE(turns(two_lines).size() == 1);
  const std::string one_line = nibble(greedy({"--stats"}), "Tell me a story about a dog.\n").err;
  // The newline took the place of a space: one turn of about the same length.
  CHECK(std::abs(turns(two_lines)[0].prompt - turns(one_line)[0].prompt) <= 2);
}

TEST_CASE("chat: a later turn computes only what lies beyond the nearest checkpoint") {
  const Finished chat =
      nibble(greedy({"--stats"}), std::string(kDog) + "And now one about a cat.\nAnd a bird.\n");
  CHECK(chat.code == 0);
  const std::vector<Turn> all = turns(chat.err);
  REQUIRE(all.size() == 3);
  CHECK(all[0].computed == all[0].prompt);
  // The prompt of turn n ends where its answer begins; what stands before is history and the same in turn n +
  // 1, where only the answer without its reasoning and the new message come after it.
  CHECK(all[1].prompt - all[1].computed >= all[0].prompt);
  CHECK(all[2].prompt - all[2].computed >= all[1].prompt);
  CHECK(all[1].computed < all[1].prompt);
  CHECK(all[2].computed < all[2].prompt);
  // The same questions to a fresh process give the same third answer: what was kept was kept right.
  const Finished again = nibble(greedy(), std::string(kDog) + "And now one about a cat.\nAnd a bird.\n");
  CHECK(again.out == chat.out);
}

TEST_CASE("chat: a full context drops the oldest turns, says so, and goes on") {
  std::string input;
  for (const char* what : {"dog", "cat", "bird", "boat"})
    input += std::string("Tell me a story about a ") + what + ".\n";
  const Finished chat = nibble(greedy({"-c", "256"}), input);
  CHECK(chat.code == 0);
  CHECK(chat.err.find("the oldest turn was dropped") != std::string::npos);
  // Every story ends.
  const Finished first = nibble(greedy({"-c", "256"}), kDog);
  CHECK(chat.out.starts_with(first.out));
  CHECK(chat.out.size() > 3 * first.out.size() / 2);
  CHECK(chat.err.find("the answer ends here") == std::string::npos);
}

TEST_CASE("chat: an answer that alone fills the context ends there, and it is said") {
  const Finished chat = nibble(greedy({"-c", "64"}), kDog);
  CHECK(chat.code == 0);
  CHECK(chat.err.find("context of 64 tokens is full") != std::string::npos);
  CHECK_FALSE(chat.out.empty());
}

TEST_CASE("chat: a message that is too long says both numbers") {
  std::string message;
  for (int i = 0; i < 100; ++i) message += "a very long story ";
  const Finished chat = nibble(greedy({"-c", "128"}), message + "\n");
  CHECK(chat.code == 5);
  CHECK(chat.out.empty());
  CHECK(chat.err.find("too long") != std::string::npos);
  CHECK(chat.err.find("128") != std::string::npos);
}

TEST_CASE("chat: instructions stand before the conversation") {
  const std::int64_t without = turns(nibble(greedy({"--stats"}), kDog).err).at(0).prompt;
  const std::int64_t with =
      turns(nibble(greedy({"--stats", "-sys", "Be very short."}), kDog).err).at(0).prompt;
  CHECK(with > without + 5);
}

TEST_CASE("chat: -n bounds an answer") {
  const Finished chat = nibble(greedy({"-n", "30", "--stats"}), kDog);
  CHECK(chat.code == 0);
  CHECK(chat.err.find("answer 30 tokens") != std::string::npos);
  CHECK(chat.out.ends_with("\n"));
}

// Harmony as the shipped model wants it, for an answer without reasoning.
constexpr const char* kTemplate =
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|channel|>final<|message|>{% endif %}";

TEST_CASE("chat: a template of one's own writes the prompt, and its end of a message ends an answer") {
  const Folder folder;
  const std::string file = folder.write("mine.jinja", kTemplate);
  const Finished chat = nibble(greedy({"--chat-template", file, "--stats"}), kDog);
  CHECK(chat.code == 0);
  const Finished run =
      nibble({"run", "--temp", "0", "--numerics", "f32", "--special", "-n", "400", "-p",
              "<|start|>user<|message|>Tell me a story about a dog.<|end|><|start|>assistant<|channel|>"
              "final<|message|>"});
  CHECK(run.out.find("<|") != std::string::npos);
  CHECK(chat.out == run.out.substr(0, run.out.find("<|")) + "\n");
  CHECK(turns(chat.err).at(0).prompt > 8);

  const Finished missing = nibble(greedy({"--chat-template", file + "x"}), kDog);
  CHECK(missing.code == 3);
  const Finished broken = nibble(greedy({"--chat-template", folder.write("b.jinja", "{% for %}")}), kDog);
  CHECK(broken.code == 4);
  CHECK(broken.err.find("b.jinja: line 1") != std::string::npos);
}

TEST_CASE("chat: with a template a later turn computes what is new alone") {
  const Folder folder;
  const std::string file = folder.write("mine.jinja", kTemplate);
  const std::string input = std::string(kDog) + "And now one about a cat.\nAnd a bird.\n";
  const Finished chat = nibble(greedy({"--chat-template", file, "--stats"}), input);
  const std::vector<Turn> all = turns(chat.err);
  REQUIRE(all.size() == 3);
  for (std::size_t i = 1; i < all.size(); ++i) {
    // The question, and what may stand between it and the nearest checkpoint.
    CHECK(all[i].prompt - all[i].computed >= all[i - 1].prompt);
  }
  CHECK(nibble(greedy({"--chat-template", file}), input).out == chat.out);
}

TEST_CASE("chat: the template that a model ships is used, and what it refuses is told") {
  const Folder folder;
  const std::filesystem::path model = folder.path() / "model";
  std::filesystem::copy(NIBBLE_TALES, model);
  const std::string shipped = (model / "chat_template.jinja").string();
  std::string own = kTemplate;
  own.replace(own.find("<|start|>"), 9, "{{ '<|sta' ~ 'rt|>' }}");
  own.replace(own.find("<|start|>"), 9, "{{ '<|sta' + 'rt|>' }}");
  Folder::write(model, "chat_template.jinja", own);
  const Finished chat = nibble(greedy({"-m", model.string()}), kDog);
  CHECK(chat.code == 0);
  CHECK(chat.out == nibble(greedy({"--chat-template", folder.write("mine.jinja", kTemplate)}), kDog).out);

  Folder::write(model, "chat_template.jinja", "{{ raise_exception('no system role') }}");
  const Finished refused = nibble(greedy({"-m", model.string()}), kDog);
  CHECK(refused.code != 0);
  CHECK(refused.err.find("chat_template: no system role") != std::string::npos);

  // A vocabulary that is not harmony's, and no template.
  std::filesystem::remove(shipped);
  std::string vocabulary = read_text((model / "tokenizer.json").string());
  for (std::size_t at; (at = vocabulary.find("<|channel|>")) != std::string::npos;)
    vocabulary.replace(at, 11, "<|chamber|>");
  Folder::write(model, "tokenizer.json", vocabulary);
  const Finished none = nibble(greedy({"-m", model.string()}), kDog);
  CHECK(none.code == 6);
  CHECK(none.err.find("chat_template: there is none") != std::string::npos);
  CHECK(none.err.find("--chat-template FILE") != std::string::npos);
}

TEST_CASE("chat: what a model thinks before its answer is no part of stdout, and dimmed for a person") {
  NIB_REQUIRE_TERMINAL();
  const Folder folder;
  const std::string file = folder.write("thinks.jinja", std::string(kTemplate) + "<think>");
  const Finished script = nibble(greedy({"--chat-template", file, "-n", "20"}), kDog);
  CHECK(script.code == 0);
  CHECK(script.out.empty());
  OnTerminal terminal(greedy({"--chat-template", file, "-n", "20"}));
  REQUIRE(terminal.wait_for("> "));
  terminal.type("Tell me a story about a dog.\n");
  CHECK(terminal.wait_for("\x1b[2m"));
  CHECK(terminal.wait_for("\x1b[0m"));
  CHECK(terminal.leave() == 0);
}

}  // namespace
}  // namespace nib::test
