#include "command_line.hpp"

#include "exit_code.hpp"
#include "numbers.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include "version.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace nib::program {
namespace {

constexpr const char* kProgramFooter = R"(Examples:
  nibble run                                   a story from the model that comes with nibble
  nibble chat -m openai/gpt-oss-20b            talk with a model from your Hugging Face cache
  nibble inspect /models/gpt-oss-120b -c 8192  what is in it, and does it fit
  nibble doctor                                what this computer can do
  echo -n "Once upon" | nibble tokenize        the ids of a text

Every option may also be set in the environment, --top-k as NIBBLE_TOP_K and so on; what is typed wins.

Exit codes: 0 done, 1 failure, 2 wrong usage, 3 not found, 4 bad model, 5 does not fit in memory or context,
6 unsupported, 130 interrupted.)";

constexpr const char* kRunFooter =
    R"(The text goes to stdout alone, without the prompt; everything else goes to stderr.

Examples:
  nibble run -p "The dragon was" -n 100
  nibble run -m openai/gpt-oss-20b -f question.txt --temp 0 > answer.txt
  git log -5 | nibble run -m ./gpt-oss-20b -p -
)";

constexpr const char* kChatFooter =
    R"(In the chat, /help lists its commands, Ctrl-C stops an answer, and Ctrl-D leaves. When stdin is no terminal, each line
is one message, and stdout gets the answers alone.

Examples:
  nibble chat
  nibble chat -m openai/gpt-oss-20b --reasoning low -sys "Answer in one sentence."
  printf '%s\n' "Tell me a story about a dog." | nibble chat > story.txt
)";

constexpr const char* kInspectFooter = R"(Reads headers only: no weight is loaded.

Examples:
  nibble inspect
  nibble inspect openai/gpt-oss-20b -c 32768 --memory 16G
  nibble inspect ./model --tensors --json
)";

constexpr const char* kDoctorFooter = R"(Measures for about a second.

Example:
  nibble doctor --json
)";

constexpr const char* kTokenizeFooter =
    R"(Reads stdin to its end. Ids stand on one line, separated by spaces; nothing is put before or behind them.
A directory with nothing but a tokenizer.json will do.

Examples:
  echo -n "Once upon a time" | nibble tokenize
  nibble tokenize -m openai/gpt-oss-20b < story.txt | wc -w
  echo 9707 1879 | nibble tokenize -m ./model --decode
  find . -name '*.txt' -exec cat {} \; -printf '\0' | nibble tokenize -0
)";

// CLI11's own, with options described by what was written for them alone.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() {
    column_width(30);
    label("SUBCOMMAND", "VERB");
    label("OPTIONS", "options");
    label("Positionals", "Arguments");
  }
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    return CLI::detail::find_and_replace(CLI::Formatter::make_help(app, std::move(name), mode), "\n\n\n",
                                         "\n\n");
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_option_text().empty() ? "" : " " + option->get_option_text();
  }
};

// Adds the options of one heading in the help of one verb.
class Section {
 public:
  Section(CLI::App& verb, const char* title) : verb_(verb), title_(title) {}

  template <class T>
  CLI::Option* value(const char* names, const char* type, T& target, const char* meaning) {
    return finish(verb_.add_option(names, target, meaning)->option_text(type));
  }
  // The text is turned into a value by `parse`, which throws CLI::ValidationError.
  CLI::Option* parsed(const char* names, const char* type, std::function<void(const std::string&)> parse,
                      const char* meaning) {
    return finish(verb_.add_option_function(names, std::move(parse), meaning)->option_text(type));
  }
  void flag(const char* names, bool& target, const char* meaning) {
    finish(verb_.add_flag(names, target, meaning));
  }

 private:
  // In the environment an option is called NIBBLE_ and its long name in capitals.
  CLI::Option* finish(CLI::Option* option) {
    std::string name = concat("NIBBLE_", option->get_lnames().front());
    for (char& c : name) c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return option->envname(name)->group(title_);
  }

  CLI::App& verb_;
  const char* title_;
};

void add_model(CLI::App& verb, ModelFlags& flags) {
  Section section(verb, "Model");
  section.value("-m,--model", "PATH", flags.model,
                "directory, a file in it, or OWNER/NAME in the Hugging Face cache\n(default: the model that "
                "comes with nibble)");
  section
      .value("-c,--ctx-size", "N", flags.context,
             "context in tokens (default: 4096, or less if the model has less)")
      ->check(CLI::PositiveNumber);
  section
      .parsed(
          "--numerics", "bf16|f32",
          [&flags](const std::string& text) {
            flags.numerics = text == "f32" ? Numerics::f32 : Numerics::bf16;
          },
          "precision of activations (default: bf16)")
      ->check(CLI::IsMember({"bf16", "f32"}));
  section
      .parsed(
          "--kv", "auto|bf16|f32|int8|fp8",
          [&flags](const std::string& text) {
            for (int i = 0; i < kKvFormats; ++i)
              if (text == kv_format_name(static_cast<KvFormat>(i)))
                flags.kv_format = static_cast<KvFormat>(i);
          },
          "precision of the context's keys and values (default: auto)")
      ->check(CLI::IsMember({"auto", "bf16", "f32", "int8", "fp8"}));
  section.value("--backend", "NAME", flags.backend,
                "instruction set (default: the best; see nibble --version)");
  section.value("-t,--threads", "N", flags.threads, "threads (default: one for each processor)");
  section.parsed(
      "--memory", "SIZE",
      [&flags](const std::string& text) {
        const auto bytes = parse_bytes(text);
        if (!bytes.ok()) throw CLI::ValidationError("--memory", bytes.status().message());
        flags.memory = bytes.value();
      },
      "memory to stay below, such as 8G (default: what is free)");
}

void add_sampling(CLI::App& verb, SamplingFlags& flags) {
  Section section(verb, "Sampling (defaults: what the model's generation_config.json says)");
  section.value("--temp", "T", flags.temperature, "temperature; 0: the likeliest token each time");
  section.value("--top-k", "K", flags.top_k, "only the K likeliest tokens; 0: all");
  section.value("--top-p", "P", flags.top_p, "only the likeliest tokens that together reach P");
  section.value("--min-p", "P", flags.min_p, "only tokens at least P times as likely as the likeliest");
  section.value("--repeat-penalty", "X", flags.repeat_penalty,
                "make tokens seen before less likely; 1: do not");
  section.value("-s,--seed", "N", flags.seed, "same seed, same text (default: a new one each time)");
}

CLI::App* add_verb(CLI::App& program, const char* name, const char* meaning, const char* footer) {
  CLI::App* verb = program.add_subcommand(name, meaning);
  verb->footer(footer)->group("Verbs");
  return verb;
}

void add_run(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "run", "continue a text, or answer a prompt once", kRunFooter);
  const auto flags = std::make_shared<RunFlags>();
  Section section(*verb, "Text");
  CLI::Option* prompt =
      section.value("-p,--prompt", "TEXT", flags->prompt, "what to continue; - reads it from stdin");
  CLI::Option* file = section.value("-f,--file", "FILE", flags->prompt_file, "a file that holds it");
  section
      .value("-n,--predict", "N", flags->most_tokens, "tokens to write at most; -1: no limit (default: 256)")
      ->check(CLI::Range(std::int64_t{-1}, std::int64_t{UINT32_MAX}));
  section.value("--stop", "TEXT", flags->stop_texts, "text that ends it; may be given several times")
      ->allow_extra_args(false);
  section.flag("--special", flags->specials,
               "read and print special tokens such as <|start|> by their spelling");
  section.flag("--ignore-eos", flags->ignore_stops, "go on after the tokens with which the model ends");
  section.flag("--stats", flags->statistics, "print the closing line also where stderr is no terminal");
  add_model(*verb, flags->model);
  add_sampling(*verb, flags->sampling);
  verb->callback([=, &chosen] {
    // What is typed wins over the environment; both typed is a contradiction.
    const auto from_environment = [](CLI::Option* option) {
      const char* set = std::getenv(option->get_envname().c_str());
      return set && option->results() == std::vector<std::string>{set};
    };
    if (flags->prompt && flags->prompt_file) {
      if (from_environment(file))
        flags->prompt_file.reset();
      else if (from_environment(prompt))
        flags->prompt.reset();
      else
        throw CLI::ValidationError("-p and -f", "only one of them may be given");
    }
    chosen = [flags] { return run(*flags); };
  });
}

void add_chat(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "chat", "talk with a model", kChatFooter);
  const auto flags = std::make_shared<ChatFlags>();
  Section section(*verb, "Conversation");
  section.value("--system", "TEXT", flags->instructions, "instructions for the model (also: -sys)");
  section
      .value("--reasoning", "low|medium|high", flags->reasoning,
             "how much a model that was trained for it thinks (default: medium)")
      ->check(CLI::IsMember({"low", "medium", "high"}));
  section
      .value("-n,--predict", "N", flags->most_tokens, "tokens of one answer at most; -1: no limit (default)")
      ->check(CLI::Range(std::int64_t{-1}, std::int64_t{UINT32_MAX}));
  section.flag("--stats", flags->statistics, "print tokens and rates after each answer");
  add_model(*verb, flags->model);
  add_sampling(*verb, flags->sampling);
  verb->callback([=, &chosen] { chosen = [flags] { return chat(*flags); }; });
}

void add_inspect(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb =
      add_verb(program, "inspect", "show what a model holds, and whether it fits", kInspectFooter);
  const auto flags = std::make_shared<InspectFlags>();
  verb->add_option("path", flags->model.model, "the model, as for -m")->option_text("");
  Section section(*verb, "Report");
  section.flag("--tensors", flags->tensors, "list every tensor");
  section.flag("--json", flags->json, "as one JSON object");
  add_model(*verb, flags->model);
  verb->callback([=, &chosen] { chosen = [flags] { return inspect(*flags); }; });
}

void add_doctor(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "doctor", "show what this computer can do, measured", kDoctorFooter);
  const auto flags = std::make_shared<DoctorFlags>();
  Section section(*verb, "Report");
  section.value("-t,--threads", "N", flags->threads, "threads (default: one for each processor)");
  section.flag("--json", flags->json, "as one JSON object");
  verb->callback([=, &chosen] { chosen = [flags] { return doctor(*flags); }; });
}

void add_tokenize(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb =
      add_verb(program, "tokenize", "Turn text into token ids, or ids into text", kTokenizeFooter);
  const auto flags = std::make_shared<TokenizeFlags>();
  Section section(*verb, "Text");
  section.value(
      "-m,--model", "PATH", flags->model,
      "a tokenizer.json, a directory that has one, or OWNER/NAME in the Hugging Face cache\n(default: "
      "the model that comes with nibble)");
  section.flag("--special", flags->specials,
               "read and print special tokens such as <|start|> by their spelling");
  section.flag("--decode", flags->decode, "from ids to text");
  section.flag("-0,--null", flags->many, "many texts, each ended by a zero byte, and a line of ids for each");
  verb->callback([=, &chosen] { chosen = [flags] { return tokenize(*flags); }; });
}

// llama.cpp's only option of several letters behind one dash; CLI11 would read it as -s ys.
std::vector<std::string> spelled_out(int count, const char* const* arguments) {
  std::vector<std::string> words(arguments + 1, arguments + count);
  for (std::string& word : words)
    if (word == "-sys") word = "--system";
  return words;
}

int wrong_usage(const CLI::App& program, std::string what) {
  // CLI11's sentences for what is most often mistyped, shorter.
  for (const std::string_view opening :
       {"The following argument was not expected: ", "The following arguments were not expected: ",
        "Could not convert: "})
    if (what.starts_with(opening)) what = concat("not understood: ", what.substr(opening.size()));
  const auto verbs = program.get_subcommands();
  return fail({Code::argument, what},
              concat("See nibble ", verbs.empty() ? "" : verbs.front()->get_name() + " ", "--help."));
}

}  // namespace

int command_line(int count, const char* const* arguments) {
  CLI::App program("nibble runs 4-bit mixture-of-experts language models on this computer.", "nibble");
  program.formatter(std::make_shared<HelpFormatter>());
  program.set_help_flag("-h,--help", "print this help");
  program.set_version_flag("--version", version_text, "print version, compiler and backends");
  program.footer(kProgramFooter);
  program.require_subcommand(1);
  std::function<int()> chosen;
  add_run(program, chosen);
  add_chat(program, chosen);
  add_inspect(program, chosen);
  add_doctor(program, chosen);
  add_tokenize(program, chosen);

  std::vector<std::string> words = spelled_out(count, arguments);
  if (words.empty()) {
    say(program.help());
    return kUsage;
  }
  const auto is_meant = [&](const CLI::App* verb) { return verb->get_name() == words.front(); };
  if (!words.front().starts_with('-') && program.get_subcommands(is_meant).empty())
    return wrong_usage(program, concat("there is no verb \"", words.front(), "\""));
  try {
    std::reverse(words.begin(), words.end());  // as CLI11 wants them
    program.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return wrong_usage(program, error.what());
    std::ostringstream out, unused;
    program.exit(error, out, unused);  // help or version
    const Status status = put(out.str());
    return status.ok() ? kSuccess : fail(status);
  }
  return chosen();
}

}  // namespace nib::program
