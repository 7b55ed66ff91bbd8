// config.json written from a ModelConfig: read back it is the same model, whatever its numbers are.
#include "model/config_writer.hpp"

#include "model/rope_divisors.hpp"
#include "support/data.hpp"
#include <nibble/model/architecture.hpp>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::uint32_t fresh_seed() { return std::random_device{}(); }

void check_survives(const ModelConfig& config) {
  const Json json = Json::object(config_members(config));
  const std::string text = write_json(json, true);
  CAPTURE(text);
  const auto again = parse_config(parse_json(text, "config.json").take(), "config.json");
  REQUIRE_MESSAGE(again.ok(), again.status().message());
  CHECK(first_difference(config, *again) == "");
  CHECK(again->architecture == config.architecture);
  CHECK(again->qkv_bias == config.qkv_bias);
  CHECK(again->output_bias == config.output_bias);
  CHECK(again->expert_bias == config.expert_bias);
  CHECK(again->tied_embeddings == config.tied_embeddings);
}

TEST_CASE("config.json of every folder survives") {
  NIB_REQUIRE_DATA(data);
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/models")) {
    const std::string path = (entry.path() / "config.json").string();
    if (!std::filesystem::exists(path)) continue;
    CAPTURE(path);
    const auto config = parse_config(parse_json(read_text(path), path).take(), path);
    REQUIRE_MESSAGE(config.ok(), config.status().message());
    check_survives(*config);
    ++seen;
  }
  CHECK(seen > 10);
}

// Of one architecture, whatever its row allows.
ModelConfig random_config(const Architecture& row, std::mt19937& random) {
  const auto draw = [&](std::uint32_t least, std::uint32_t most) {
    return std::uniform_int_distribution<std::uint32_t>(least, most)(random);
  };
  const auto real = [&](double least, double most) {
    return static_cast<double>(
        static_cast<float>(std::uniform_real_distribution<double>(least, most)(random)));
  };
  ModelConfig c;
  c.architecture = &row;
  c.layers = draw(1, 40);
  c.hidden = draw(1, 5000);
  c.vocabulary = draw(1, 300000);
  c.kv_heads = draw(1, 8);
  c.heads = c.kv_heads * draw(1, 8);
  c.head_dim = 2 * draw(1, 128);
  c.routed = !row.experts_key.empty();
  if (c.routed) {
    c.experts = draw(4, 128);
    c.experts_per_token = draw(1, 4);
    c.weights_of_all = row.model_type == "qwen3_moe" && draw(0, 1) == 1;
  }
  c.expert_width = draw(1, 20000);
  c.max_context = draw(1, 131072);
  c.windows.assign(c.layers, 0);
  const std::uint32_t window = draw(1, 4096);
  if (row.windows == WindowRule::all_layers && draw(0, 1)) c.windows.assign(c.layers, window);
  if (row.windows == WindowRule::even_layers || (row.windows == WindowRule::upper_layers && draw(0, 1)))
    for (std::uint32_t& w : c.windows) w = draw(0, 2) ? window : 0;
  if (row.windows == WindowRule::even_layers) c.windows[0] = window;
  c.norm_epsilon = static_cast<float>(real(1e-7, 1e-3));
  c.rope_theta = real(100, 1e7);
  c.rotary_dim = row.default_rotary == 1 && draw(0, 1) ? c.head_dim : 2 * draw(1, c.head_dim / 2);
  c.rope.kind = static_cast<RopeKind>(draw(0, 3));
  if (c.rope.kind != RopeKind::plain) c.rope.factor = real(1, 64);
  if (c.rope.kind == RopeKind::yarn || c.rope.kind == RopeKind::llama3) {
    c.rope.original_context = draw(0, 1) ? draw(1, 100000) : real(1, 100000);
    c.rope.slow = real(0.5, 2);
    c.rope.fast = c.rope.slow + real(1, 40);
  }
  if (c.rope.kind == RopeKind::yarn) {
    c.rope.truncate = draw(0, 1) == 1;
    c.rope.attention = draw(0, 1) ? yarn_attention(c.rope.factor) : real(0.5, 2);
  }
  c.parallel_residual = row.norm == NormKind::layer && draw(0, 1) == 1;
  c.activation = row.activation == Activation::gelu && draw(0, 1) ? Activation::gelu_tanh : row.activation;
  if (c.activation == Activation::clamped_swiglu)
    c.gate = {static_cast<float>(real(1, 2)), static_cast<float>(real(1, 10))};
  const auto presence = [](bool yes) { return yes ? Presence::yes : Presence::no; };
  c.output_bias = presence(draw(0, 1) == 1);
  c.qkv_bias = c.output_bias;
  if (row.qkv_bias && !row.output_bias) {  // Qwen2
    c.qkv_bias = Presence::yes;
    c.output_bias = Presence::no;
  }
  c.expert_bias = presence(row.expert_bias || draw(0, 1) == 1);
  c.tied_embeddings = draw(0, 1) == 1;
  return c;
}

TEST_CASE("config.json of random models of every architecture survives") {
  const std::uint32_t seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const Architecture& row : architectures()) {
    CAPTURE(std::string(row.name));
    CHECK_FALSE(row.model_class.empty());
    for (int i = 0; i < 200; ++i) check_survives(random_config(row, random));
  }
}

// What a class does unless it is told otherwise is not seen by reading back.
TEST_CASE("gpt-oss without scaling says so, for its class scales unless it is told not to") {
  std::mt19937 random(1);
  for (const Architecture& row : architectures()) {
    ModelConfig config = random_config(row, random);
    config.rope = {};
    const Json json = Json::object(config_members(config));
    const Json* scaling = json.find("rope_scaling");
    CHECK((scaling != nullptr) == (row.model_type == "gpt_oss"));
    if (scaling) CHECK(scaling->find("rope_type")->as_string() == "default");
  }
}

ModelConfig rotating(double theta, std::uint32_t dimensions) {
  ModelConfig config;
  config.rope_theta = theta;
  config.rotary_dim = dimensions;
  return config;
}

// The divisors by their definition, as the converter of other people computes them: in f32.
std::vector<float> divisors_by_definition(const ModelConfig& config, double factor, double low, double high,
                                          double context) {
  std::vector<float> out;
  for (std::uint32_t i = 0; i < config.rotary_dim / 2; ++i) {
    const auto frequency =
        1.0f / static_cast<float>(std::pow(config.rope_theta, 2.0 * i / config.rotary_dim));
    const double wavelength = 2 * 3.14159265358979323846 / static_cast<double>(frequency);
    if (wavelength < context / high) {
      out.push_back(1);
    } else if (wavelength > context / low) {
      out.push_back(static_cast<float>(factor));
    } else {
      const double smooth = (context / wavelength - low) / (high - low);
      out.push_back(static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
    }
  }
  return out;
}

TEST_CASE("Llama 3's scaling is found in its divisors") {
  // As published: Llama 3.1 (8B, head of 128), Llama 3.2 (1B, head of 64).
  for (const auto& [dimensions, factor] : {std::pair(128u, 8.0), std::pair(64u, 32.0)}) {
    ModelConfig config = rotating(500000, dimensions);
    const auto found = llama3_scaling(config, divisors_by_definition(config, factor, 1, 4, 8192));
    REQUIRE(found.has_value());
    CHECK(found->kind == RopeKind::llama3);
    CHECK(found->factor == factor);
    CHECK(found->slow == 1);
    CHECK(found->fast == 4);
    CHECK(found->original_context == 8192);
  }
  const std::uint32_t seed = fresh_seed();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto real = [&](double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(random);
  };
  int steps = 0;
  for (int i = 0; i < 2000; ++i) {
    ModelConfig config =
        rotating(real(1e4, 1e6), 2 * std::uniform_int_distribution<std::uint32_t>(8, 64)(random));
    const double factor = static_cast<double>(static_cast<float>(real(1.5, 40))), low = real(0.5, 2),
                 high = low * real(1.5, 8), context = std::round(real(500, 20000));
    CAPTURE(config.rope_theta);
    CAPTURE(config.rotary_dim);
    CAPTURE(factor);
    CAPTURE(low);
    CAPTURE(high);
    CAPTURE(context);
    const std::vector<float> divisors = divisors_by_definition(config, factor, low, high, context);
    if (divisors.back() != static_cast<float>(factor)) continue;  // no frequency says what the factor is
    const auto found = llama3_scaling(config, divisors);
    REQUIRE(found.has_value());
    config.rope = *found;
    const std::vector<float> again = gguf_rope_divisors(config);
    for (std::size_t j = 0; j < again.size(); ++j)
      CHECK(std::fabs(again[j] - divisors[j]) <= 1e-5f * divisors[j]);
    steps += found->fast == 4;
  }
  MESSAGE("with a high_freq_factor of choice: " << steps);
}

TEST_CASE("divisors that are none of Llama 3's are not called so") {
  const ModelConfig config = rotating(500000, 128);
  std::vector<float> divisors = divisors_by_definition(config, 8, 1, 4, 8192);
  CHECK(llama3_scaling(config, std::vector<float>(64, 1.0f))->kind == RopeKind::plain);
  CHECK_FALSE(llama3_scaling(config, std::vector<float>(63, 1.0f)).has_value());
  CHECK_FALSE(llama3_scaling(config, {}).has_value());
  for (const float wrong : {0.0f, -1.0f, 3.0f, NAN, INFINITY}) {
    CAPTURE(wrong);
    for (const std::size_t at : {0, 20, 30, 33, 63}) {
      CAPTURE(at);
      std::vector<float> changed = divisors;
      changed[at] = wrong;
      CHECK_FALSE(llama3_scaling(config, changed).has_value());
    }
  }
  for (float& divisor : divisors) divisor = 1.0001f * divisor;
  CHECK_FALSE(llama3_scaling(config, divisors).has_value());
}

}  // namespace
}  // namespace nib::test
