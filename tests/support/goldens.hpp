// The recorded models of the data folder, whichever there are: each container of each folder with the logits
// and the tolerances recorded for it.
#pragma once

#include "data.hpp"
#include "model_rig.hpp"
#include <nibble/base/json.hpp>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace nib::test {

// What golden.json says of one set of logits. The tolerances are those of the README beside it.
struct Tolerances {
  double f32 = 1e-3;  // 20 times the noise of f32 itself, at least 0.001
  double bf16 = 0;  // twice the drift under rounding, before a router choice flips; its last digit rounded up
  double bf16_median = 0;   // twice the recorded median over positions
  std::size_t flip = 0;     // the first position at which one flips
  std::size_t greedy = 24;  // greedy steps that stay equal under rounding

  static Tolerances of(const Json& record) {
    const auto number = [&](const char* key) {
      const Json* value = record.find(key);
      return value && value->is_number() ? value->as_double() : 0.0;
    };
    Tolerances t;
    t.f32 = std::max(1e-3, 20 * number("f32_noise"));
    t.flip = static_cast<std::size_t>(number("bf16_first_flip"));
    const double bound = t.flip > 0 ? 2 * number("bf16_activation_drift_before_first_flip")
                                    : 4 * number("bf16_activation_drift_median");
    const double digit = std::pow(10.0, std::floor(std::log10(bound)));
    t.bf16 = std::ceil(bound / digit) * digit;
    t.bf16_median = 2 * number("bf16_activation_drift_median");
    t.greedy = static_cast<std::size_t>(number("bf16_greedy_agrees"));
    return t;
  }
};

struct GoldenCase {
  std::string name;  // folder and container
  std::string path;  // what is opened
  Tolerances tolerances;
  std::string record;  // the file of logits
  std::string logits;  // their name in it

  Golden golden() const {
    return {Golden::ids(record, "input_ids"), Golden::ids(record, "greedy_ids"),
            Golden::floats(record, logits.c_str())};
  }
};

inline std::vector<GoldenCase> golden_cases(const std::string& data) {
  namespace fs = std::filesystem;
  std::vector<GoldenCase> cases;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(data + "/models"))
    if (fs::exists(entry.path() / "golden.safetensors")) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    const std::string name = folder.filename().string(), record = (folder / "golden.safetensors").string();
    const Json all = parse_json(read_text((folder / "golden.json").string()), "golden.json").take();
    if (!all.find("f32_noise")) continue;  // tales has tests of its own
    // Where the reference rounds dequantized weights, the logits of those that were not rounded.
    const char* logits = Golden::has(record, "logits_f32_weights") ? "logits_f32_weights" : "logits";
    const Tolerances tolerances = Tolerances::of(all);
    cases.push_back({name, folder.string(), tolerances, record, logits});
    if (fs::exists(folder / "original"))
      cases.push_back({name + "/original", (folder / "original").string(), tolerances, record, logits});
    const Json* gguf = all.find("gguf");
    for (std::size_t i = 0; gguf && i < gguf->members().size(); ++i) {
      const auto& [type, made] = gguf->members()[i];
      const std::string file = made.find("file")->as_string(),
                        own = (folder / "gguf" / ("golden." + type + ".safetensors")).string();
      const Json* told = made.find("record");  // of weights that are not those of the folder
      cases.push_back({name + "/" + file, (folder / file).string(), told ? Tolerances::of(*told) : tolerances,
                       told ? own : record, "logits"});
    }
  }
  return cases;
}

inline double largest_difference(std::span<const float> a, std::span<const float> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return most;
}

// The median over positions of the largest difference of a logit.
inline double median_difference(std::span<const float> a, std::span<const float> b, std::size_t vocabulary) {
  std::vector<double> each;
  for (std::size_t at = 0; at < a.size(); at += vocabulary)
    each.push_back(largest_difference(a.subspan(at, vocabulary), b.subspan(at, vocabulary)));
  std::nth_element(each.begin(), each.begin() + static_cast<std::ptrdiff_t>(each.size() / 2), each.end());
  return each[each.size() / 2];
}

inline std::uint32_t best(std::span<const float> logits) {
  return static_cast<std::uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

inline std::vector<std::uint32_t> greedy(ModelRig& rig, std::span<const std::uint32_t> prompt,
                                         std::size_t count) {
  auto cache = rig.cache();
  std::vector<float> logits = rig.feed(*cache, prompt);
  std::vector<std::uint32_t> ids;
  while (ids.size() < count) {
    ids.push_back(best(std::span(logits).last(rig.config.vocabulary)));
    logits = rig.feed(*cache, std::span(ids).last(1));
  }
  return ids;
}

}  // namespace nib::test
