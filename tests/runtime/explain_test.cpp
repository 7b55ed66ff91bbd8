// explain(): every tensor of the files once, sums as planned, and kernels that are those of the formats.
#include "support/data.hpp"
#include "support/goldens.hpp"
#include "support/tales.hpp"
#include <nibble/io/checkpoint.hpp>

#include <algorithm>
#include <map>
#include <set>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// The names that an item's stands for: braces expanded, "*" for each expert.
std::vector<std::string> expanded(std::string name, std::uint32_t experts) {
  std::vector<std::string> names;
  if (const auto star = name.find('*'); star != name.npos) {
    for (std::uint32_t e = 0; e < experts; ++e)
      for (const std::string& each :
           expanded(name.substr(0, star) + std::to_string(e) + name.substr(star + 1), experts))
        names.push_back(each);
    return names;
  }
  const auto open = name.find('{'), close = name.find('}');
  if (open == name.npos) return {name};
  for (std::size_t at = open + 1; at <= close;) {
    const std::size_t end = std::min(name.find(',', at), close);
    names.push_back(name.substr(0, open) + name.substr(at, end - at) + name.substr(close + 1));
    at = end + 1;
  }
  return names;
}

// Formats that int8 numerics multiply in bytes.
const std::set<Format>& whole_numbers() {
  static const std::set<Format> formats = {
      Format::mxfp4,  Format::gguf_mxfp4, Format::nvfp4, Format::gguf_nvfp4, Format::q4_0,  Format::q4_1,
      Format::q5_0,   Format::q5_1,       Format::q8_0,  Format::q4_k,       Format::q5_k,  Format::q6_k,
      Format::iq4_nl, Format::iq4_xs,     Format::int8,  Format::llm_int8,   Format::mxint8};
  return formats;
}

void check_model(const std::string& path, const ModelOptions& options) {
  const std::string shown = path;
  CAPTURE(shown);
  auto runtime = make_runtime();
  auto planned = make_plan(*runtime, path, options);
  REQUIRE_MESSAGE(planned.ok(), planned.status().message());
  const Plan& plan = planned.value();
  auto opened = Model::open(runtime, plan);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  const Model& model = *opened.value();
  const Checkpoint checkpoint = open_checkpoint(path).take();

  std::uint64_t decode = 0;
  std::map<Purpose, std::uint64_t> bytes;
  std::map<std::string, int> told;
  for (const ExplainItem& item : model.explain()) {
    CAPTURE(item.name);
    decode += item.decode_bytes;
    bytes[item.purpose] += item.bytes;
    CHECK(item.instruction_set == model.info().backend);
    CHECK(item.device == "host");
    CHECK(item.decode_bytes <= item.bytes);
    CHECK((item.kernel == KernelKind::cache) == (item.purpose == Purpose::kv_cache));
    if (item.purpose == Purpose::kv_cache) continue;
    const bool matrix = item.kernel == KernelKind::tiles || item.kernel == KernelKind::records;
    const std::set<Format> records = {Format::q2_k, Format::q3_k, Format::mxfp6_e2m3, Format::mxfp6_e3m2};
    if (matrix) CHECK((item.kernel == KernelKind::records) == records.contains(item.format));
    const Format rounded = rounds_to_bf16(options.numerics) ? Format::bf16 : Format::f32;
    const bool whole =
        options.numerics == Numerics::int8 && item.op != "route" && whole_numbers().contains(item.format);
    CHECK(item.computed == (!matrix ? Format::f32 : whole ? Format::int8 : rounded));
    for (const std::string& name : expanded(item.name, std::max(model.info().experts, 1u))) {
      CAPTURE(name);
      ++told[name];
      const CheckpointTensor* tensor = checkpoint.find(name);
      REQUIRE(tensor);
      CHECK(tensor->format == item.format);
    }
  }
  CHECK(decode == plan.summary.decode_bytes);
  CHECK(bytes[Purpose::kv_cache] == plan.bytes(Purpose::kv_cache));
  std::uint64_t alignment = 0;
  for (const PlanItem& item : plan.items)
    if (item.name == "alignment") alignment = item.bytes;
  CHECK(bytes[Purpose::weights] == plan.bytes(Purpose::weights) - alignment);
  for (const auto& [name, times] : told)
    if (times != 1) CHECK(name == model.explain().front().name);  // an embedding that is the head too
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    CAPTURE(tensor.name);
    CHECK((told.contains(tensor.name) || tensor.name.find("rotary") != std::string::npos));
  }
}

TEST_CASE("explain: the shipped model") {
  check_model(kTales, {});
  check_model(kTales, {.backend = "scalar", .numerics = Numerics::f32, .kv_format = KvFormat::f32});
  for (const KvFormat kept : {KvFormat::int8, KvFormat::fp8}) check_model(kTales, {.kv_format = kept});
  auto model = open_tales();
  const auto items = model->explain();
  const auto experts = std::find_if(items.begin(), items.end(),
                                    [](const ExplainItem& item) { return item.format == Format::mxfp4; });
  REQUIRE(experts != items.end());
  CHECK(experts->name == "model.layers.0.mlp.experts.gate_up_proj");
  CHECK(experts->op == "experts");
  CHECK(experts->decode_bytes * 16 == experts->bytes * 2);
  CHECK(open_tales({.vocabulary_only = true})->explain().empty());
}

TEST_CASE("explain: every recorded model, in every container") {
  NIB_REQUIRE_DATA(data);
  const auto cases = golden_cases(data);
  REQUIRE(cases.size() > 0);
  for (const GoldenCase& c : cases)
    for (const Numerics numerics : {Numerics::f32, Numerics::bf16, Numerics::int8})
      check_model(c.path, {.numerics = numerics, .allow_fallback = true});
}

TEST_CASE("int8 numerics are refused where they would round weights, unless that is allowed") {
  NIB_REQUIRE_DATA(data);
  auto runtime = make_runtime();
  int refused = 0, taken = 0;
  for (const GoldenCase& c : golden_cases(data)) {
    CAPTURE(c.path);
    const Checkpoint checkpoint = open_checkpoint(c.path).take();
    const auto planned = make_plan(*runtime, c.path, {.numerics = Numerics::int8});
    if (planned.ok()) {
      ++taken;
      auto model = Model::open(runtime, planned.value());
      REQUIRE_MESSAGE(model.ok(), model.status().message());
      for (const ExplainItem& item : model.value()->explain())
        if (item.kernel == KernelKind::tiles && item.op != "route")
          CHECK((item.computed == Format::int8 || item.format == Format::bf16));
      continue;
    }
    ++refused;
    const Status& status = planned.status();
    CAPTURE(status.message());
    CHECK(status.code() == Code::unsupported);
    CHECK(status.message().starts_with(c.path + ": tensor "));
    const bool named = std::any_of(
        checkpoint.tensors.begin(), checkpoint.tensors.end(), [&](const CheckpointTensor& tensor) {
          const std::string words = ": tensor " + tensor.name + " is " + format_name(tensor.format) +
                                    ", which int8 numerics cannot";
          return !whole_numbers().contains(tensor.format) &&
                 status.message().find(words) != std::string::npos;
        });
    CHECK(named);
  }
  CHECK(refused > 3);
  CHECK(taken > 3);
}

}  // namespace
}  // namespace nib::test
