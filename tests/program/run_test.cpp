// nibble run, and what every verb promises about streams, settings and exit codes.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <csignal>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// The greedy continuation of "Once upon a time", as recorded with float32 activations.
constexpr const char* kOnce =
    ", there was a little girl named Lily. She loved to play with her toys all day long.";

std::vector<std::string> greedy(std::vector<std::string> more) {
  more.insert(more.begin(), {"run", "--temp", "0", "--numerics", "f32"});
  return more;
}

// A copy of the shipped model that a test may damage.
class Copy {
 public:
  Copy() { std::filesystem::copy(NIBBLE_TALES, path()); }
  std::filesystem::path path() const { return folder_.path() / "model"; }
  std::string operator/(const char* name) const { return (path() / name).string(); }

 private:
  Folder folder_;
};

TEST_CASE("run: the recorded texts of the shipped model") {
  NIB_REQUIRE_DATA(data);
  const Json record = parse_json(read_text(data + "/models/tales/golden.json"), "golden.json").take();
  for (const char* name : {"once", "dog", "book"}) {
    CAPTURE(name);
    const Json& golden = *record.find(name);
    const Finished run =
        nibble(greedy({"-n", "96", "--special", "--ignore-eos", "-p", golden.find("prompt")->as_string()}));
    CHECK(run.code == 0);
    CHECK(run.out == golden.find("text")->as_string());
    CHECK(run.err.empty());
  }
}

TEST_CASE("run: stdout has the text alone, however the prompt came") {
  const Folder folder;
  const std::string prompt = "Once upon a time";
  const std::string file = folder.write("prompt.txt", prompt);
  for (const Finished& run :
       {nibble(greedy({"-n", "20"})), nibble(greedy({"-n", "20", "-p", prompt})),
        nibble(greedy({"-n", "20", "-p", "-"}), prompt), nibble(greedy({"-n", "20", "-f", file})),
        nibble(greedy({"-n", "20", "-f", "-"}), prompt),
        nibble(greedy({"-n", "20", "-m", NIBBLE_TALES, "-p", prompt})),
        nibble(greedy({"-n", "20", "-m", std::string(NIBBLE_TALES) + "/model.safetensors", "-p", prompt}))}) {
    CHECK(run.code == 0);
    CHECK(run.out == kOnce);
    CHECK(run.err.empty());
  }
  CHECK(nibble(greedy({"-n", "0"})).out.empty());
}

TEST_CASE("run: where it stops") {
  const std::string whole = nibble(greedy({})).out;
  CHECK(whole.starts_with(kOnce));
  CHECK(whole.ends_with("all by herself."));
  CHECK(nibble(greedy({"--special"})).out == whole + "<|return|>");
  CHECK(nibble(greedy({"--stop", " Lily", "--stop", "nothing"})).out == ", there was a little girl named");
  const Finished full = nibble(greedy({"-c", "32", "--ignore-eos", "-n", "-1"}));
  CHECK(full.code == 0);
  CHECK(whole.starts_with(full.out));
  CHECK(full.err.find("context of 32 tokens is full") != std::string::npos);
}

TEST_CASE("run: special tokens of a prompt are words unless asked for") {
  const Finished plain = nibble(greedy({"-n", "1", "--stats", "-p", "<|start|>user<|message|>"}));
  const Finished special =
      nibble(greedy({"-n", "1", "--stats", "--special", "-p", "<|start|>user<|message|>"}));
  const auto tokens = [](const Finished& run) {
    return std::stoi(run.err.substr(std::string("prompt ").size()));
  };
  CHECK(tokens(special) <= 4);  // two, and those of one short word
  CHECK(tokens(plain) > 4);
}

TEST_CASE("run: the same seed is the same text, and the seed that was drawn is told") {
  const std::vector<std::string> arguments = {"run", "-n", "40", "--temp", "1", "--top-p", "1", "--stats"};
  const Finished first = nibble(arguments), second = nibble(arguments);
  CHECK(first.out != second.out);
  const std::size_t at = first.err.find("seed ");
  REQUIRE(at != std::string::npos);
  auto repeated = arguments;
  repeated.insert(repeated.end(), {"-s", first.err.substr(at + 5, first.err.find('\n', at) - at - 5)});
  CHECK(nibble(repeated).out == first.out);
  CHECK(nibble(greedy({"-n", "2", "--stats"})).err.find("seed") == std::string::npos);
}

TEST_CASE("run: the closing line") {
  const Finished run = nibble(greedy({"-n", "20", "--stats"}));
  CHECK(run.out == kOnce);
  CHECK(run.err.starts_with("prompt 4 tokens at "));
  CHECK(run.err.find(", answer 20 tokens at ") != std::string::npos);
  CHECK(run.err.find("(memory at ") != std::string::npos);
  CHECK(run.err.find('\033') == std::string::npos);
}

TEST_CASE("the environment sets what is not typed") {
  const auto run = [](std::vector<std::string> arguments, const Environment& environment) {
    return call({.arguments = std::move(arguments), .environment = environment});
  };
  const Environment twenty = {{"NIBBLE_TEMP", "0"}, {"NIBBLE_NUMERICS", "f32"}, {"NIBBLE_PREDICT", "20"}};
  CHECK(run({"run"}, twenty).out == kOnce);
  CHECK(run({"run", "-n", "3"}, twenty).out == ", there was");
  CHECK(run({"run", "-n", "20", "--temp", "0", "--numerics", "f32"},
            {{"NIBBLE_IGNORE_EOS", "1"}, {"NIBBLE_SPECIAL", "true"}})
            .out == kOnce);
  CHECK(run({"run"}, {{"NIBBLE_MODEL", "/nope"}}).code == 3);
  CHECK(run({"run"}, {{"NIBBLE_TOP_K", "many"}}).code == 2);
  const Folder folder;
  const std::string file = folder.write("prompt.txt", "The old man");
  CHECK(run({"run", "-p", "Once upon a time", "-n", "20", "--temp", "0", "--numerics", "f32"},
            {{"NIBBLE_FILE", file}})
            .out == kOnce);
}

TEST_CASE("a model is found by name in the Hugging Face cache") {
  const Folder folder;
  folder.write("models--me--tales/refs/main", "c0ffee");
  std::filesystem::create_directories(folder.path() / "models--me--tales/snapshots");
  std::filesystem::create_directory_symlink(NIBBLE_TALES,
                                            folder.path() / "models--me--tales/snapshots/c0ffee");
  const Environment environment = {{"HF_HUB_CACHE", folder.path().string()}};
  const Finished run = call({.arguments = greedy({"-m", "me/tales", "-n", "20", "-p", "Once upon a time"}),
                             .environment = environment});
  CHECK(run.out == kOnce);
  const Finished missing = call({.arguments = {"run", "-m", "me/other"}, .environment = environment});
  CHECK(missing.code == 3);
  CHECK(missing.err.find(folder.path().string()) != std::string::npos);
}

struct Refusal {
  int code;
  std::vector<std::string> arguments;
  const char* says;
};

TEST_CASE("exit codes, each with a sentence that names the thing") {
  const Folder folder;
  std::filesystem::create_directories(folder.path() / "empty");
  const std::string empty = (folder.path() / "empty").string();

  const Copy cut;
  std::filesystem::resize_file(cut / "model.safetensors",
                               std::filesystem::file_size(cut / "model.safetensors") / 2);
  const Copy no_config;
  std::filesystem::remove(no_config / "config.json");
  const Copy strange;
  std::string config = read_text(strange / "config.json");
  for (const char* name : {"gpt_oss", "GptOss"})
    for (std::size_t at; (at = config.find(name)) != std::string::npos;) config.replace(at, 3, "odd");
  Folder::write(strange.path(), "config.json", config);
  const Copy mute;
  std::string tokenizer = read_text(mute / "tokenizer.json");
  tokenizer.replace(tokenizer.find("<|message|>"), 11, "<|massage|>");
  Folder::write(mute.path(), "tokenizer.json", tokenizer);
  std::filesystem::remove(mute / "chat_template.jinja");

  const std::vector<Refusal> refusals = {
      {2, {"run", "--frob"}, "--frob"},
      {2, {"frob"}, "\"frob\""},
      {2, {"run", "-p", "x", "-f", "y"}, "-p and -f"},
      {2, {"run", "--temp", "warm"}, "--temp"},
      {2, {"run", "--top-p", "3"}, "top_p"},
      {2, {"run", "--memory", "much"}, "\"much\""},
      {2, {"run", "-c", "99999999"}, "131072"},
      {2, {"run", "-m", NIBBLE_TALES, "-n"}, "--predict"},
      {2, {"chat", "--reasoning", "none"}, "--reasoning"},
      {3, {"run", "-m", folder.path().string() + "/nope"}, "/nope"},
      {3, {"run", "-m", "someone/nothing"}, "models--someone--nothing"},
      {3, {"run", "-m", empty}, "empty"},
      {3, {"run", "-f", empty + "/nope.txt"}, "nope.txt"},
      {3, {"run", "-m", no_config.path().string()}, "config.json"},
      {3, {"run", "--backend", "abacus"}, "\"abacus\""},
      {3, {"inspect", folder.path().string() + "/nope"}, "/nope"},
      {4, {"run", "-m", cut.path().string()}, "model.safetensors"},
      {4, {"inspect", cut.path().string()}, "model.safetensors"},
      {5, {"run", "--memory", "10M"}, "10.0 MiB"},
      {5, {"run", "--memory", "31M"}, "-c "},
      {5, {"run", "-c", "8", "-p", "one two three four five six seven eight nine ten"}, "8 positions"},
      {6, {"run", "-m", strange.path().string()}, "odd"},
      {6, {"inspect", strange.path().string()}, "odd"},
      {6, {"chat", "-m", mute.path().string()}, "chat_template: there is none"},
  };
  for (const Refusal& refusal : refusals) {
    std::string words;
    for (const std::string& word : refusal.arguments) words += word + " ";
    CAPTURE(words);
    const Finished run = nibble(refusal.arguments);
    CAPTURE(run.err);
    CHECK(run.code == refusal.code);
    CHECK(run.err.starts_with("nibble: "));
    CHECK(run.err.find(refusal.says) != std::string::npos);
    if (refusal.arguments.front() != "inspect") CHECK(run.out.empty());
  }
}

TEST_CASE("help and version go to stdout") {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"-h"}, {"--help"}, {"run", "-h"}, {"chat", "--help"}, {"inspect", "-h"}, {"doctor", "--help"}}) {
    const Finished help = nibble(arguments);
    CHECK(help.code == 0);
    CHECK(help.err.empty());
    CHECK(help.out.find("Example") != std::string::npos);
    for (std::size_t at = 0, next; (next = help.out.find('\n', at)) != std::string::npos; at = next + 1)
      CHECK(next - at <= 120);
  }
  const Finished version = nibble({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out.starts_with("nibble 0."));
  CHECK(version.out.find("scalar") != std::string::npos);
  const Finished nothing = nibble({});
  CHECK(nothing.code == 2);
  CHECK(nothing.out.empty());
  CHECK(nothing.err.find("run") != std::string::npos);
}

TEST_CASE("a reader that goes away ends the program quietly; a full disk is told") {
  const Finished unread = call({.arguments = greedy({}), .reader_gone = true});
  CHECK(unread.signal == SIGPIPE);
  CHECK(unread.err.empty());
  const Finished full = call({.arguments = greedy({}), .out_path = "/dev/full"});
  CHECK(full.code == 1);
  CHECK(full.err.starts_with("nibble: standard output"));
}

TEST_CASE("run: Ctrl-C ends it with 130 and the closing line") {
  const Finished run = call(
      {.arguments = greedy({"--ignore-eos", "-n", "-1", "-c", "20000", "--stats"}), .interrupt_after = 40});
  CHECK(run.code == 130);
  CHECK(run.out.substr(0, 40) == std::string(kOnce).substr(0, 40));
  CHECK(run.err.starts_with("prompt 4 tokens"));
}

}  // namespace
}  // namespace nib::test
