// nibble plan: what a model will take, from its headers, from a config.json alone, or from counts of
// parameters.
#include "exit_code.hpp"
#include "input.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "paths.hpp"
#include "plan_report.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/formats/storage.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/runtime/measure.hpp>
#include <nibble/runtime/plan.hpp>

#include <memory>

namespace nib::program {
namespace {

constexpr double kSecondsEach = 0.1;
constexpr std::uint64_t kMostConfigBytes = std::uint64_t{16} << 20;

// ---- from counts of parameters

struct Term {
  std::uint64_t parameters;
  std::string format;
  std::uint64_t bytes;
};

// "108e9@mxfp4+12e9@bf16". A "+" before the "@" is of an exponent.
Result<std::vector<Term>> parse_terms(std::string_view text) {
  std::vector<Term> terms;
  for (;;) {
    const std::size_t at = text.find('@'), plus = text.find('+', at == text.npos ? 0 : at);
    const std::string_view term = text.substr(0, plus);
    if (at == text.npos)
      return Status(Code::argument,
                    concat("--params: \"", term, "\", expected COUNT@FORMAT as in 12e9@bf16"));
    const std::string_view format = term.substr(at + 1);
    NIB_ASSIGN(const std::uint64_t parameters, parse_count(term.substr(0, at)));
    const Storage storage = find_storage(format);
    if (storage.format == Format::none) {
      std::string known;
      for (const FormatInfo& info : kFormats)
        if (info.format != Format::none) known += concat(known.empty() ? "" : ", ", info.name);
      return Status(Code::argument, concat("--params: no format \"", format, "\" (known: ", known,
                                           ", nf4-double, bnb_fp4-double)"));
    }
    terms.push_back({parameters, std::string(format), storage_bytes(storage, parameters)});
    if (plus == text.npos) return terms;
    text.remove_prefix(plus + 1);
  }
}

double bits_each(const Term& term) {
  return 8 * static_cast<double>(term.bytes) / static_cast<double>(term.parameters);
}

Term together(const std::vector<Term>& terms) {
  Term all{0, "together", 0};
  for (const Term& term : terms) {
    all.parameters += term.parameters;
    all.bytes += term.bytes;
  }
  return all;
}

std::string text_report(const std::vector<Term>& terms) {
  Table table("lrrrr");
  table.row({"stored as", "parameters", "bits each", "size", "bytes"});
  const auto row = [&](const Term& term) {
    table.row({term.format, count_text(term.parameters), number_text(bits_each(term)),
               gigabytes_text(term.bytes), concat(term.bytes)});
  };
  for (const Term& term : terms) row(term);
  row(together(terms));
  return table.text();
}

std::string json_report(const std::vector<Term>& terms) {
  const auto members = [](const Term& term) -> std::vector<Json::Member> {
    return {{"parameters", json(term.parameters)},
            {"bytes", json(term.bytes)},
            {"bits_per_weight", json(bits_each(term))}};
  };
  std::vector<Json> items;
  for (const Term& term : terms) {
    std::vector<Json::Member> item = members(term);
    item.emplace(item.begin(), "format", json(term.format));
    items.push_back(Json::object(std::move(item)));
  }
  std::vector<Json::Member> report = members(together(terms));
  report.emplace_back("items", Json::array(std::move(items)));
  return write_json(Json::object(std::move(report)), true) + "\n";
}

Result<std::string> report_of_params(const PlanFlags& flags) {
  NIB_ASSIGN(const std::vector<Term> terms, parse_terms(flags.params));
  return flags.json ? json_report(terms) : text_report(terms);
}

// ---- of a model

struct Findings {
  Plan plan;
  std::string backend;
  MachineRates rates;
};

Result<Findings> look_into(const PlanFlags& flags, std::string& advice) {
  Findings findings;
  NIB_ASSIGN(const auto runtime, Runtime::create({.threads = flags.model.threads}));
  NIB_ASSIGN(const Backend* backend, runtime->backend(flags.model.backend));
  findings.backend = backend->name;
  const ModelOptions options = model_options(flags.model);
  const SessionOptions session{.context = flags.model.context};
  if (!flags.config.empty()) {
    NIB_ASSIGN(const std::string text, read_input(flags.config, kMostConfigBytes));
    NIB_ASSIGN(const Json config, parse_json(text, flags.config));
    NIB_ASSIGN(findings.plan,
               make_plan_of_config(*runtime, config, flags.config, options, session, flags.sessions));
  } else {
    auto found = find_model(flags.model.model);
    if (!found.ok()) {
      advice = advice_about(flags.model.model);
      return found.status();
    }
    NIB_ASSIGN(findings.plan, make_plan(*runtime, found->path, options, session, flags.sessions));
  }
  findings.rates.read_bytes_per_second = roughly_measured_bandwidth(*runtime);
  findings.rates.dot_flops_per_second =
      measure_dot_rate(*runtime, *backend, flags.model.numerics, kSecondsEach);
  return findings;
}

std::string prediction_text(const Findings& findings) {
  const PlanSummary& summary = findings.plan.summary;
  if (summary.device_bytes > 0) return "How fast is not predicted: a device's memory was not measured.\n";
  const PredictedRates rates = findings.plan.predict(findings.rates);
  return concat("At best ", number_text(rates.decode_tokens_per_second),
                " tokens/s: ", bytes_text(summary.decode_bytes), " of weights for each, at ",
                byte_rate_text(findings.rates.read_bytes_per_second), "; prompts ",
                number_text(rates.prefill_tokens_per_second), "/s, at ",
                flop_rate_text(findings.rates.dot_flops_per_second), " (measured for a moment).\n");
}

std::string text_report(const Findings& findings) {
  const Plan& plan = findings.plan;
  const PlanSummary& summary = plan.summary;
  Table stored("lrr");
  stored.row({"in the files", "size", "bytes"});
  for (const PlanRow& row : plan_rows(plan))
    if (row.stored_bytes) stored.row({row.name, gigabytes_text(row.stored_bytes), concat(row.stored_bytes)});
  stored.row({"together", gigabytes_text(summary.stored_bytes), concat(summary.stored_bytes)});
  return concat(plan.path, ": ", count_text(summary.parameters), " parameters\n\n", stored.text(), "\n",
                plan_text(plan, findings.backend), prediction_text(findings));
}

std::string json_report(const Findings& findings) {
  const PredictedRates rates = findings.plan.predict(findings.rates);
  const auto rate = [&](double tokens_per_second) {
    return findings.plan.summary.device_bytes > 0 ? Json() : json(tokens_per_second);
  };
  std::vector<Json::Member> members = plan_members(findings.plan, findings.backend);
  members.emplace(members.begin(), "path", json(findings.plan.path));
  members.emplace_back("predicted",
                       Json::object({{"read_bytes_per_second", json(findings.rates.read_bytes_per_second)},
                                     {"flops_per_second", json(findings.rates.dot_flops_per_second)},
                                     {"decode_tokens_per_second", rate(rates.decode_tokens_per_second)},
                                     {"prefill_tokens_per_second", rate(rates.prefill_tokens_per_second)}}));
  return write_json(Json::object(std::move(members)), true) + "\n";
}

Result<std::string> report_of_model(const PlanFlags& flags, std::string& advice) {
  NIB_ASSIGN(const Findings findings, look_into(flags, advice));
  return flags.json ? json_report(findings) : text_report(findings);
}

}  // namespace

int plan(const PlanFlags& flags) {
  std::string advice;
  const auto report = flags.params.empty() ? report_of_model(flags, advice) : report_of_params(flags);
  if (!report.ok()) return fail(report.status(), advice);
  const Status written = put(report.value());
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
