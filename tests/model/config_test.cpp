// config.json: every published shape is understood, every mistake is named, and nothing hostile gets through.
#include "support/data.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/model/architecture.hpp>
#include <nibble/model/config.hpp>

#include <random>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

constexpr const char* kHuggingFace = R"({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
 "attention_bias": true, "eos_token_id": 200002, "experts_per_token": 4, "num_experts_per_tok": 4, "num_local_experts": 32,
 "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880, "max_position_embeddings": 131072,
 "num_attention_heads": 64, "num_hidden_layers": 4, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
 "rope_theta": 150000, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
 "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
 "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088,
 "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]})";

Result<ModelConfig> parse(std::string_view text) {
  auto json = parse_json(text, "config.json");
  if (!json.ok()) return json.status();
  return parse_config(*json, "config.json");
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("the published configuration of gpt-oss-20b") {
  const auto parsed = parse(kHuggingFace);
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  const ModelConfig& c = *parsed;
  CHECK(c.architecture->name == "gpt-oss");
  CHECK(c.qkv_rows() == 5120);
  CHECK(c.windows == std::vector<std::uint32_t>{128, 0, 128, 0});
  CHECK(c.rope_theta == 150000);
  CHECK(c.rope.factor == 32);
  CHECK_FALSE(c.rope.truncate);
  CHECK(c.rope.attention == doctest::Approx(1.3465735902799727).epsilon(1e-15));
}

TEST_CASE("ids that end a text: one, a list or none, and nothing else") {
  const auto ids = [](std::string_view text) {
    return parse_stop_ids(parse_json(text, "config.json").take(), "config.json");
  };
  CHECK(*ids(R"({"eos_token_id": 200002})") == std::vector<std::uint32_t>{200002});
  CHECK(*ids(R"({"eos_token_id": [1, 2]})") == std::vector<std::uint32_t>{1, 2});
  CHECK(ids(R"({"eos_token_id": null})")->empty());
  CHECK(ids("{}")->empty());
  for (const char* wrong : {R"({"eos_token_id": -1})", R"({"eos_token_id": "x"})",
                            R"({"eos_token_id": [1, 4294967296]})", R"({"eos_token_id": 1.5})"}) {
    CAPTURE(std::string(wrong));
    CHECK(ids(wrong).status().code() == Code::format);
  }
}

TEST_CASE("newer spelling, missing layer types, lists of stops, defaults") {
  std::string newer = replaced(kHuggingFace, "\"rope_theta\": 150000, \"rope_scaling\": {",
                               "\"rope_parameters\": {\"rope_theta\": 150000, ");
  newer = replaced(newer, "\"swiglu_limit\": 7.0", "\"swiglu_limit\": 6.5, \"swiglu_alpha\": 1.5");
  newer = replaced(newer,
                   ",\n \"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\", "
                   "\"full_attention\"]",
                   "");
  newer = replaced(newer, ", \"truncate\": false", "");
  const auto parsed = parse(newer);
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  CHECK(parsed->rope_theta == 150000);
  CHECK(parsed->rope.truncate);  // Hugging Face's default when the key is absent
  CHECK(parsed->windows == std::vector<std::uint32_t>{128, 0, 128, 0});
  CHECK(parsed->gate.limit == 6.5f);
  CHECK(parsed->gate.alpha == 1.5f);
}

TEST_CASE("the number of experts by its old name and by that of transformers 5") {
  for (const char* key : {"num_experts", "num_local_experts"}) {
    const auto parsed =
        parse(concat(R"({"model_type": "qwen3_moe", "hidden_size": 64, "num_attention_heads": 4,
    "num_hidden_layers": 1, "moe_intermediate_size": 32, "vocab_size": 99, "max_position_embeddings": 128,
    "num_experts_per_tok": 2, ")",
                     key, "\": 8}"));
    REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
    CHECK(parsed->experts == 8);
  }
}

TEST_CASE("the configuration of original/") {
  const auto parsed =
      parse(R"({"num_hidden_layers": 2, "num_experts": 8, "experts_per_token": 4, "vocab_size": 400,
    "hidden_size": 64, "intermediate_size": 96, "swiglu_limit": 7.0, "head_dim": 32, "num_attention_heads": 4,
    "num_key_value_heads": 2, "sliding_window": 16, "initial_context_length": 4096, "rope_theta": 150000,
    "rope_scaling_factor": 32.0, "rope_ntk_alpha": 1.0, "rope_ntk_beta": 32.0})");
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  CHECK(parsed->max_context == 131072);
  CHECK(parsed->rope.fast == 32);
  CHECK(parsed->rope.slow == 1);
  CHECK_FALSE(parsed->rope.truncate);
}

TEST_CASE("each mistake is named") {
  struct Mistake {
    const char *from, *to, *named;
    Code code;
  };
  const Mistake mistakes[] = {
      {"\"gpt_oss\"", "\"bert\"", "bert", Code::unsupported},
      {"\"gpt_oss\"", "4096", "model_type", Code::format},
      {"\"hidden_size\": 2880, ", "", "hidden_size", Code::format},
      {"\"hidden_size\": 2880", "\"hidden_size\": 0", "hidden_size", Code::format},
      {"\"hidden_size\": 2880", "\"hidden_size\": -5", "hidden_size", Code::format},
      {"\"hidden_size\": 2880", "\"hidden_size\": 1e30", "hidden_size", Code::format},
      {"\"hidden_size\": 2880", "\"hidden_size\": \"2880\"", "hidden_size", Code::format},
      {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5", "layer_types", Code::format},
      {"\"full_attention\"", "\"linear_attention\"", "layer_types", Code::format},
      {"\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7", "num_key_value_heads", Code::format},
      {"\"head_dim\": 64", "\"head_dim\": 63", "head_dim", Code::format},
      {"\"head_dim\": 64", "\"head_dim\": 1024", "head_dim", Code::format},
      {"\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 33", "num_experts_per_tok", Code::format},
      {"\"num_local_experts\": 32", "\"num_local_experts\": 3", "num_experts_per_tok", Code::format},
      {"\"rope_type\": \"yarn\"", "\"rope_type\": \"longrope\"", "longrope", Code::unsupported},
      {"\"factor\": 32.0", "\"factor\": -1", "factor", Code::format},
      {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": null", "", Code::ok},
  };
  for (const Mistake& m : mistakes) {
    CAPTURE(std::string(m.from));
    CAPTURE(std::string(m.to));
    const auto parsed = parse(replaced(kHuggingFace, m.from, m.to));
    CHECK(parsed.status().code() == m.code);
    CHECK(parsed.status().message().find(m.named) != std::string::npos);
    if (m.code != Code::ok) CHECK(parsed.status().message().find("config.json") == 0);
  }
}

TEST_CASE("cut off: an error; bits flipped: an error or a configuration within its limits") {
  const std::string text = kHuggingFace;
  for (std::size_t cut = 0; cut < text.size(); ++cut)
    CHECK_FALSE(parse(std::string_view(text).substr(0, cut)).ok());
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    std::string flipped = text;
    for (auto flips = 1 + random() % 3; flips > 0; --flips)
      flipped[random() % flipped.size()] ^= static_cast<char>(1u << random() % 8);
    const auto parsed = parse(flipped);
    if (!parsed.ok()) continue;
    CHECK(parsed->windows.size() == parsed->layers);
    CHECK(parsed->heads % parsed->kv_heads == 0);
    CHECK(parsed->experts_per_token <= parsed->experts);
    CHECK(parsed->head_dim <= 256);
  }
}

}  // namespace
}  // namespace nib::test
