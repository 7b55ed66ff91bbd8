// Plans of models that are not here: a config.json alone gives the published sizes, to the byte.
#include "support/data.hpp"
#include "support/tales.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>

#include <map>
#include <string>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

Json gpt_oss(int layers, int experts) {
  return parse_json(
             concat(
                 R"({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": true,
             "experts_per_token": 4, "num_experts_per_tok": 4, "num_local_experts": )",
                 experts, R"(, "head_dim": 64, "hidden_size": 2880, "initial_context_length": 4096,
             "intermediate_size": 2880, "max_position_embeddings": 131072, "num_attention_heads": 64,
             "num_hidden_layers": )",
                 layers, R"(, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 150000,
             "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088,
             "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "rope_type": "yarn",
                              "original_max_position_embeddings": 4096, "truncate": false},
             "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
               "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}})"),
             "config.json")
      .take();
}

std::map<std::string, std::uint64_t> stored(const Plan& plan) {
  std::map<std::string, std::uint64_t> bytes;
  for (const PlanItem& item : plan.items)
    if (item.stored_bytes) bytes[item.name] = item.stored_bytes;
  return bytes;
}

TEST_CASE("gpt-oss from its config alone: parameters and bytes as published") {
  auto runtime = make_runtime(1);
  const Plan small = make_plan_of_config(*runtime, gpt_oss(24, 32), "20b").take();
  CHECK(small.summary.parameters == 20'914'757'184);
  CHECK(small.summary.stored_bytes == 13'761'264'768);  // total_size of the published index
  const auto of_small = stored(small);
  CHECK(of_small.at("experts (mxfp4)") == 10'152'345'600);
  CHECK(of_small.at("embedding (bf16)") == 1'158'266'880);
  CHECK(of_small.at("head (bf16)") == 1'158'266'880);
  const Plan large = make_plan_of_config(*runtime, gpt_oss(36, 128), "120b").take();
  CHECK(large.summary.parameters == 116'829'156'672);
  CHECK(large.summary.stored_bytes == 65'248'815'744);
  CHECK(stored(large).at("experts (mxfp4)") == 60'914'073'600);
  // Keys and values in bf16: 2048 bytes for each position of a layer, full layers only.
  CHECK(large.summary.kv_bytes_per_token == 18 * 2048);
  // In int8: 64 bytes and a scale for each of eight heads, of keys and of values.
  const Plan small_kv =
      make_plan_of_config(*runtime, gpt_oss(36, 128), "120b", {.kv_format = KvFormat::int8}).take();
  CHECK(small_kv.summary.kv_bytes_per_token == 18 * 2 * 8 * (64 + 4));
  std::uint64_t sum = 0;
  for (const auto& [name, bytes] : of_small) sum += bytes;
  CHECK(sum == small.summary.stored_bytes);
}

TEST_CASE("a plan from the config alone is the plan from the files") {
  auto runtime = make_runtime(1);
  const SessionOptions session{.context = 1000};
  const Plan files = make_plan(*runtime, kTales, {}, session, 2).take();
  const Json config = parse_json(read_text(kTales + "/config.json"), "config.json").take();
  const Plan alone = make_plan_of_config(*runtime, config, "config.json", {}, session, 2).take();
  REQUIRE(alone.items.size() == files.items.size());
  for (std::size_t i = 0; i < files.items.size(); ++i) {
    CHECK(alone.items[i].name == files.items[i].name);
    CHECK(alone.items[i].bytes == files.items[i].bytes);
    CHECK(alone.items[i].stored_bytes == files.items[i].stored_bytes);
  }
  CHECK(alone.summary.longest_context == files.summary.longest_context);
  CHECK(alone.summary.decode_bytes == files.summary.decode_bytes);
  CHECK(files.summary.parameters == 23'045'520);
  CHECK_FALSE(Model::open(runtime, alone).ok());
  CHECK(make_plan_of_config(*runtime, parse_json("{}", "c").take(), "c.json")
            .status()
            .message()
            .find("c.json") == 0);
  CHECK(make_plan_of_config(*runtime, config, "c.json", {}, {.context = 1u << 30}).status().code() ==
        Code::argument);
}

}  // namespace
}  // namespace nib::test
