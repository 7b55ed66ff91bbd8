// nibble quantize: a model written anew: in another format, in the other container, or prepared.
#include "exit_code.hpp"
#include "interrupt.hpp"
#include "numbers.hpp"
#include "paths.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/machine.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/prepare.hpp>
#include <nibble/model/quantize.hpp>

#include <cmath>
#include <memory>
#include <string>
#include <string_view>

#include <regex.h>

namespace nib::program {
namespace {

constexpr std::size_t kMostNotes = 5;

// An extended regular expression of the system's library, which takes no longer for a longer name than the
// name is longer: it does not backtrack unless there are back references, and those are refused.
class NamePattern {
 public:
  static Result<std::shared_ptr<const NamePattern>> compile(const std::string& text) {
    for (std::size_t i = 0; i + 1 < text.size(); i += text[i] == '\\' ? 2 : 1)
      if (text[i] == '\\' && text[i + 1] >= '1' && text[i + 1] <= '9')
        return Status(Code::argument,
                      concat("--only ", text, ": has a back reference, which is not supported"));
    auto pattern = std::make_shared<NamePattern>();
    const int error = regcomp(&pattern->compiled_, text.c_str(), REG_EXTENDED | REG_NOSUB);
    if (error != 0) {
      char why[160];
      regerror(error, &pattern->compiled_, why, sizeof why);
      return Status(Code::argument, concat("--only ", text, ": is no regular expression: ", why));
    }
    pattern->good_ = true;
    return std::shared_ptr<const NamePattern>(std::move(pattern));
  }
  NamePattern() = default;
  NamePattern(const NamePattern&) = delete;
  NamePattern& operator=(const NamePattern&) = delete;
  ~NamePattern() {
    if (good_) regfree(&compiled_);
  }

  bool finds(std::string_view name) const {
    return regexec(&compiled_, std::string(name).c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t compiled_ = {};
  bool good_ = false;
};

Result<const TargetFormat*> find_format(const std::string& name) {
  if (const TargetFormat* format = find_target_format(name)) return format;
  std::string known;
  for (const TargetFormat& format : target_formats()) known += concat(known.empty() ? "" : ", ", format.name);
  return Status(Code::argument, concat("--format ", name, ": is none of ", known));
}

Result<QuantizeOptions> options_of(const QuantizeFlags& flags) {
  QuantizeOptions options;
  if (!flags.prepare) {
    NIB_ASSIGN(options.format, find_format(flags.format));
  }
  if (!flags.only.empty()) {
    NIB_ASSIGN(const std::shared_ptr<const NamePattern> pattern, NamePattern::compile(flags.only));
    options.only = [pattern](std::string_view name) { return pattern->finds(name); };
  }
  options.scale_rule = flags.scale_rule == "floor"         ? ScaleRule::floor
                       : flags.scale_rule == "round-up"    ? ScaleRule::round_up
                       : flags.scale_rule == "least-error" ? ScaleRule::least_error
                                                           : ScaleRule::usual;
  options.overwrite = flags.overwrite ? Overwrite::yes : Overwrite::no;
  return options;
}

std::string summary_text(const QuantizeFlags& flags, const QuantizeReport& report) {
  Table table("ll");
  table.row({"written", concat(flags.to, ", ", report.tensors, " tensors, ", report.quantized,
                               " of them quantized to ", flags.format)});
  table.row({"size", concat(bytes_text(report.bytes_after), ", before ", bytes_text(report.bytes_before))});
  if (report.quantized > 0) {
    const double bits = 8.0 * static_cast<double>(report.weight_bytes) / static_cast<double>(report.weights);
    std::string quality = concat(count_text(report.weights), " in ", number_text(bits), " bits each");
    if (report.noise > 0)
      quality +=
          concat(", ", number_text(10 * std::log10(report.signal / report.noise)), " dB signal to noise");
    else if (report.noise == 0)
      quality += ", nothing lost";
    table.row({"weights", quality});
  }
  return table.text();
}

void say_notes(const QuantizeReport& report) {
  for (std::size_t i = 0; i < report.notes.size() && i < kMostNotes; ++i)
    say(concat("nibble: ", report.notes[i], "\n"));
  if (report.notes.size() > kMostNotes)
    say(concat("nibble: and ", report.notes.size() - kMostNotes, " more of the kind\n"));
}

// What was written, as text.
using Written = Result<std::string>;

Written quantized(const Checkpoint& checkpoint, const QuantizeFlags& flags, const QuantizeOptions& options,
                  Pool& pool, ProgressLine& line) {
  auto report = quantize_checkpoint(checkpoint, flags.to, options, pool);
  line.clear();
  if (!report.ok()) return report.status();
  say_notes(*report);
  return summary_text(flags, *report);
}

Written prepared(const Checkpoint& checkpoint, const QuantizeFlags& flags, const QuantizeOptions& options,
                 Pool& pool, ProgressLine& line) {
  const PrepareOptions how{options.overwrite, options.progress, options.cancel};
  const auto report = prepare_checkpoint(checkpoint, flags.to, how, pool);
  line.clear();
  if (!report.ok()) return report.status();
  Table table("ll");
  table.row({"written", concat(flags.to, ", ", report->matrices, " matrices packed, ", report->others,
                               " tensors as they were")});
  table.row({"size", bytes_text(report->bytes)});
  return table.text();
}

}  // namespace

int quantize(const QuantizeFlags& flags) {
  const auto options = options_of(flags);
  if (!options.ok()) return fail(options.status(), "See nibble quantize --help.");
  const auto found = find_model(flags.from);
  if (!found.ok()) return fail(found.status(), advice_about(flags.from));
  const auto checkpoint = open_checkpoint(found->path);
  if (!checkpoint.ok()) return fail(checkpoint.status());
  auto pool = Pool::start(flags.threads > 0 ? flags.threads : this_machine().threads);
  if (!pool.ok()) return fail(pool.status());

  const Interrupts interrupts;
  ProgressLine line;
  QuantizeOptions with = *options;
  with.progress = line.sink();
  with.cancel = interrupts.cancel();
  const Written text = (flags.prepare ? prepared : quantized)(*checkpoint, flags, with, **pool, line);
  if (!text.ok())
    return fail(text.status(), text.status().message().find("overwriting was not") == std::string::npos
                                   ? ""
                                   : "--overwrite replaces it.");
  const Status written = put(*text);
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
