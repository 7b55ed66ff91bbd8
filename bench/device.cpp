// Models of published shapes on a device, with random weights that no disk holds, beside what the device can
// do: bench_device [options], --help lists them. JSON on stdout, or a table.
//
// Decoding one token reads every active weight and the keys and values behind it; the floor is the time in
// which the device reads as many bytes. Tokens are random: experts are chosen as evenly as in the worst case.
#include "random_checkpoint.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/kernels/device.hpp>
#include <nibble/runtime/session.hpp>
#include <nibble/runtime/speed.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace {

using namespace nib;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string library, shape = "20b", floors, json_file, markdown;
  int device = 0, threads = 0;
  bool may_be_fast = false;
  std::uint32_t layers = 0, rounds = 2, decode = 32, expert_percent = 100;
  std::vector<std::uint32_t> contexts{0, 8192}, batches{1, 8, 64}, prompts{512, 2048};
};

void expect(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "bench_device: %s\n", status.message().c_str());
  std::exit(1);
}
template <class T>
T expect(Result<T> result) {
  expect(result.status());
  return std::move(result).take();
}

Json json(std::integral auto number) { return Json::of(static_cast<std::int64_t>(number)); }
Json json(double number) { return Json::of(number); }
Json json(std::string_view text) { return Json::of(std::string(text)); }

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What bench_device_floors has measured; zero for what is not known.
struct Floors {
  double read = 0, launch = 0, join = 0, flops = 0, warpgroup_flops = 0;

  static Floors of(const std::string& path) {
    Floors floors;
    if (path.empty()) return floors;
    std::ifstream file(path);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const Result<Json> read = parse_json(text, path);
    if (!read.ok()) {  // a device without floors still has its own speeds
      std::fprintf(stderr, "bench_device: no ceilings: %s\n", read.status().message().c_str());
      return floors;
    }
    const Json& json = *read;
    const auto number = [&](const char* key) {
      const Json* value = json.find(key);
      return value && value->is_number() ? value->as_double() : 0.0;
    };
    return {number("read_bytes_per_second"), number("launch_seconds"), number("join_seconds"),
            number("tensor_flops_per_second"), number("warpgroup_flops_per_second")};
  }
};

struct Measured {
  std::shared_ptr<Model> model;
  Plan plan;
  double load_seconds = 0;
  std::uint64_t device_bytes = 0;  // that opening took of the device's memory
  std::vector<Speed> speeds;
};

bench::GptOssShape shape_of(const Options& options) {
  bench::GptOssShape shape = options.shape == "120b"  ? bench::kGptOss120b
                             : options.shape == "20b" ? bench::kGptOss20b
                                                      : bench::GptOssShape{.layers = 2,
                                                                           .vocabulary = 1024,
                                                                           .hidden = 256,
                                                                           .experts = 8,
                                                                           .expert_width = 256,
                                                                           .heads = 8,
                                                                           .kv_heads = 2};
  if (options.layers) shape.layers = options.layers;
  return shape;
}

// A cache for so many of a hundred experts.
std::uint64_t expert_cache(const Options& options, const Plan& all) {
  if (options.expert_percent >= 100) return 0;
  std::uint64_t bytes = 0;
  for (const PlanItem& item : all.items)
    if (item.device != "host" && item.name.starts_with("experts")) bytes += item.bytes;
  return bytes / 100 * options.expert_percent + 2048 * shape_of(options).layers;  // and tables
}

// begun: hears of the model when it is open; found: of each speed. Whoever ends the program in between has
// what was found before.
Measured measure(const Options& options, const std::function<void(const Measured&)>& begun,
                 const std::function<void(const Measured&, const Speed&)>& found) {
  const auto files = bench::random_gpt_oss_files(shape_of(options));
  const auto runtime = expect(Runtime::create({.threads = options.threads, .cuda_library = options.library}));
  Measured measured;
  std::vector<SpeedOptions> speeds;
  for (const std::uint32_t prompt : options.prompts)
    speeds.push_back(
        {.contexts = {0}, .batches = {1}, .prompt = prompt, .decode = 0, .rounds = options.rounds});
  for (const std::uint32_t context : options.contexts)
    for (const std::uint32_t batch : options.batches)
      if (context == 0 || batch == 1)  // caches of many long sessions need memory of their own
        speeds.push_back({.contexts = {context},
                          .batches = {batch},
                          .prompt = 0,
                          .decode = options.decode,
                          .rounds = options.rounds});
  std::uint32_t positions = 1, sessions = 1;
  for (const SpeedOptions& speed : speeds) {
    positions = std::max(positions, speed.positions());
    sessions = std::max(sessions, speed.sessions());
  }
  // One long session, or many short ones.
  const bool long_ones = positions > 4096;
  ModelOptions model;
  model.device_layers = UINT32_MAX;
  model.device = options.device;
  model.prefill_rows = 2048;
  model.may_be_fast = options.may_be_fast;
  model.files = files.get();
  model.expert_cache_bytes = expert_cache(options, expect(make_plan(*runtime, "random", model)));
  measured.plan =
      expect(make_plan(*runtime, "random", model, {.context = positions}, long_ones ? 1 : sessions));
  const std::uint64_t free_before = expect(expect(runtime->open_device(options.device))->free_memory());
  const auto start = Clock::now();
  measured.model = expect(Model::open(runtime, measured.plan));
  measured.load_seconds = seconds_since(start);
  const std::uint64_t free_after = expect(expect(runtime->open_device(options.device))->free_memory());
  measured.device_bytes = free_before - free_after;
  begun(measured);
  for (const SpeedOptions& speed : speeds) {
    if (long_ones && speed.sessions() > 1) continue;
    for (Speed& one : expect(measure_speed(measured.model, speed))) {
      found(measured, one);
      measured.speeds.push_back(std::move(one));
    }
  }
  return measured;
}

double kv_bytes(const Measured& measured, const Speed& speed) {
  return static_cast<double>(measured.plan.summary.kv_bytes_per_token) * speed.context;
}

bool is_fast(const Measured& measured) {
  return std::ranges::any_of(measured.model->explain(),
                             [](const ExplainItem& item) { return item.kernel == KernelKind::wgmma; });
}

// Tokens per second at the floor of one session's decode, or of a prefill; 0 where it is not known.
double ceiling(const Measured& measured, const Floors& floors, const Speed& speed) {
  const PlanSummary& summary = measured.plan.summary;
  if (speed.kind == Speed::Kind::prefill)
    return (is_fast(measured) ? floors.warpgroup_flops : floors.flops) /
           static_cast<double>(summary.prefill_flops);
  if (speed.sessions > 1) return 0;
  return floors.read / (static_cast<double>(summary.decode_bytes) + kv_bytes(measured, speed));
}

std::string json_of(const Options& options, const Measured& measured, const Floors& floors) {
  std::vector<Json> results;
  for (const Speed& speed : measured.speeds) {
    std::vector<std::pair<std::string, Json>> ops;
    for (std::size_t op = 0; op < kOpNames.size(); ++op)
      ops.emplace_back(kOpNames[op], json(speed.ops.of[op].seconds));
    const double at_best = ceiling(measured, floors, speed);
    results.push_back(Json::object({{"kind", json(speed.kind == Speed::Kind::prefill ? "prefill" : "decode")},
                                    {"tokens", json(speed.tokens)},
                                    {"context", json(speed.context)},
                                    {"sessions", json(speed.sessions)},
                                    {"tokens_per_second", json(speed.tokens_per_second())},
                                    {"ceiling", at_best > 0 ? json(at_best) : Json()},
                                    {"op_seconds", Json::object(std::move(ops))}}));
  }
  const PlanSummary& summary = measured.plan.summary;
  return write_json(Json::object({{"shape", json(options.shape)},
                                  {"expert_percent", json(options.expert_percent)},
                                  {"fast", Json::of(is_fast(measured))},
                                  {"device", json(measured.model->info().device)},
                                  {"parameters", json(summary.parameters)},
                                  {"decode_bytes", json(summary.decode_bytes)},
                                  {"planned_device_bytes", json(summary.device_bytes)},
                                  {"taken_device_bytes", json(measured.device_bytes)},
                                  {"load_seconds", json(measured.load_seconds)},
                                  {"stored_bytes", json(summary.stored_bytes)},
                                  {"results", Json::array(std::move(results))}}),
                    true) +
         "\n";
}

// For docs and people: what stands above the table, and a row of it.
std::string heading_of(const Options& options, const Measured& measured) {
  const PlanSummary& summary = measured.plan.summary;
  const auto giga = [](double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", value * 1e-9);
    return std::string(text);
  };
  return concat("### gpt-oss-", options.shape, " shape, random weights, ",
                options.expert_percent < 100
                    ? concat("a cache of ", options.expert_percent, " % of the experts, ")
                    : std::string(),
                is_fast(measured) ? "the fast class, " : "", measured.model->info().device, "\n\n",
                giga(static_cast<double>(summary.parameters)), " G parameters; planned ",
                giga(static_cast<double>(summary.device_bytes)), " GB of the device, taken ",
                giga(static_cast<double>(measured.device_bytes)), " GB; loaded in ",
                static_cast<std::uint64_t>(measured.load_seconds + 0.5),
                " s.\n\n| | tokens | context | sessions | tokens/s | ceiling | share |\n",
                "|---|---|---|---|---|---|---|\n");
}
std::string row_of(const Measured& measured, const Floors& floors, const Speed& speed) {
  const double rate = speed.tokens_per_second(), at_best = ceiling(measured, floors, speed);
  char row[160];
  std::snprintf(row, sizeof row, "| %s | %u | %u | %u | %.0f | %s | %s |\n",
                speed.kind == Speed::Kind::prefill ? "prefill" : "decode", speed.tokens, speed.context,
                speed.sessions, rate, at_best > 0 ? std::to_string(static_cast<long>(at_best)).c_str() : "",
                at_best > 0 ? concat(static_cast<int>(100 * rate / at_best + 0.5), " %").c_str() : "");
  return row;
}

bool add_to(const std::string& path, const std::string& text) {
  if (path.empty()) return std::fputs(text.c_str(), stdout) >= 0;
  std::ofstream file(path, std::ios::app);
  file << text;
  return static_cast<bool>(file.flush());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Random models of published shapes on a device: load, prefill, decode, each beside its ceiling.");
  Options options;
  app.add_option("--cuda-library", options.library, "libnibble-cuda.so, or its folder");
  app.add_option("--device", options.device, "which device");
  app.add_option("--shape", options.shape, "20b, 120b, or tiny for a look at the bench itself")
      ->check(CLI::IsMember({"20b", "120b", "tiny"}));
  app.add_option("--expert-percent", options.expert_percent, "of a hundred experts, slots for so many")
      ->check(CLI::Range(1, 100));
  app.add_flag("--fast", options.may_be_fast, "prompts in the fast class, where the device can");
  app.add_option("--layers", options.layers, "layers in place of the model's");
  app.add_option("--floors", options.floors, "what bench_device_floors has printed");
  app.add_option("--json", options.json_file, "a file to which the results are added (default: stdout)");
  app.add_option("--markdown", options.markdown, "a file to which a table is added (default: stdout)");
  app.add_option("--contexts", options.contexts, "tokens that decoding finds before it")->delimiter(',');
  app.add_option("--batches", options.batches, "sessions that decode together")->delimiter(',');
  app.add_option("--prompts", options.prompts, "lengths of prompts")->delimiter(',');
  app.add_option("--decode", options.decode, "tokens to decode");
  app.add_option("--rounds", options.rounds, "the best of so many");
  app.add_option("-t,--threads", options.threads, "threads for loading");
  CLI11_PARSE(app, argc, argv);
  const Floors floors = Floors::of(options.floors);
  bool done = true;
  const auto add_text = [&](const std::string& text) { done = add_to(options.markdown, text) && done; };
  const Measured measured = measure(
      options, [&](const Measured& begun) { add_text(heading_of(options, begun)); },
      [&](const Measured& so_far, const Speed& found) { add_text(row_of(so_far, floors, found)); });
  add_text("\n");
  done = add_to(options.json_file, json_of(options, measured, floors)) && done;
  return done ? 0 : 1;
}
