// nibble bench: how fast a model computes prompts and decodes on this computer, beside what the computer can
// do.
#include "bench_account.hpp"
#include "exit_code.hpp"
#include "interrupt.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/measure.hpp>
#include <nibble/runtime/speed.hpp>

#include <algorithm>
#include <chrono>

namespace nib::program {
namespace {

struct Findings {
  std::shared_ptr<Model> model;
  double load_seconds = 0;
  std::uint64_t stored_bytes = 0;           // of the tensors that were loaded
  std::uint64_t cache_bytes_per_token = 0;  // that decoding reads for each token of the context
  MachineRates machine;
  double phase_seconds = 0;  // of threads that meet for nothing
  std::vector<Speed> speeds;

  // Whether a device computes as well, whose memory's rate is not measured.
  bool on_device() const { return !model->info().device.empty(); }
  // Where the time of a token goes, when one session decodes.
  static bool has_account(const Speed& speed) {
    return speed.kind == Speed::Kind::decode && speed.sessions == 1;
  }
  TokenAccount account(const Speed& speed) const {
    return account_of(speed, model->explain(), std::uint64_t{speed.context} * cache_bytes_per_token,
                      machine.read_bytes_per_second, phase_seconds);
  }

  // Bytes or operations per second of a measurement by those of the machine; 0 where it is not known.
  double share(const Speed& speed) const {
    const ModelInfo& info = model->info();
    if (on_device()) return 0;
    if (speed.kind == Speed::Kind::prefill)
      return ratio(speed.tokens_per_second() * static_cast<double>(info.prefill_flops),
                   machine.dot_flops_per_second);
    if (speed.sessions > 1) return 0;
    const auto bytes = info.decode_bytes + std::uint64_t{speed.context} * cache_bytes_per_token;
    return ratio(speed.tokens_per_second() * static_cast<double>(bytes), machine.read_bytes_per_second);
  }
  static double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }
};

// Measured before the model and after it: a neighbour that slowed one measurement down would flatter the
// shares.
Status measure_machine(const Opened& opened, MachineRates& rates) {
  const ModelInfo& info = opened.model->info();
  NIB_ASSIGN(const Backend* backend, opened.runtime->backend(info.backend));
  rates.read_bytes_per_second =
      std::max(rates.read_bytes_per_second, measured_bandwidth(*opened.runtime, 0.5, std::uint64_t{1} << 30));
  rates.dot_flops_per_second =
      std::max(rates.dot_flops_per_second, measure_dot_rate(*opened.runtime, *backend, info.numerics, 0.5));
  return {};
}

Status measure(const BenchFlags& flags, const Cancel* cancel, Findings& findings, std::string& advice) {
  SpeedOptions options{.contexts = flags.contexts,
                       .batches = flags.batches,
                       .prompt = flags.prompt,
                       .decode = flags.decode,
                       .rounds = flags.rounds,
                       .cancel = cancel};
  ModelFlags model = flags.model;
  model.context = options.positions();
  const auto start = std::chrono::steady_clock::now();
  NIB_ASSIGN(const Opened opened,
             open_for(model, cancel, advice, {.tokenizer = false, .sessions = options.sessions()}));
  findings.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  findings.model = opened.model;
  findings.stored_bytes = opened.summary.stored_bytes;
  findings.cache_bytes_per_token = opened.summary.kv_bytes_per_token;
  NIB_TRY(measure_machine(opened, findings.machine));
  {
    ProgressLine progress;
    options.progress = progress.sink();
    NIB_ASSIGN(findings.speeds, measure_speed(opened.model, options));
  }
  findings.phase_seconds = measure_phase(*opened.runtime);
  return measure_machine(opened, findings.machine);
}

const char* kind_name(const Speed& speed) {
  return speed.kind == Speed::Kind::prefill ? "prefill" : "decode";
}

std::string ceiling(const Findings& findings, const Speed& speed) {
  return speed.kind == Speed::Kind::prefill ? flop_rate_text(findings.machine.dot_flops_per_second)
                                            : byte_rate_text(findings.machine.read_bytes_per_second);
}

std::string text_report(const Findings& findings, bool accounts) {
  const ModelInfo& info = findings.model->info();
  Table about("ll");
  about.row({"model", concat(info.path, ", ", count_text(info.parameters), " parameters")});
  about.row(
      {"computed",
       concat(computed_by(*findings.model), ", ", findings.model->runtime()->pool().threads(), " threads, ",
              numerics_name(info.numerics), ", cache in ", kv_format_name(info.kv_format))});
  about.row({"machine", concat("reads ", byte_rate_text(findings.machine.read_bytes_per_second),
                               ", multiplies ", flop_rate_text(findings.machine.dot_flops_per_second))});
  about.row(
      {"load", concat(duration_text(findings.load_seconds), ", ",
                      byte_rate_text(static_cast<double>(findings.stored_bytes) / findings.load_seconds))});
  Table rates("lrrrrl");
  rates.row({"", "tokens", "context", "sessions", "tokens/s", ""});
  for (const Speed& speed : findings.speeds) {
    const double share = findings.share(speed);
    rates.row({kind_name(speed), concat(speed.tokens), concat(speed.context), concat(speed.sessions),
               number_text(speed.tokens_per_second()),
               share > 0 ? concat(number_text(100 * share), " % of ", ceiling(findings, speed)) : ""});
  }
  std::string text = about.text() + "\n" + rates.text();
  for (const Speed& speed : findings.speeds)
    if (accounts && Findings::has_account(speed))
      text += concat("\nDecoding after ", speed.context, " tokens:\n", account_text(findings.account(speed)));
  return text;
}

// For programs: keys are part of what the command line promises.
std::string json_report(const Findings& findings) {
  const ModelInfo& info = findings.model->info();
  std::vector<Json> results;
  for (const Speed& speed : findings.speeds) {
    std::vector<Json> seconds;
    for (const double each : speed.seconds) seconds.push_back(json(each));
    const double share = findings.share(speed);
    results.push_back(Json::object(
        {{"kind", json(kind_name(speed))},
         {"tokens", json(speed.tokens)},
         {"context", json(speed.context)},
         {"sessions", json(speed.sessions)},
         {"seconds", Json::array(std::move(seconds))},
         {"tokens_per_second", json(speed.tokens_per_second())},
         {"share_of_machine", share > 0 ? json(share) : Json()},
         {"account", Findings::has_account(speed) ? account_json(findings.account(speed)) : Json()}}));
  }
  const Machine& machine = findings.model->runtime()->machine();
  return write_json(
             Json::object(
                 {{"model", Json::object({{"path", json(info.path)},
                                          {"architecture", json(info.architecture)},
                                          {"parameters", json(info.parameters)},
                                          {"backend", json(info.backend)},
                                          {"device", json_or_null(info.device)},
                                          {"numerics", json(numerics_name(info.numerics))},
                                          {"kv", json(kv_format_name(info.kv_format))}})},
                  {"machine",
                   Json::object({{"cpu", json(machine.cpu)},
                                 {"threads", json(findings.model->runtime()->pool().threads())},
                                 {"read_bytes_per_second", json(findings.machine.read_bytes_per_second)},
                                 {"dot_flops_per_second", json(findings.machine.dot_flops_per_second)}})},
                  {"load", Json::object({{"seconds", json(findings.load_seconds)},
                                         {"bytes", json(findings.stored_bytes)}})},
                  {"results", Json::array(std::move(results))}}),
             true) +
         "\n";
}

}  // namespace

int bench(const BenchFlags& flags) {
  const Interrupts interrupts;
  Findings findings;
  std::string advice;
  if (Status status = measure(flags, interrupts.cancel(), findings, advice); !status.ok())
    return fail(status, advice);
  const Status written = put(flags.json ? json_report(findings) : text_report(findings, flags.account));
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
