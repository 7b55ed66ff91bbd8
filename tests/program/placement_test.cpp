// -ngl and its like: what is planned for a device, and why a model cannot be opened on one.
//
// The fake device opens models and computes nothing; the emulated one does.
#include "model/quantize_rig.hpp"
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr int kLayers = 6;  // of the shipped model

Json plan(std::vector<std::string> arguments, const Environment& environment = {}) {
  arguments.insert(arguments.begin(), {"plan", "--json", "--memory", "1G"});
  const Finished run = call({.arguments = std::move(arguments), .environment = environment});
  CHECK_MESSAGE(run.code == 0, run.err);
  auto json = parse_json(run.out, "stdout");
  REQUIRE_MESSAGE(json.ok(), json.status().message());
  return json.take();
}

std::int64_t integer(const Json& json, const char* key) { return json.find(key)->as_integer(); }

// Bytes by place, of items that have `part` in their name.
std::map<std::string, std::int64_t> by_place(const Json& plan, const std::string& part = "") {
  std::map<std::string, std::int64_t> bytes;
  for (const Json& item : plan.find("items")->items())
    if (item.find("name")->as_string().find(part) != std::string::npos)
      bytes[item.find("device")->as_string()] += integer(item, "bytes");
  return bytes;
}

TEST_CASE("plan -ngl: the items of both places add up") {
  std::int64_t before = 0;
  for (const std::string layers : {"0", "2", "6", "7", "99", "all"}) {
    CAPTURE(layers);
    const Json json = plan({"-ngl", layers});
    auto bytes = by_place(json);
    CHECK(bytes["host"] == integer(json, "bytes"));
    CHECK(bytes["cuda:0"] == integer(json, "device_bytes"));
    CHECK((integer(json, "device_bytes") > 0) == (layers != "0"));
    CHECK(json.find("device_budget")->is_null());
    CHECK(json.find("fits")->as_bool());
    CHECK(json.find("predicted")->find("decode_tokens_per_second")->is_null() == (layers != "0"));
    const auto head = by_place(json, "head");
    CHECK(head.contains("cuda:0") == (layers == "7" || layers == "99" || layers == "all"));
    CHECK(by_place(json, "embedding").count("cuda:0") == 0);
    if (layers != "99" && layers != "all") CHECK((integer(json, "device_bytes") > before || layers == "0"));
    before = integer(json, "device_bytes");
  }
  CHECK(integer(plan({"-ngl", "7"}), "device_bytes") ==
        integer(plan({"--gpu-layers", "all"}), "device_bytes"));
  CHECK(integer(plan({}, {{"NIBBLE_GPU_LAYERS", "2"}}), "device_bytes") ==
        integer(plan({"-ngl", "2"}), "device_bytes"));
}

TEST_CASE("plan -ngl: layers lie where they are computed, with --cpu-moe all but their experts") {
  const auto stored = by_place(plan({}), "experts").at("host");
  auto two = by_place(plan({"-ngl", "2"}), "experts");
  CHECK(two["host"] == stored / kLayers * (kLayers - 2));
  CHECK(two["cuda:0"] > 0);
  const Json apart = plan({"-ngl", "all", "--cpu-moe", "--device", "3"});
  CHECK(by_place(apart, "experts") == std::map<std::string, std::int64_t>{{"host", stored}});
  CHECK(by_place(apart, "attention").count("host") == 0);
  CHECK(by_place(apart, "attention").count("cuda:3") == 1);
  CHECK(by_place(apart, "keys and values").count("host") == 0);
}

TEST_CASE("plan -ngl: both budgets count, and so they are told") {
  const std::int64_t needs = integer(plan({"-ngl", "2"}), "device_bytes");
  const auto limited = [](std::int64_t bytes) {
    return plan({"-ngl", "2", "--device-memory", std::to_string(bytes)});
  };
  const Json enough = limited(needs);
  CHECK(enough.find("fits")->as_bool());
  CHECK(integer(enough, "device_budget") == needs);
  CHECK(integer(enough, "longest_context") >= integer(enough, "context"));
  const Json short_of = limited(needs - 1);
  CHECK_FALSE(short_of.find("fits")->as_bool());
  CHECK(integer(short_of, "longest_context") < integer(short_of, "context"));

  const std::string text = nibble({"plan", "-ngl", "2", "--device-memory", "1M"}).out;
  for (const char* word : {"host", "cuda:0", "Does not fit", "1.00 MiB on cuda:0", "not predicted"}) {
    CAPTURE(word);
    CHECK(text.find(word) != std::string::npos);
  }
  const std::string open_end = nibble({"inspect", "-ngl", "2"}).out;
  CHECK(open_end.find("--device-memory") != std::string::npos);
  CHECK(nibble({"plan"}).out.find("cuda") == std::string::npos);
}

struct Refusal {
  int code;
  std::vector<std::string> arguments;
  std::vector<const char*> says;
};

TEST_CASE("a placement that cannot be: exit codes, each with a sentence that names the thing") {
  const std::vector<Refusal> refusals = {
      {2, {"run", "-ngl", "some"}, {"--gpu-layers", "\"some\""}},
      {2, {"run", "-ngl", "-1"}, {"--gpu-layers", "\"-1\""}},
      {2, {"run", "--device", "-1"}, {"--device"}},
      {2, {"run", "--device-memory", "much"}, {"--device-memory", "\"much\""}},
      {3,
       {"run", "-ngl", "99", "--cuda-library", "/no/such/library.so"},
       {"tales: ", "no CUDA library: /no/such/library.so", "nibble doctor", "-ngl"}},
      {3,
       {"run", "-ngl", "1", "--cuda-library", NIBBLE_FAKE_full, "--device", "2"},
       {"no device 2", "this computer has 2"}},
      {1, {"run", "-ngl", "1", "--cuda-library", NIBBLE_FAKE_version}, {"belongs to nibble 12.345.678"}},
      {5,
       {"run", "-ngl", "all", "--cuda-library", NIBBLE_FAKE_full},
       {"Fake 9000", "1000 are free", "--cpu-moe"}},
      {5,
       {"bench", "-ngl", "2", "--device-memory", "1M"},
       {"of the memory of cuda:0", "1.00 MiB", "--cpu-moe"}},
      {5, {"run", "-ngl", "2", "--memory", "1M"}, {"of memory", "1.00 MiB"}},
      {6, {"run", "-ngl", "1", "--cuda-library", NIBBLE_FAKE_absent}, {"there is no NVIDIA driver"}},
      {6, {"run", "-ngl", "1", "--numerics", "f32"}, {"f32 numerics"}},
      {6, {"plan", "-ngl", "1", "--numerics", "int8"}, {"int8 numerics"}},
      {6, {"explain", "-ngl", "1", "--numerics", "int8", "--allow-fallback"}, {"int8 numerics"}},
  };
  for (const Refusal& refusal : refusals) {
    std::string words;
    for (const std::string& word : refusal.arguments) words += word + " ";
    CAPTURE(words);
    const Finished run = nibble(refusal.arguments);
    CAPTURE(run.err);
    CHECK(run.code == refusal.code);
    CHECK(run.out.empty());
    CHECK(run.err.starts_with("nibble: "));
    for (const char* part : refusal.says) {
      CAPTURE(part);
      CHECK(run.err.find(part) != std::string::npos);
    }
    CHECK(run.err.find("--allow-fallback") == std::string::npos);
  }
}

// Rows that a device has no kernel for are refused where they lie, by name; elsewhere they do no harm.
TEST_CASE("a format that a device cannot multiply") {
  const Folder folder;
  const std::string model = (folder.path() / "q3.gguf").string();
  REQUIRE(nibble({"quantize", NIBBLE_TALES, model, "--format", "q8_0"}).code == 0);
  // One matrix of layer 0 calls itself q3_K: fewer bytes than it has, so that it opens.
  std::string bytes = read_text(model);
  const std::string name = "blk.0.attn_output.weight";
  const std::size_t at = bytes.find(name);
  REQUIRE(at != std::string::npos);
  bytes.replace(at + name.size() + 4 + 2 * 8, 4, std::string("\x0b\0\0\0", 4));
  folder.write("q3.gguf", bytes);
  const Finished refused = nibble({"plan", "-m", model, "-ngl", "6"});
  CHECK(refused.code == 6);
  for (const char* part : {"blk.0.attn_output.weight", "q3_K", "device"}) {
    CAPTURE(part);
    CHECK(refused.err.find(part) != std::string::npos);
  }
  CHECK(nibble({"plan", "-m", model, "-ngl", "5"}).code == 0);
  CHECK(nibble({"plan", "-m", model, "-ngl", "6", "--cpu-moe"}).code == 6);
}

TEST_CASE("gate and up in different formats stay with the processor") {
  const Folder folder;
  write_llama(folder.path(), {}, random_llama({}, 1));  // of two layers
  const std::string mixed = (folder.path() / "mixed.gguf").string();
  REQUIRE(
      nibble({"quantize", folder.path().string(), mixed, "--format", "q8_0", "--only", "layers.1.*up_proj"})
          .code == 0);
  const Finished refused = nibble({"plan", "-m", mixed, "-ngl", "1"});
  CHECK(refused.code == 6);
  for (const char* part : {"blk.1.ffn_gate.weight", "blk.1.ffn_up.weight", "different formats"}) {
    CAPTURE(part);
    CHECK_MESSAGE(refused.err.find(part) != std::string::npos, refused.err);
  }
  CHECK(nibble({"plan", "-m", mixed, "-ngl", "1", "--cpu-moe"}).code == 0);
}

TEST_CASE("no layers for the device: no library is looked for") {
  const Finished run = nibble({"run", "-n", "5", "--temp", "0", "--cpu-moe", "--device", "7",
                               "--device-memory", "1K", "--cuda-library", "/no/such/library.so"});
  CHECK_MESSAGE(run.code == 0, run.err);
  CHECK_FALSE(run.out.empty());
}

TEST_CASE("every verb that opens a model takes a placement") {
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"run"}, {"chat"}, {"explain"}, {"bench"}, {"perplexity", "-f", "-"}}) {
    CAPTURE(verb.front());
    std::vector<std::string> arguments = verb;
    arguments.insert(arguments.end(), {"-ngl", "1", "--cuda-library", NIBBLE_FAKE_absent});
    const Finished run = nibble(arguments, "Once upon a time");
    CHECK(run.code == 6);
    CHECK(run.err.find("there is no NVIDIA driver") != std::string::npos);
  }
}

// ---- opened on a device

Json told(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--json", "--cuda-library", NIBBLE_FAKE_idle});
  const Finished run = nibble(arguments);
  CHECK_MESSAGE(run.code == 0, run.err);
  return parse_json(run.out, "stdout").take();
}

TEST_CASE("--expert-cache: what plan and explain say of it") {
  const std::int64_t all = by_place(plan({"-ngl", "all"}), "experts")["cuda:0"];
  const std::string half = std::to_string(all / 2);
  const Json json = plan({"-ngl", "all", "--expert-cache", half});
  CHECK(by_place(json, "slots")["cuda:0"] <= all / 2);
  CHECK(by_place(json, "slots")["cuda:0"] > all / 3);
  CHECK(by_place(json, "page-locked")["host"] == all);
  const Finished text =
      nibble({"explain", "-ngl", "all", "--expert-cache", half, "--cuda-library", NIBBLE_FAKE_idle});
  CHECK(text.out.find("Experts take turns in 7 slots of each layer") != std::string::npos);
  CHECK(text.out.find("page-locked") != std::string::npos);
  for (const Json& item : told({"explain", "-ngl", "all", "--expert-cache", half}).find("items")->items()) {
    const bool has_slots = item.find("op")->as_string() == "experts" &&
                           item.find("name")->as_string().find("bias") == std::string::npos;
    CHECK(integer(item, "slots") == (has_slots ? 7 : 0));
    CHECK((integer(item, "locked_bytes") > 0) == has_slots);
  }
  const Finished small = nibble({"plan", "-ngl", "all", "--expert-cache", "1K"});
  CHECK(small.code == 5);
  CHECK(small.err.find("the smallest that does") != std::string::npos);
  CHECK(nibble({"plan", "--expert-cache", "1M"}).code == 2);
}

TEST_CASE("--fast: explain says which matrices that is about, and whether the device does it") {
  const auto kernels = [](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"explain"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::map<std::string, std::set<std::string>> of_op;
    const Json json = told(arguments);
    for (const Json& item : json.find("items")->items())
      of_op[item.find("op")->as_string()].insert(item.find("kernel")->as_string());
    return of_op;
  };
  auto fast = kernels({"-ngl", "all", "--fast"});
  for (const char* op : {"qkv", "project", "experts"}) CHECK(fast[op].contains("wgmma"));
  for (const char* op : {"route", "head"}) CHECK(fast[op].contains("tiles"));
  for (const auto& [op, names] : fast) CHECK(!(names.contains("wgmma") && names.contains("tiles")));
  CHECK(kernels({"-ngl", "all", "--fast", "--device", "1"}) == kernels({"-ngl", "all", "--device", "1"}));
  CHECK(kernels({"--fast"}) == kernels({}));
  const auto text = [](const char* device) {
    return nibble(
               {"explain", "-ngl", "all", "--fast", "--device", device, "--cuda-library", NIBBLE_FAKE_idle})
        .out;
  };
  CHECK(text("0").find("In passes of 64 rows or more, wgmma") != std::string::npos);
  CHECK(text("1").find("Nothing is faster with --fast") != std::string::npos);
}

TEST_CASE("explain names the device of every tensor") {
  const Json json = told({"explain", "-ngl", "2", "--cpu-moe", "--device", "1"});
  CHECK(json.find("device")->as_string() == "Fake 7500");
  int there = 0;
  for (const Json& item : json.find("items")->items()) {
    const std::string& name = item.find("name")->as_string();
    CAPTURE(name);
    const std::string& op = item.find("op")->as_string();
    if (item.find("purpose")->as_string() != "weights") continue;
    const bool last =
        name.find("layers.4.") != std::string::npos || name.find("layers.5.") != std::string::npos;
    const bool expected = last && op != "route" && op != "experts";
    CHECK(item.find("device")->as_string() == (expected ? "cuda:1" : "host"));
    CHECK((item.find("instruction_set")->as_string() == "cuda") == expected);
    there += expected;
  }
  CHECK(there > 4);
  CHECK(told({"explain"}).find("device")->is_null());

  const Finished text = nibble({"explain", "-ngl", "2", "--cuda-library", NIBBLE_FAKE_idle});
  CHECK(text.code == 0);
  for (const char* word : {"Fake 9000 (", "of weights)", "cuda:0", "host", "device"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
  CHECK(nibble({"explain"}).out.find("all on the host") != std::string::npos);
}

TEST_CASE("bench and perplexity: who computes, and nothing that was not measured") {
  const Json bench =
      told({"bench", "-ngl", "all", "--cpu-moe", "-p", "8", "-n", "4", "--rounds", "1", "--contexts", "16"});
  CHECK(bench.find("model")->find("device")->as_string() == "Fake 9000");
  for (const Json& result : bench.find("results")->items()) {
    CHECK(result.find("share_of_machine")->is_null());
    if (result.find("account")->is_null()) continue;
    for (const Json& line : result.find("account")->find("ops")->items()) {
      const std::string& op = line.find("op")->as_string();
      CAPTURE(op);
      CHECK(line.find("floor_seconds")->is_null() == (op != "embed" && op != "route" && op != "experts"));
    }
  }
  const Finished text = nibble({"bench", "-ngl", "1", "-p", "0", "-n", "4", "--rounds", "1", "--account",
                                "--cuda-library", NIBBLE_FAKE_idle});
  CHECK(text.code == 0);
  CHECK(text.out.find("and Fake 9000 (") != std::string::npos);

  const Folder folder;
  const std::string file = folder.write("story.txt", "Once upon a time there was a dog.");
  const Json measured = told({"perplexity", "-f", file, "-ngl", "1", "--against", NIBBLE_TALES});
  CHECK(measured.find("model")->find("device")->as_string() == "Fake 9000");
  CHECK(measured.find("against")->find("model")->find("device")->is_null());
  CHECK(measured.find("against")->find("kl_divergence")->find("value")->as_double() > 0);

  const Finished run =
      nibble({"run", "-ngl", "1", "-n", "3", "--temp", "0", "--stats", "--cuda-library", NIBBLE_FAKE_idle});
  CHECK(run.code == 0);
  CHECK(run.err.starts_with("prompt 4 tokens"));
  CHECK(run.err.find("memory at") == std::string::npos);
}

TEST_CASE("run and perplexity on the emulated device: the processor's words, nearly its numbers") {
  const std::vector<std::string> story = {"run", "--temp", "0", "-n", "12", "-p", "Once upon a time"};
  const Finished here = nibble(story);
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"-ngl", "all"}, {"-ngl", "3", "--cpu-moe", "--device", "1"}}) {
    std::vector<std::string> arguments = story;
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.insert(arguments.end(), {"--cuda-library", NIBBLE_EMULATED});
    const Finished there = nibble(arguments);
    CHECK_MESSAGE(there.code == 0, there.err);
    CHECK(there.out == here.out);
  }
  const Folder folder;
  const std::string file = folder.write("story.txt", "Once upon a time there was a dog. He had a bone.");
  const Finished measured = nibble({"perplexity", "--json", "-f", file, "-ngl", "all", "--against",
                                    NIBBLE_TALES, "--cuda-library", NIBBLE_EMULATED});
  CHECK_MESSAGE(measured.code == 0, measured.err);
  const auto json = parse_json(measured.out, "stdout");
  REQUIRE(json.ok());
  CHECK(json->find("against")->find("kl_divergence")->find("value")->as_double() < 0.002);
  CHECK(nibble({"doctor", "-t", "1", "--cuda-library", NIBBLE_EMULATED}).out.find("emulated") !=
        std::string::npos);
}

}  // namespace
}  // namespace nib::test
