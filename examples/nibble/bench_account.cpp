#include "bench_account.hpp"

#include "numbers.hpp"
#include "report.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <cstdio>

namespace nib::program {

std::optional<double> TokenAccount::floor() const {
  double sum = 0;
  for (const Line& line : lines) {
    if (!line.floor) return {};
    sum += *line.floor;
  }
  return sum;
}
double TokenAccount::ops() const {
  double sum = 0;
  for (const Line& line : lines) sum += line.took;
  return sum;
}

TokenAccount account_of(const Speed& speed, std::span<const ExplainItem> explained, std::uint64_t cache_bytes,
                        double bytes_per_second, double phase_seconds) {
  TokenAccount account;
  account.token = *std::min_element(speed.seconds.begin(), speed.seconds.end()) / speed.tokens;
  for (std::size_t op = 0; op < kOpNames.size(); ++op) {
    const OpTimes::Entry& entry = speed.ops.of[op];
    const bool is_sampling = op == static_cast<std::size_t>(Op::sample);
    if (is_sampling && entry.calls == 0) continue;  // the processor does it, between passes
    TokenAccount::Line line{
        kOpNames[op], static_cast<double>(entry.phases) / speed.tokens, 0, {}, entry.seconds / speed.tokens};
    bool on_device = is_sampling;
    for (const ExplainItem& item : explained)
      if (item.op == line.op) {
        line.bytes += item.decode_bytes;
        on_device = on_device || item.device != "host";
      }
    if (line.op == "attention") line.bytes += cache_bytes;
    if (!on_device) line.floor = static_cast<double>(line.bytes) / bytes_per_second;
    account.phases += line.phases * phase_seconds;
    account.lines.push_back(line);
  }
  return account;
}

namespace {

// To the microsecond, so that a column adds up.
std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", 1e3 * seconds);
  return text;
}
std::string milliseconds(std::optional<double> seconds) { return seconds ? milliseconds(*seconds) : ""; }
std::string percent(std::optional<double> part, double whole) {
  return part && whole > 0 ? concat(number_text(100 * *part / whole), " %") : "";
}

}  // namespace

std::string account_text(const TokenAccount& account) {
  Table table("lrrrrr");
  table.row({"one token", "phases", "reads", "ms at best", "ms taken", "at best of taken"});
  double phases = 0;
  std::uint64_t bytes = 0;
  for (const TokenAccount::Line& line : account.lines) {
    table.row({std::string(line.op), number_text(line.phases), bytes_text(line.bytes),
               milliseconds(line.floor), milliseconds(line.took), percent(line.floor, line.took)});
    phases += line.phases;
    bytes += line.bytes;
  }
  table.row({"rest", "", "", "", milliseconds(account.token - account.ops()), ""});
  table.row({"all", number_text(phases), bytes_text(bytes), milliseconds(account.floor()),
             milliseconds(account.token), percent(account.floor(), account.token)});
  return table.text() + concat("Of this, meeting of threads takes ", milliseconds(account.phases),
                               " ms when they do nothing else.\n");
}

Json account_json(const TokenAccount& account) {
  std::vector<Json> lines;
  for (const TokenAccount::Line& line : account.lines)
    lines.push_back(Json::object({{"op", json(line.op)},
                                  {"phases", json(line.phases)},
                                  {"bytes", json(line.bytes)},
                                  {"floor_seconds", line.floor ? json(*line.floor) : Json()},
                                  {"seconds", json(line.took)}}));
  return Json::object({{"ops", Json::array(std::move(lines))},
                       {"seconds", json(account.token)},
                       {"phase_seconds", json(account.phases)}});
}

}  // namespace nib::program
