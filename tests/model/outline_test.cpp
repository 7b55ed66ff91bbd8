// What a config.json alone says of tensors, against the files that belong to it.
#include "support/data.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/model/outline.hpp>
#include <nibble/model/weights.hpp>

#include <algorithm>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

// Names, shapes, formats and bytes of all tensors that nibble reads.
void compare(const std::string& folder) {
  CAPTURE(folder);
  const Checkpoint stored = open_checkpoint(folder).take();
  auto made =
      outline_checkpoint(parse_json(read_text(folder + "/config.json"), "config.json").take(), folder);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  const Checkpoint& outline = *made;
  for (const CheckpointTensor& tensor : outline.tensors) {
    CAPTURE(tensor.name);
    const CheckpointTensor* real = stored.find(tensor.name);
    REQUIRE(real);
    CHECK(tensor.shape == real->shape);
    CHECK(std::string(format_name(tensor.format)) == format_name(real->format));
    CHECK(tensor.codes.bytes == real->codes.bytes);
    CHECK(tensor.scales.bytes == real->scales.bytes);
    CHECK(tensor.scaling.nested_scales.bytes == real->scaling.nested_scales.bytes);
  }
  for (const CheckpointTensor& tensor : stored.tensors)
    if (tensor.name.find("rotary_emb") == tensor.name.npos &&
        tensor.name.find("masked_bias") == tensor.name.npos && !tensor.name.ends_with("attention.bias")) {
      CAPTURE(tensor.name);
      CHECK(outline.find(tensor.name));
    }
  const ModelConfig config = read_config(stored).take();
  auto of_files = WeightLayout::make(stored, config), of_config = WeightLayout::make(outline, config);
  REQUIRE_MESSAGE(of_config.ok(), of_config.status().message());
  CHECK(of_config->bytes() == of_files->bytes());
  std::uint64_t parameters[2] = {};
  for (const WeightGroup& group : of_files->groups()) parameters[0] += group.parameters;
  for (const WeightGroup& group : of_config->groups()) parameters[1] += group.parameters;
  CHECK(parameters[0] == parameters[1]);
}

TEST_CASE("the outline of the shipped model is the model") { compare(NIBBLE_TALES); }

TEST_CASE("the outline of every recorded model is the model") {
  NIB_REQUIRE_DATA(data);
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/models")) {
    const std::string config = (entry.path() / "config.json").string();
    if (!std::filesystem::exists(config)) continue;
    const std::string text = read_text(config);
    // What these store besides weights is said by their files alone.
    if (text.find("compressed-tensors") != text.npos || text.find("modelopt") != text.npos) {
      const auto refused = outline_checkpoint(parse_json(text, "config.json").take(), config);
      CHECK(refused.status().code() == Code::unsupported);
      continue;
    }
    compare(entry.path().string());
    ++found;
  }
  CHECK(found > 0);
}

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE_MESSAGE(at != text.npos, from);
  return text.replace(at, from.size(), to);
}

TEST_CASE("an outline refuses by name what a config alone does not tell") {
  const std::string text = read_text(std::string(NIBBLE_TALES) + "/config.json");
  const auto refused = [&](const std::string& from, const std::string& to, const char* named) {
    const auto made = outline_checkpoint(parse_json(changed(text, from, to), "c").take(), "c.json");
    CHECK(made.status().code() == Code::unsupported);
    CHECK(made.status().message().find("c.json") == 0);
    CHECK(made.status().message().find(named) != std::string::npos);
  };
  refused("\"quant_method\": \"mxfp4\"", "\"quant_method\": \"gptq\"", "gptq");
  refused("\"quant_method\": \"mxfp4\"", "\"quant_method\": \"bitsandbytes\"", "load_in_4bit");
  refused("\"torch_dtype\": \"bfloat16\"", "\"torch_dtype\": \"int8\"", "int8");
  const std::string large =
      changed(changed(changed(text, "\"num_local_experts\": 16", "\"num_local_experts\": 1024"),
                      "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 1000"),
              "\"layer_types\"", "\"other_types\"");
  const auto made = outline_checkpoint(parse_json(large, "c").take(), "c.json");
  CHECK(made.status().message().find("1000 layers of 1024 experts") != std::string::npos);
}

}  // namespace
}  // namespace nib::test
