#include "command_line.hpp"

#include "exit_code.hpp"
#include "numbers.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include "version.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

namespace nib::program {
namespace {

constexpr const char* kProgramFooter = R"(Examples:
  nibble run                                   a story from the model that comes with nibble
  nibble chat -m openai/gpt-oss-20b            talk with a model from your Hugging Face cache
  nibble inspect /models/gpt-oss-120b -c 8192  what is in it, and does it fit
  nibble perplexity -f story.txt               how well a model expects a text
  nibble quantize IN OUT.gguf --format q8_0    another format, or one file
  nibble plan --params 108e9@mxfp4+12e9@bf16   bytes of parameters
  nibble explain -m model.gguf                 which kernel computes what
  nibble bench -m ./gpt-oss-20b                how fast a model is here
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
  nibble run -m ./gpt-oss-20b -ngl all --cpu-moe -p "Why?"   all but the experts on a GPU
)";

constexpr const char* kChatFooter =
    R"(In the chat, /help lists its commands, Ctrl-C stops an answer, and Ctrl-D leaves. When stdin is no terminal, each line
is one message, and stdout gets the answers alone.

Examples:
  nibble chat
  nibble chat -m openai/gpt-oss-20b --reasoning low -sys "Answer in one sentence."
  nibble chat -m meta-llama/Llama-3.2-3B-Instruct
  printf '%s\n' "Tell me a story about a dog." | nibble chat > story.txt
)";

constexpr const char* kInspectFooter = R"(Reads headers only: no weight is loaded.

Examples:
  nibble inspect
  nibble inspect openai/gpt-oss-20b -c 32768 --memory 16G
  nibble inspect ./model --tensors --json
)";

constexpr const char* kPlanFooter =
    R"(Reads headers only: no weight is loaded. Sizes of files are in GB (10^9 bytes), memory in GiB (2^30).

Examples:
  nibble plan -m openai/gpt-oss-20b -c 32768 --memory 16G
  nibble plan -m openai/gpt-oss-20b -ngl 12 --device-memory 8G
  nibble plan -m openai/gpt-oss-120b -ngl all --expert-cache 16G
  nibble plan --config gpt-oss-120b/config.json
  nibble plan --params 108e9@mxfp4+12e9@bf16
)";

constexpr const char* kExplainFooter =
    R"(Opens the model, and says for each op what its weights are stored as, what is multiplied, and by which kernel:
tiles are made for the format; records is the generic kernel of any format, and chain that of a device.

Examples:
  nibble explain
  nibble explain -m ./model-nf4 --tensors
  nibble explain -m model-q8_0.gguf --json
)";

constexpr const char* kPerplexityFooter =
    R"(The text is read once and cut into windows, each computed from an empty context; what is reported is the mean over
all predictions of all windows, with its standard error. The first token of a window is not predicted, unless
windows overlap (--stride) or begin with bos (--bos). A line that says <|endoftext|> and nothing else is that token.
With --against also the Kullback-Leibler divergence from the other model, and how often both have the same
likeliest token. The other model is the processor's, whatever -ngl says of the first.

Examples:
  nibble perplexity -f story.txt
  nibble perplexity -m ./model-nf4 -f wiki.txt --against ./model-bf16
  nibble perplexity -f story.txt --against ./tales --against-numerics f32 --json
  nibble perplexity -m ./tales -f story.txt -ngl all --against ./tales     a device beside the processor
)";

constexpr const char* kBenchFooter =
    R"(Random tokens are computed after contexts of so many tokens; each rate is that of the best of several rounds. Beside
the rates stands what they are of this machine's: a prefill multiplies, one session that decodes reads memory. Both are
measured in the same run. What experts a batch reads is not known beforehand, so that batches have no such share.

Examples:
  nibble bench
  nibble bench -m openai/gpt-oss-20b --contexts 0,4096,16384 --account
  nibble bench -m model.gguf --batches 1,2,4,8,16 --decode 32 --json
)";

constexpr const char* kDoctorFooter = R"(Measures for about a second.

Example:
  nibble doctor --json
)";

constexpr const char* kTokenizeFooter =
    R"(Reads stdin to its end, at most 1 GiB. Ids stand on one line, separated by spaces; nothing is put before or behind
them. With -0 each text ends with a zero byte and each list of ids with a line, in both directions. Any bytes are
text. A tokenizer.json or a GGUF file without weights will do. Memory: what the vocabulary takes, up to twice the
input, and up to 12 bytes for each token of the longest text.

Examples:
  echo -n "Once upon a time" | nibble tokenize
  nibble tokenize -m openai/gpt-oss-20b < story.txt | wc -w
  echo 9707 1879 | nibble tokenize -m ./model --decode
  find . -name '*.txt' -exec cat {} \; -printf '\0' | nibble tokenize -0
)";

std::string quantize_footer() {
  std::string text = "Formats:\n";
  Table table("lll", "  ");
  for (const TargetFormat& format : target_formats())
    table.row({format.name, format.meaning,
               format.gguf == Format::none          ? "directory"
               : format.safetensors == Format::none ? ".gguf"
                                                    : "directory, .gguf"});
  return text + table.text() + R"(
OUT is a directory as on Hugging Face, or a GGUF file when its name ends in .gguf. It appears when it is complete; until
then, and for good when you press Ctrl-C, there is nothing. IN is only read; it may be either, too.

Quantized are the matrices of attention and of the feed-forward layers (to mxfp4, in a model of experts: theirs alone);
router, embeddings, head, norms and biases stay. --only chooses other tensors; nibble inspect --tensors lists their
names. Weights that a format cannot hold, such as rows that are no whole number of its groups, stay too, and are named.
Out of a GGUF file they become bf16 where a directory cannot hold what they are.

--prepare writes a directory that opens several times as fast, since its weights need no packing: for nibble alone, on
any processor, with the same output to the bit. Keep IN: other versions of nibble may want it prepared again.

Examples:
  nibble quantize ./llama-3 ./llama-3-nf4 --format nf4-double
  nibble quantize openai/gpt-oss-20b gpt-oss-20b.gguf --format mxfp4
  nibble quantize gpt-oss-20b.gguf ./gpt-oss-20b --format mxfp4
  nibble quantize model.gguf smaller.gguf --format q4_0 --only 'ffn_(up|down|gate)'
  nibble quantize openai/gpt-oss-20b gpt-oss-20b-prepared --prepare
)";
}

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
  CLI::Option* bytes(const char* name, std::uint64_t& target, const char* meaning) {
    return parsed(
        name, "SIZE",
        [name, &target](const std::string& text) {
          const auto bytes = parse_bytes(text);
          if (!bytes.ok()) throw CLI::ValidationError(name, bytes.status().message());
          target = bytes.value();
        },
        meaning);
  }
  CLI::Option* flag(const char* names, bool& target, const char* meaning) {
    return finish(verb_.add_flag(names, target, meaning));
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

void add_numerics(Section& section, const char* name, std::function<void(Numerics)> take,
                  const char* meaning) {
  section
      .parsed(
          name, "bf16|f32|int8",
          [take = std::move(take)](const std::string& text) {
            for (int i = 0; i < kNumerics; ++i)
              if (text == numerics_name(static_cast<Numerics>(i))) take(static_cast<Numerics>(i));
          },
          meaning)
      ->check(CLI::IsMember({"bf16", "f32", "int8"}));
}

void add_cuda_library(Section& section, std::string& target) {
  section.value("--cuda-library", "PATH", target,
                "libnibble-cuda.so, or its folder (default: where the program was installed)");
}

void add_placement(CLI::App& verb, ModelFlags& flags) {
  Section section(verb, "GPU (default: the processor computes everything)");
  section.parsed(
      "--gpu-layers", "N|all",
      [&flags](const std::string& text) {
        const char* const last = text.data() + text.size();
        const auto [end, error] = std::from_chars(text.data(), last, flags.gpu_layers);
        if (text == "all")
          flags.gpu_layers = UINT32_MAX;
        else if (error != std::errc() || end != last)
          throw CLI::ValidationError("--gpu-layers",
                                     concat("expected a number of layers or all, found \"", text, "\""));
      },
      "layers that a CUDA device computes, the last N; one more than there are, or all:\nthe head, too "
      "(also: -ngl N)");
  section.flag("--cpu-moe", flags.host_experts, "their experts stay with the processor, in main memory");
  section.value("--device", "N", flags.device, "which device (default: 0; nibble doctor lists them)");
  section.bytes("--device-memory", flags.device_memory,
                "memory to stay below there (default: what is free when the model is opened)");
  section.bytes(
      "--expert-cache", flags.expert_cache,
      "of this for experts; if not all fit, they are copied there from main memory\nas tokens choose "
      "them (default: as much as they take)");
  section.flag(
      "--fast", flags.may_be_fast,
      "long prompts may be computed faster (Hopper alone), in an order of additions that\ndepends on "
      "how they are cut");
  add_cuda_library(section, flags.cuda_library);
}

// `context`: what -c means; null where the verb knows its context without.
void add_model(CLI::App& verb, ModelFlags& flags,
               const char* context = "context in tokens (default: 4096, or less if the model has less)") {
  Section section(verb, "Model");
  section.value("-m,--model", "PATH", flags.model,
                "directory, a file in it, or OWNER/NAME in the Hugging Face cache\n(default: the model that "
                "comes with nibble)");
  if (context) section.value("-c,--ctx-size", "N", flags.context, context)->check(CLI::PositiveNumber);
  add_numerics(
      section, "--numerics", [&flags](Numerics numerics) { flags.numerics = numerics; },
      "precision of activations (default: bf16;\nint8: the fastest, and the least exact)");
  section.flag("--allow-fallback", flags.allow_fallback,
               "with int8: compute tensors that it cannot multiply as with bf16");
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
  section.bytes("--memory", flags.memory, "memory to stay below, such as 8G (default: what is free)");
  add_placement(verb, flags);
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
  section.value("--chat-template", "FILE", flags->chat_template,
                "a Jinja template for models that have none, or instead of theirs");
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

void add_plan(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "plan", "say what a model will take before it is loaded", kPlanFooter);
  const auto flags = std::make_shared<PlanFlags>();
  Section section(*verb, "In place of a model");
  CLI::Option* config =
      section.value("--config", "FILE", flags->config, "a config.json alone, without weights; - reads stdin");
  section.value("--params", "COUNT@FORMAT+...", flags->params, "parameters and what they are stored as")
      ->excludes(config);
  Section report(*verb, "Report");
  report.value("--sessions", "N", flags->sessions, "sessions open at once (default: 1)")
      ->check(CLI::PositiveNumber);
  report.flag("--json", flags->json, "as one JSON object");
  add_model(*verb, flags->model);
  verb->callback([=, &chosen] { chosen = [flags] { return plan(*flags); }; });
}

void add_explain(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "explain", "show how a model is stored and computed", kExplainFooter);
  const auto flags = std::make_shared<ExplainFlags>();
  Section section(*verb, "Report");
  section.flag("--tensors", flags->tensors, "list every tensor");
  section.flag("--json", flags->json, "as one JSON object, with every tensor");
  add_model(*verb, flags->model);
  verb->callback([=, &chosen] { chosen = [flags] { return explain(*flags); }; });
}

void add_perplexity(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb =
      add_verb(program, "perplexity", "measure how well a model expects a text", kPerplexityFooter);
  const auto flags = std::make_shared<PerplexityFlags>();
  Section section(*verb, "Text");
  section.value("-f,--file", "FILE", flags->file, "the text; - reads it from stdin")->required();
  section.value("--stride", "N", flags->stride,
                "tokens from one window to the next (default: as many as a window)");
  section.value("--windows", "N", flags->windows, "only the first N windows (default: all)");
  section.flag("--bos", flags->bos, "begin every window with the model's bos token");
  section.flag("--special", flags->specials, "read special tokens such as <|start|> by their spelling");
  Section comparison(*verb, "Comparison");
  comparison.value("--against", "PATH", flags->against,
                   "another model, as for -m, that is taken for the truth");
  add_numerics(
      comparison, "--against-numerics", [flags](Numerics numerics) { flags->against_numerics = numerics; },
      "its precision of activations (default: as --numerics)");
  Section report(*verb, "Report");
  report.flag("--json", flags->json, "as one JSON object");
  add_model(*verb, flags->model, "tokens of a window (default: 512, or less if the model has less)");
  verb->callback([=, &chosen] { chosen = [flags] { return perplexity(*flags); }; });
}

void add_bench(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "bench", "measure how fast a model is on this computer", kBenchFooter);
  const auto flags = std::make_shared<BenchFlags>();
  Section section(*verb, "Measurements");
  section.value("-p,--prompt", "N", flags->prompt, "tokens of a prefill; 0: none (default: 512)");
  section.value("-n,--decode", "N", flags->decode, "tokens that are decoded; 0: none (default: 128)");
  section.value("--contexts", "N,N,...", flags->contexts, "tokens that stand before (default: 0)")
      ->delimiter(',');
  section.value("--batches", "N,N,...", flags->batches, "sessions that decode together (default: 1)")
      ->delimiter(',')
      ->check(CLI::Range(1u, 1024u));
  section.value("--rounds", "N", flags->rounds, "of each measurement (default: 3)")
      ->check(CLI::Range(1u, 1000u));
  Section report(*verb, "Report");
  report.flag("--account", flags->account, "where the time of a decoded token goes, op by op");
  report.flag("--json", flags->json, "as one JSON object, with accounts and the time of every round");
  add_model(*verb, flags->model, nullptr);
  verb->callback([=, &chosen] { chosen = [flags] { return bench(*flags); }; });
}

void add_doctor(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb = add_verb(program, "doctor", "show what this computer can do, measured", kDoctorFooter);
  const auto flags = std::make_shared<DoctorFlags>();
  Section section(*verb, "Report");
  section.value("-t,--threads", "N", flags->threads, "threads (default: one for each processor)");
  add_cuda_library(section, flags->cuda_library);
  section.flag("--json", flags->json, "as one JSON object");
  verb->callback([=, &chosen] { chosen = [flags] { return doctor(*flags); }; });
}

void add_tokenize(CLI::App& program, std::function<int()>& chosen) {
  CLI::App* verb =
      add_verb(program, "tokenize", "turn text into token ids, or ids into text", kTokenizeFooter);
  const auto flags = std::make_shared<TokenizeFlags>();
  Section section(*verb, "Text");
  section.value(
      "-m,--model", "PATH", flags->model,
      "a tokenizer.json, a GGUF file, a directory that has one, or OWNER/NAME in the Hugging Face\ncache "
      "(default: the model that comes with nibble)");
  section.flag("--special", flags->specials,
               "read and print special tokens such as <|start|> by their spelling");
  section.flag("--decode", flags->decode, "from ids to text");
  section.flag("-0,--null", flags->many, "many texts, each ended by a zero byte, and a line of ids for each");
  verb->callback([=, &chosen] { chosen = [flags] { return tokenize(*flags); }; });
}

void add_quantize(CLI::App& program, std::function<int()>& chosen) {
  static const std::string footer = quantize_footer();
  CLI::App* verb =
      add_verb(program, "quantize", "write a model anew, in another format or prepared", footer.c_str());
  const auto flags = std::make_shared<QuantizeFlags>();
  verb->add_option("in", flags->from, "the model, as for -m")->option_text("")->required();
  verb->add_option("out", flags->to, "where to write it")->option_text("")->required();
  Section section(*verb, "Quantization");
  CLI::Option* format = section.value("-f,--format", "NAME", flags->format, "one of those listed below");
  CLI::Option* prepare =
      section.flag("--prepare", flags->prepare, "keep the formats; pack the weights as kernels read them");
  format->excludes(prepare);
  section
      .value("--only", "REGEX", flags->only,
             "the tensors to quantize: those with a name in which it is found (as of grep -E)")
      ->needs(format);
  section
      .value("--scale-rule", "floor|round-up|least-error", flags->scale_rule,
             "how mxfp4 and nvfp4 choose scales (default: floor, and for nvfp4 by the largest value)")
      ->check(CLI::IsMember({"floor", "round-up", "least-error"}))
      ->needs(format);
  section.flag("--overwrite", flags->overwrite, "replace OUT if it exists");
  section.value("-t,--threads", "N", flags->threads, "threads (default: one for each processor)");
  verb->callback([=, &chosen] {
    if (flags->format.empty() && !flags->prepare) throw CLI::RequiredError("--format or --prepare");
    chosen = [flags] { return quantize(*flags); };
  });
}

// Options of llama.cpp with several letters behind one dash; CLI11 would read them as -s ys and -n gl.
std::vector<std::string> spelled_out(int count, const char* const* arguments) {
  std::vector<std::string> words(arguments + 1, arguments + count);
  for (std::string& word : words) {
    if (word == "-sys") word = "--system";
    if (word == "-ngl") word = "--gpu-layers";
  }
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
  add_plan(program, chosen);
  add_explain(program, chosen);
  add_perplexity(program, chosen);
  add_bench(program, chosen);
  add_doctor(program, chosen);
  add_tokenize(program, chosen);
  add_quantize(program, chosen);

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
