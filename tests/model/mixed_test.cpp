// Matrices that are one where the formats of their tensors agree, and parts where they do not: a model with
// some tensors widened from bf16 to f32 has the same logits, bit for bit.
#include "io/temporary.hpp"
#include "quantize_rig.hpp"
#include "support/data.hpp"
#include "support/model_rig.hpp"
#include <nibble/base/float16.hpp>
#include <nibble/io/gguf_writer.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <cstring>
#include <random>
#include <string_view>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::vector<std::byte> widened(const std::vector<std::byte>& values) {
  std::vector<std::byte> wide(values.size() * 2);
  for (std::size_t i = 0; i * 2 < values.size(); ++i) {
    bf16 value;
    std::memcpy(&value.bits, &values[i * 2], 2);
    const float f = to_float(value);
    std::memcpy(&wide[i * 4], &f, 4);
  }
  return wide;
}

// The model of `folder` in `to`, the tensors whose names hold one of `wide` as f32. Returns how many.
int copy_model(const std::string& folder, const TemporaryDirectory& to,
               const std::vector<std::string_view>& wide) {
  auto checkpoint = open_checkpoint(folder);
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  std::vector<TensorSpec> specs;
  std::vector<std::vector<std::byte>> contents;
  int count = 0;
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    REQUIRE(tensor.format == Format::bf16);
    std::vector<std::byte> values(tensor.codes.bytes);
    REQUIRE(read_plane(*checkpoint, tensor.codes, 0, values).ok());
    const bool widen = std::any_of(wide.begin(), wide.end(), [&](std::string_view part) {
      return tensor.name.find(part) != std::string::npos;
    });
    count += widen;
    specs.push_back({std::string(tensor.name), widen ? DType::f32 : DType::bf16, tensor.shape});
    contents.push_back(widen ? widened(values) : std::move(values));
  }
  auto writer = SafetensorsWriter::create(to.path("model.safetensors"), specs);
  REQUIRE_MESSAGE(writer.ok(), writer.status().message());
  for (const auto& bytes : contents) REQUIRE(writer->append(bytes).ok());
  REQUIRE(writer->finish().ok());
  std::filesystem::copy_file(folder + "/config.json", to.path("config.json"));
  return count;
}

std::vector<float> logits(const std::string& folder, std::span<const std::uint32_t> ids,
                          const RigOptions& options) {
  ModelRig rig(folder, options);
  auto cache = rig.cache();
  return rig.feed(*cache, ids);
}

TEST_CASE("tensors of one matrix may differ in format: the bits are those of the model that has one") {
  NIB_REQUIRE_DATA(data);
  const std::vector<std::vector<std::string_view>> choices = {
      {"v_proj"}, {"k_proj"}, {"q_proj", "up_proj"}, {"k_proj", "v_proj", "gate_proj"}};
  for (const char* name : {"mistral", "qwen2"}) {
    CAPTURE(name);
    const std::string folder = data + "/models/" + name;
    const auto ids = Golden::load(folder).input_ids;
    for (const auto& wide : choices) {
      CAPTURE(wide[0]);
      const TemporaryDirectory mixed;
      REQUIRE(copy_model(folder, mixed, wide) > 0);
      for (const Backend* backend : present_backends())
        for (const Numerics numerics : {Numerics::bf16, Numerics::f32, Numerics::int8})
          for (const std::int64_t rows : {1, 64}) {
            CAPTURE(std::string(backend->name));
            CAPTURE(rows);
            const RigOptions options{.backend = backend, .numerics = numerics, .rows = rows};
            const auto got = logits(mixed.path(), ids, options), want = logits(folder, ids, options);
            REQUIRE(got.size() == want.size());
            CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
          }
    }
  }
}

// The same file as converters wrote it before they stacked experts.
void separate_experts(const std::string& from, const std::string& to) {
  const Checkpoint stacked = open(from);
  GgufPairs pairs;
  for (std::size_t i = 0; i < stacked.gguf->size(); ++i)
    pairs.add(stacked.gguf->key(i), stacked.gguf->value(i));
  std::vector<GgufTensorSpec> specs;
  std::vector<std::byte> bytes;
  for (const CheckpointTensor& tensor : stacked.tensors) {
    GgufType type = GgufType::f32;
    for (const GgufTypeInfo& known : kGgufTypes)
      if (known.name == tensor.type_name) type = known.type;
    const auto at = tensor.name.find("_exps.weight");
    if (at == tensor.name.npos) {
      specs.push_back({tensor.name, type, tensor.shape});
    } else {
      for (std::uint64_t expert = 0; expert < tensor.shape[0]; ++expert)
        specs.push_back({concat(tensor.name.substr(0, at), ".", expert, ".weight"),
                         type,
                         {tensor.shape[1], tensor.shape[2]}});
    }
    const std::size_t before = bytes.size();
    bytes.resize(before + tensor.codes.bytes);
    REQUIRE(read_plane(stacked, tensor.codes, 0, std::span(bytes).subspan(before)).ok());
  }
  auto writer = GgufWriter::create(to, pairs, specs);
  REQUIRE_MESSAGE(writer.ok(), writer.status().message());
  REQUIRE(writer->append(bytes).ok());
  REQUIRE(writer->finish().ok());
}

TEST_CASE("GGUF files of Mixtral with a tensor for each expert are those with stacks") {
  NIB_REQUIRE_DATA(data);
  const std::string file = data + "/models/mixtral/gguf/mixtral-q8_0.gguf";
  const TemporaryDirectory folder;
  separate_experts(file, folder.path("old.gguf"));
  const std::vector<std::uint32_t> ids = {3, 1, 4, 1, 5, 9, 2, 6};
  for (const Numerics numerics : {Numerics::bf16, Numerics::f32, Numerics::int8}) {
    const auto got = logits(folder.path("old.gguf"), ids, {.numerics = numerics}),
               want = logits(file, ids, {.numerics = numerics});
    REQUIRE(got.size() == want.size());
    CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
  }
}

// What GGUF has no key for: whether there are biases.
TEST_CASE("biases that a configuration asks for go over to GGUF, and count there") {
  const LlamaShape shape;
  for (const char* type : {"llama", "qwen3"}) {
    CAPTURE(type);
    const bool head_norms = std::string_view(type) == "qwen3";
    Tensors tensors = random_llama(shape, std::random_device{}());
    const auto add = [&](const std::string& name, std::uint64_t count) {
      Tensor& tensor = tensors[name];
      tensor.shape = {count};
      for (std::uint64_t i = 0; i < count; ++i) tensor.values.push_back(static_cast<float>(i % 7) * 0.1f);
    };
    for (std::uint64_t l = 0; l < shape.layers; ++l) {
      const std::string layer = concat("model.layers.", l, ".self_attn.");
      add(layer + "q_proj.bias", shape.heads * shape.head_dim);
      add(layer + "k_proj.bias", shape.kv_heads * shape.head_dim);
      add(layer + "v_proj.bias", shape.kv_heads * shape.head_dim);
      add(layer + "o_proj.bias", shape.hidden);
      if (head_norms) add(layer + "q_norm.weight", shape.head_dim);
      if (head_norms) add(layer + "k_norm.weight", shape.head_dim);
    }
    const TemporaryDirectory folder;
    write_llama(folder.path(), shape, tensors);
    std::string config = llama_config(shape);
    config.replace(config.find("llama"), 5, type);
    config.insert(1, "\"attention_bias\": true, ");
    std::ofstream(folder.path("config.json")) << config;
    REQUIRE(quantize(folder.path(), folder.path("model.gguf"), "f32").ok());
    const std::vector<std::uint32_t> ids = {3, 1, 4, 1, 5, 9, 2, 6};
    const auto got = logits(folder.path("model.gguf"), ids, {}), want = logits(folder.path(), ids, {});
    REQUIRE(got.size() == want.size());
    CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
  }
}

}  // namespace
}  // namespace nib::test
