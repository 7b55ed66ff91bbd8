// nibble doctor: what this computer is, what it measures, and what models it can hold.
#include "exit_code.hpp"
#include "memory_limit.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "paths.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include "version.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/runtime/devices.hpp>
#include <nibble/runtime/measure.hpp>
#include <nibble/runtime/plan.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <optional>
#include <sstream>

namespace nib::program {
namespace {

constexpr double kSecondsEach = 0.35;
constexpr std::uint32_t kContext = 4096;  // positions counted for every model of the table

// Instruction sets worth knowing about here, as /proc/cpuinfo spells them.
constexpr std::array kInstructionSets = {
    "avx2",        "fma",         "f16c",     "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq",
    "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd",    "asimddp", "i8mm",     "bf16",     "sve"};

std::vector<std::string> instruction_sets() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::vector<std::string> present;
    for (std::string word; words >> word;)
      if (std::find(kInstructionSets.begin(), kInstructionSets.end(), word) != kInstructionSets.end())
        present.push_back(word);
    return present;
  }
  return {};
}

// A model as far as memory and bandwidth know it.
struct Known {
  std::string name;
  std::uint64_t bytes;         // weights, and the keys and values of kContext positions
  std::uint64_t decode_bytes;  // weights read for one token
};

// gpt-oss as published: every second layer keeps all positions, the others their window and what is in
// flight.
Known gpt_oss(const char* name, std::uint64_t weights, std::uint64_t decode_bytes, std::uint64_t layers) {
  constexpr std::uint64_t kBytesPerPosition = 2048, kWindow = 128, kInFlight = 256;
  return {name, weights + layers / 2 * kBytesPerPosition * (kContext + kWindow + kInFlight), decode_bytes};
}

// Any model that reads all its weights for each token, at four bits and a half.
Known dense(const char* name, double parameters) {
  const auto bytes = static_cast<std::uint64_t>(parameters * 4.5 / 8);
  return {name, bytes, bytes};
}

std::vector<Known> known_models(const Runtime& runtime) {
  std::vector<Known> models;
  if (const auto shipped = find_model(""); shipped.ok())
    if (const auto plan = make_plan(runtime, shipped.value().path, {}, {.context = kContext}); plan.ok())
      models.push_back({"tales", plan.value().summary.host_bytes, plan.value().summary.decode_bytes});
  models.push_back(gpt_oss("gpt-oss-20b", 13'761'264'768, 3'708'000'000, 24));
  models.push_back(gpt_oss("gpt-oss-120b", 65'248'815'744, 5'003'000'000, 36));
  models.push_back(dense("dense, 8 B", 8e9));
  models.push_back(dense("dense, 32 B", 32e9));
  models.push_back(dense("dense, 70 B", 70e9));
  return models;
}

struct Measured {
  double read_bytes_per_second = 0;
  double bf16_flops_per_second = 0, f32_flops_per_second = 0, int8_flops_per_second = 0;
};

Result<Measured> measure(const Runtime& runtime) {
  Measured measured;
  measured.read_bytes_per_second = measured_bandwidth(runtime, kSecondsEach, std::uint64_t{1} << 30);
  NIB_ASSIGN(const Backend* backend, runtime.backend(""));
  ProgressLine progress;
  progress.show("measuring how fast this processor multiplies ...");
  measured.bf16_flops_per_second = measure_dot_rate(runtime, *backend, Numerics::bf16, kSecondsEach);
  measured.f32_flops_per_second = measure_dot_rate(runtime, *backend, Numerics::f32, kSecondsEach);
  measured.int8_flops_per_second = measure_dot_rate(runtime, *backend, Numerics::int8, kSecondsEach);
  return measured;
}

struct Findings {
  std::shared_ptr<Runtime> runtime;
  std::vector<std::string> instruction_sets;
  MemoryLimits limits;
  DeviceSearch cuda;
  std::uint64_t usable = 0;
  Measured measured;
  std::vector<Known> models;

  bool fits(const Known& model) const { return model.bytes <= usable; }
  double tokens_per_second(const Known& model) const {
    return measured.read_bytes_per_second / static_cast<double>(model.decode_bytes);
  }
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += concat(text.empty() ? "" : " ", word);
  return text;
}

void add_devices(const DeviceSearch& cuda, Table& table) {
  if (!cuda.status.ok()) return table.row({"CUDA", concat("not used: ", cuda.status.message())});
  const char* title = "CUDA";
  for (const DeviceInfo& device : cuda.devices) {
    table.row({title, concat(device.name, ", compute capability ", device.compute_major, ".",
                             device.compute_minor, ", ", bytes_text(device.memory))});
    title = "";
  }
  table.row({"", "used where a model is run with -ngl N"});
}

Json json_of(const DeviceSearch& cuda) {
  std::vector<Json> devices;
  for (const DeviceInfo& device : cuda.devices)
    devices.push_back(Json::object({{"name", json(device.name)},
                                    {"compute_major", json(device.compute_major)},
                                    {"compute_minor", json(device.compute_minor)},
                                    {"processors", json(device.processors)},
                                    {"memory", json(device.memory)}}));
  return Json::object({{"library", json(cuda.library)},
                       {"missing", cuda.status.ok() ? Json() : json(cuda.status.message())},
                       {"devices", Json::array(std::move(devices))}});
}

std::string text_report(const Findings& findings) {
  const Machine& machine = findings.runtime->machine();
  const int threads = findings.runtime->pool().threads();
  Table table("ll");
  table.row({"processor",
             concat(machine.cpu, ", ", machine.threads, machine.threads == 1 ? " thread" : " threads")});
  if (!findings.instruction_sets.empty()) table.row({"", joined(findings.instruction_sets)});
  if (machine.l2_cache || machine.l3_cache)
    table.row({"caches", concat("L2 ", bytes_text(machine.l2_cache), " a core, L3 ",
                                bytes_text(machine.l3_cache), " a group of cores")});
  table.row(
      {"memory", concat(bytes_text(machine.memory), ", ", bytes_text(findings.usable), " may be used now")});
  if (findings.limits.container)
    table.row({"", concat("this container is limited to ", bytes_text(*findings.limits.container))});
  const char* title = "backends";
  bool best = true;
  for (const BackendInfo& backend : findings.runtime->backends()) {
    table.row({title, backend.present ? concat(backend.name, best ? " (used)" : "")
                                      : concat(backend.name, ": this processor lacks ", backend.missing)});
    best = best && !backend.present;
    title = "";
  }
  add_devices(findings.cuda, table);
  const Measured& measured = findings.measured;
  table.row({"measured", concat("reads memory at ", byte_rate_text(measured.read_bytes_per_second), ", ",
                                threads, threads == 1 ? " thread" : " threads")});
  table.row({"", concat("multiplies at ", flop_rate_text(measured.bf16_flops_per_second), " in bf16, ",
                        flop_rate_text(measured.f32_flops_per_second), " in f32, ",
                        flop_rate_text(measured.int8_flops_per_second), " in int8")});
  Table models("lrlr");
  models.row({"model", "memory", "fits", "tokens/s at best"});
  for (const Known& model : findings.models)
    models.row({model.name, bytes_text(model.bytes), findings.fits(model) ? "yes" : "no",
                number_text(findings.tokens_per_second(model))});
  return concat(table.text(), "\n", models.text(), "\n", "Memory: weights, and a context of ", kContext,
                " tokens. At best: reading the weights of one token\n",
                "after the other at the measured rate. Dense models: 4.5 bits a weight, for comparison.\n");
}

std::string json_report(const Findings& findings) {
  const Machine& machine = findings.runtime->machine();
  std::vector<Json> sets, backends, models;
  for (const std::string& name : findings.instruction_sets) sets.push_back(json(name));
  for (const BackendInfo& backend : findings.runtime->backends())
    backends.push_back(Json::object({{"name", json(backend.name)},
                                     {"present", json(backend.present)},
                                     {"missing", backend.present ? Json() : json(backend.missing)}}));
  for (const Known& model : findings.models)
    models.push_back(Json::object({{"name", json(model.name)},
                                   {"bytes", json(model.bytes)},
                                   {"decode_bytes", json(model.decode_bytes)},
                                   {"fits", json(findings.fits(model))},
                                   {"decode_tokens_per_second", json(findings.tokens_per_second(model))}}));
  const auto bytes = [](const std::optional<std::uint64_t>& value) { return value ? json(*value) : Json(); };
  const Json report = Json::object(
      {{"version", json(version_number())},
       {"processor", Json::object({{"name", json(machine.cpu)},
                                   {"threads", json(machine.threads)},
                                   {"instruction_sets", Json::array(std::move(sets))},
                                   {"l2_cache", json(machine.l2_cache)},
                                   {"l3_cache", json(machine.l3_cache)}})},
       {"memory", Json::object({{"total", json(machine.memory)},
                                {"available", bytes(findings.limits.available)},
                                {"container", bytes(findings.limits.container)},
                                {"usable", json(findings.usable)}})},
       {"backends", Json::array(std::move(backends))},
       {"cuda", json_of(findings.cuda)},
       {"measured", Json::object({{"threads", json(findings.runtime->pool().threads())},
                                  {"read_bytes_per_second", json(findings.measured.read_bytes_per_second)},
                                  {"bf16_flops_per_second", json(findings.measured.bf16_flops_per_second)},
                                  {"f32_flops_per_second", json(findings.measured.f32_flops_per_second)},
                                  {"int8_flops_per_second", json(findings.measured.int8_flops_per_second)}})},
       {"models", Json::array(std::move(models))}});
  return write_json(report, true) + "\n";
}

}  // namespace

int doctor(const DoctorFlags& flags) {
  Findings findings;
  auto runtime = Runtime::create({.threads = flags.threads});
  if (!runtime.ok()) return fail(runtime.status());
  findings.runtime = runtime.take();
  findings.instruction_sets = instruction_sets();
  findings.cuda = find_cuda_devices(cuda_library(flags.cuda_library));
  findings.limits = read_memory_limits();
  findings.usable = findings.limits.usable().value_or(findings.runtime->machine().memory);
  auto measured = measure(*findings.runtime);
  if (!measured.ok()) return fail(measured.status());
  findings.measured = measured.take();
  findings.models = known_models(*findings.runtime);
  const Status written = put(flags.json ? json_report(findings) : text_report(findings));
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
