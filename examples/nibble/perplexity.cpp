// nibble perplexity: how well a model expects a text, and how far it is from another model on it.
#include "exit_code.hpp"
#include "input.hpp"
#include "interrupt.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/perplexity.hpp>

#include <algorithm>
#include <chrono>

namespace nib::program {
namespace {

constexpr std::uint64_t kMostTextBytes = std::uint64_t{1} << 30;
constexpr std::uint32_t kWindow = 512, kLogitRows = 64;
constexpr std::string_view kEndOfText = "<|endoftext|>";

// Files of many texts end each with a line kEndOfText: it and its line end are the token spelled so, where
// the vocabulary has one.
Status encode_texts(const Tokenizer& tokenizer, std::string_view file, Specials specials,
                    std::vector<Token>& tokens) {
  std::vector<Token> end;
  NIB_TRY(tokenizer.encode(kEndOfText, Specials::recognised, end));
  while (!file.empty()) {
    std::size_t at = end.size() == 1 ? file.find(kEndOfText) : file.npos;
    const auto is_line = [&] {
      const std::size_t behind = at + kEndOfText.size();
      return (at == 0 || file[at - 1] == '\n') && (behind == file.size() || file[behind] == '\n');
    };
    while (at != file.npos && !is_line()) at = file.find(kEndOfText, at + 1);
    NIB_TRY(tokenizer.encode(file.substr(0, at), specials, tokens));
    if (at == file.npos) return {};
    tokens.push_back(end.front());
    file.remove_prefix(std::min(file.size(), at + kEndOfText.size() + 1));
  }
  return {};
}

struct Findings {
  std::shared_ptr<Model> model, other;
  std::uint64_t tokens = 0;
  PerplexityOptions options;
  Perplexity measured;
  double seconds = 0;
};

Status measure(const PerplexityFlags& flags, const Cancel* cancel, Findings& findings, std::string& advice) {
  NIB_ASSIGN(const std::string text, read_input(flags.file, kMostTextBytes, cancel));
  NIB_ASSIGN(const Opened opened, open_for(flags.model, cancel, advice, {.logit_rows = kLogitRows}));
  findings.model = opened.model;
  const auto specials = flags.specials ? Specials::recognised : Specials::ordinary;
  std::vector<Token> tokens;
  NIB_TRY(encode_texts(*findings.model->tokenizer(), text, specials, tokens));
  findings.tokens = tokens.size();

  PerplexityOptions& options = findings.options;
  options.window =
      flags.model.context ? flags.model.context : std::min(kWindow, findings.model->info().max_context);
  options.stride = flags.stride;
  options.windows = flags.windows;
  if (flags.bos) {
    options.first = findings.model->defaults().bos;
    if (!options.first)
      return Status(Code::not_found, concat(findings.model->info().path, ": names no bos token"));
  }
  if (!flags.against.empty()) {
    ModelFlags second = flags.model;
    second.model = flags.against;
    second.gpu_layers = 0;
    second.expert_cache = 0;
    second.numerics = flags.against_numerics.value_or(flags.model.numerics);
    if (flags.model.memory)
      second.memory = std::max<std::uint64_t>(flags.model.memory - opened.summary.host_bytes, 1);
    NIB_ASSIGN(const Opened other,
               open_for(second, cancel, advice,
                        {.logit_rows = kLogitRows, .tokenizer = false, .runtime = opened.runtime}));
    findings.other = other.model;
    if (const Tokenizer* tokenizer = other.model->tokenizer()) {
      std::vector<Token> others;
      NIB_TRY(encode_texts(*tokenizer, text, specials, others));
      if (others != tokens)
        return Status(Code::argument, concat(findings.model->info().path, " and ", other.model->info().path,
                                             " read the text as different tokens"));
    }
  }
  ProgressLine progress;
  options.progress = progress.sink();
  options.cancel = cancel;
  const auto start = std::chrono::steady_clock::now();
  NIB_ASSIGN(findings.measured, measure_perplexity(findings.model, tokens, options, findings.other));
  findings.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {};
}

// ---- for people

std::string model_text(const Model& model) {
  const ModelInfo& info = model.info();
  return concat(info.path, ", ", numerics_name(info.numerics), ", ", computed_by(model));
}

std::string written(const Estimate& estimate) { return estimate_text(estimate.value, estimate.error); }

std::string text_report(const Findings& findings, const std::string& file) {
  const Perplexity& measured = findings.measured;
  Table table("ll");
  table.row({"model", model_text(*findings.model)});
  if (findings.other) table.row({"against", model_text(*findings.other)});
  table.row(
      {"text", concat(file == "-" ? "stdin" : file, ", ", findings.tokens, " tokens; ", measured.predictions,
                      " predicted in ", measured.windows, " windows of ", findings.options.window)});
  table.row({"perplexity", written(measured.perplexity)});
  table.row({"mean -log p", written(measured.nll)});
  if (measured.comparison) {
    const Comparison& c = *measured.comparison;
    table.row({"against", concat("perplexity ", written(c.perplexity), ", ratio ", written(c.ratio))});
    table.row({"KL divergence", concat("mean ", written(c.divergence))});
    table.row({"", concat("median ", number_text(c.median), ", 90% ", number_text(c.p90), ", 95% ",
                          number_text(c.p95), ", 99% ", number_text(c.p99), ", 99.9% ", number_text(c.p999),
                          ", most ", number_text(c.most))});
    table.row(
        {"same top token", concat(estimate_text(100 * c.agreement.value, 100 * c.agreement.error), " %")});
  }
  table.row({"took", duration_text(findings.seconds)});
  return table.text();
}

// ---- for programs: keys are part of what the command line promises

Json estimate_json(const Estimate& estimate) {
  return Json::object({{"value", json(estimate.value)}, {"error", json(estimate.error)}});
}

Json model_json(const Model& model) {
  return Json::object({{"path", json(model.info().path)},
                       {"backend", json(model.info().backend)},
                       {"device", json_or_null(model.info().device)},
                       {"numerics", json(numerics_name(model.info().numerics))}});
}

Json comparison_json(const Model& other, const Comparison& c) {
  return Json::object({{"model", model_json(other)},
                       {"nll", estimate_json(c.nll)},
                       {"perplexity", estimate_json(c.perplexity)},
                       {"ratio", estimate_json(c.ratio)},
                       {"kl_divergence", Json::object({{"value", json(c.divergence.value)},
                                                       {"error", json(c.divergence.error)},
                                                       {"median", json(c.median)},
                                                       {"p90", json(c.p90)},
                                                       {"p95", json(c.p95)},
                                                       {"p99", json(c.p99)},
                                                       {"p99_9", json(c.p999)},
                                                       {"maximum", json(c.most)}})},
                       {"top1_agreement", estimate_json(c.agreement)}});
}

std::string json_report(const Findings& findings, const std::string& file) {
  const PerplexityOptions& options = findings.options;
  const Perplexity& measured = findings.measured;
  const std::uint32_t content = options.window - (options.first ? 1 : 0);
  return write_json(
             Json::object({{"model", model_json(*findings.model)},
                           {"file", json(file)},
                           {"tokens", json(findings.tokens)},
                           {"window", json(options.window)},
                           {"stride", json(options.stride ? options.stride : content)},
                           {"bos", options.first ? json(*options.first) : Json()},
                           {"windows", json(measured.windows)},
                           {"predictions", json(measured.predictions)},
                           {"nll", estimate_json(measured.nll)},
                           {"perplexity", estimate_json(measured.perplexity)},
                           {"against",
                            findings.other ? comparison_json(*findings.other, *measured.comparison) : Json()},
                           {"seconds", json(findings.seconds)}}),
             true) +
         "\n";
}

}  // namespace

int perplexity(const PerplexityFlags& flags) {
  const Interrupts interrupts;
  Findings findings;
  std::string advice;
  if (Status status = measure(flags, interrupts.cancel(), findings, advice); !status.ok())
    return fail(status, advice);
  const Status written =
      put(flags.json ? json_report(findings, flags.file) : text_report(findings, flags.file));
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
