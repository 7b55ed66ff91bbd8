// Models to be quantized: a small llama of random weights, and what its weights are by the definition of a
// format.
#pragma once

#include "io/temporary.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/ggml.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/nvfp4.hpp>
#include <nibble/formats/plain.hpp>
#include <nibble/formats/shared_scale.hpp>
#include <nibble/io/checkpoint.hpp>
#include <nibble/io/safetensors_writer.hpp>
#include <nibble/model/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

struct Tensor {
  std::vector<std::uint64_t> shape;
  std::vector<float> values;
  std::int64_t columns() const { return static_cast<std::int64_t>(shape.back()); }
};
using Tensors = std::map<std::string, Tensor>;

struct LlamaShape {
  std::uint64_t hidden = 64, width = 160, heads = 4, kv_heads = 2, head_dim = 16, vocabulary = 96, layers = 2;
};

inline Tensors random_llama(const LlamaShape& s, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Tensors tensors;
  const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
    Tensor& tensor = tensors[name];
    std::uint64_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    tensor.shape = std::move(shape);
    for (std::uint64_t i = 0; i < count; ++i)
      tensor.values.push_back(normal(random) * (random() % 97 == 0 ? 20.0f : 0.05f));
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, 40); ++i)
      tensor.values[i] = 0;  // a group of zeros
  };
  add("model.embed_tokens.weight", {s.vocabulary, s.hidden});
  add("lm_head.weight", {s.vocabulary, s.hidden});
  add("model.norm.weight", {s.hidden});
  for (std::uint64_t l = 0; l < s.layers; ++l) {
    const std::string layer = concat("model.layers.", l, ".");
    add(layer + "input_layernorm.weight", {s.hidden});
    add(layer + "post_attention_layernorm.weight", {s.hidden});
    add(layer + "self_attn.q_proj.weight", {s.heads * s.head_dim, s.hidden});
    add(layer + "self_attn.k_proj.weight", {s.kv_heads * s.head_dim, s.hidden});
    add(layer + "self_attn.v_proj.weight", {s.kv_heads * s.head_dim, s.hidden});
    add(layer + "self_attn.o_proj.weight", {s.hidden, s.heads * s.head_dim});
    add(layer + "mlp.gate_proj.weight", {s.width, s.hidden});
    add(layer + "mlp.up_proj.weight", {s.width, s.hidden});
    add(layer + "mlp.down_proj.weight", {s.hidden, s.width});
  }
  return tensors;
}

inline std::string llama_config(const LlamaShape& s) {
  return concat(R"({"model_type": "llama", "hidden_size": )", s.hidden, R"(, "intermediate_size": )", s.width,
                R"(, "num_attention_heads": )", s.heads, R"(, "num_key_value_heads": )", s.kv_heads,
                R"(, "head_dim": )", s.head_dim, R"(, "num_hidden_layers": )", s.layers,
                R"(, "vocab_size": )", s.vocabulary,
                R"(, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "torch_dtype": "float32"})");
}

// In f32, so that every format loses something.
inline void write_llama(const std::string& directory, const LlamaShape& shape, const Tensors& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, DType::f32, tensor.shape});
  auto writer = SafetensorsWriter::create(directory + "/model.safetensors", specs);
  REQUIRE_MESSAGE(writer.ok(), writer.status().message());
  for (const auto& [name, tensor] : tensors)
    REQUIRE(writer->append(std::as_bytes(std::span(tensor.values))).ok());
  REQUIRE(writer->finish().ok());
  std::ofstream(directory + "/config.json") << llama_config(shape);
}

inline Checkpoint open(const std::string& path) {
  auto checkpoint = open_checkpoint(path);
  REQUIRE_MESSAGE(checkpoint.ok(), checkpoint.status().message());
  return checkpoint.take();
}

inline std::vector<float> values_of(const Checkpoint& checkpoint, const std::string& name) {
  const CheckpointTensor* tensor = checkpoint.find(name);
  REQUIRE_MESSAGE(tensor != nullptr, name);
  std::size_t count = 1;
  for (const std::uint64_t n : tensor->shape) count *= n;
  std::vector<float> values(count);
  const Status read = read_values(checkpoint, *tensor, 0, std::span(values));
  REQUIRE_MESSAGE(read.ok(), read.message());
  return values;
}

// What the values become, one group after another and without any of what makes it fast.
template <class F>
std::vector<float> by_groups(const std::vector<float>& values, float tensor_scale = 1, double factor = 1) {
  std::vector<float> out(values.size());
  for (std::size_t i = 0; i < values.size(); i += F::group) {
    float units[F::group];
    double back[F::group];
    std::byte codes[F::code_bytes], scale[F::scale_bytes + 1];
    for (int j = 0; j < F::group; ++j)
      units[j] = tensor_scale == 1 ? values[i + static_cast<std::size_t>(j)]
                                   : values[i + static_cast<std::size_t>(j)] / tensor_scale;
    F::encode_group(units, codes, scale);
    F::decode_group(codes, scale, back);
    for (int j = 0; j < F::group; ++j)
      out[i + static_cast<std::size_t>(j)] = static_cast<float>(back[j] * factor);
  }
  return out;
}

// The same for formats with shared scales: `scale_of(row, column)` numbers them.
template <class F, class Number>
std::vector<float> by_scales(const Tensor& tensor, Number number, bool nested) {
  const std::int64_t k = tensor.columns(), rows = static_cast<std::int64_t>(tensor.values.size()) / k;
  std::map<std::int64_t, float> largest;
  for (std::int64_t i = 0; i < rows * k; ++i) {
    float& of = largest[number(i / k, i % k)];
    of = std::max(of, std::fabs(tensor.values[static_cast<std::size_t>(i)]));
  }
  std::vector<float> scales, read;
  for (const auto& [index, value] : largest) scales.push_back(F::scale_of(value));
  read = scales;
  if (nested) {
    const auto count = static_cast<std::int64_t>(scales.size());
    const float offset = scale_offset(scales.data(), count);
    std::vector<std::byte> codes(scales.size());
    std::vector<float> absmax((scales.size() + 255) / 256);
    nest_scales(scales.data(), count, offset, codes.data(), absmax.data());
    const NestedScales nest{codes.data(), kDynamicMap.level, absmax.data(), offset};
    for (std::int64_t i = 0; i < count; ++i) read[static_cast<std::size_t>(i)] = nest[i];
  }
  std::vector<float> out(tensor.values.size());
  for (std::int64_t i = 0; i < rows * k; i += F::group) {
    const auto at = static_cast<std::size_t>(number(i / k, i % k));
    std::byte code[1], scale[4];
    double back[F::group];
    F::encode_codes(tensor.values.data() + i, scales[at], code);
    store_little_endian(std::bit_cast<std::uint32_t>(read[at]), scale);
    F::decode_group(code, scale, back);
    for (int j = 0; j < F::group; ++j) out[static_cast<std::size_t>(i + j)] = static_cast<float>(back[j]);
  }
  return out;
}

// A matrix in the format users call `name`.
inline std::vector<float> by_definition(const std::string& name, const Tensor& tensor) {
  const std::vector<float>& values = tensor.values;
  const std::int64_t k = tensor.columns();
  const auto row = [](std::int64_t r, std::int64_t) { return r; };
  const auto whole = [](std::int64_t, std::int64_t) { return std::int64_t{0}; };
  const auto run = [k](std::int64_t r, std::int64_t c) { return (r * k + c) / 64; };
  const auto tile = [k](std::int64_t r, std::int64_t c) { return r / 128 * ((k + 127) / 128) + c / 128; };
  if (name == "mxfp4") return by_groups<Mxfp4>(values);
  if (name == "nvfp4") {
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    const float stored = 1.0f / nvfp4_tensor_scale(largest);  // what the file says and a reader divides by
    return by_groups<Nvfp4>(values, 1.0f / stored, 1.0 / static_cast<double>(stored));
  }
  if (name == "nf4") return by_scales<Nf4>(tensor, run, false);
  if (name == "nf4-double") return by_scales<Nf4>(tensor, run, true);
  if (name == "fp4") return by_scales<BnbFp4>(tensor, run, false);
  if (name == "fp4-double") return by_scales<BnbFp4>(tensor, run, true);
  if (name == "llm-int8") return by_scales<LlmInt8>(tensor, row, false);
  if (name == "int8") return by_scales<Int8>(tensor, row, false);
  if (name == "fp8") return by_scales<Fp8E4M3>(tensor, tile, false);
  if (name == "fp8-row") return by_scales<Fp8E4M3>(tensor, row, false);
  if (name == "fp8-tensor") return by_scales<Fp8E4M3>(tensor, whole, false);
  if (name == "q4_0") return by_groups<Q4_0>(values);
  if (name == "q4_1") return by_groups<Q4_1>(values);
  if (name == "q5_0") return by_groups<Q5_0>(values);
  if (name == "q5_1") return by_groups<Q5_1>(values);
  if (name == "q8_0") return by_groups<Q8_0>(values);
  if (name == "bf16") return by_groups<PlainBf16>(values);
  if (name == "f16") return by_groups<PlainF16>(values);
  if (name == "f32") return values;
  FAIL("no definition of " << name);
  return {};
}

// The largest difference, relative to the value; 0: equal to the bit.
inline double worst_ratio(const std::vector<float>& found, const std::vector<float>& expected) {
  REQUIRE(found.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
    if (difference > 0) worst = std::max(worst, difference / std::fabs(static_cast<double>(expected[i])));
  }
  return worst;
}

inline Result<QuantizeReport> quantize(const std::string& from, const std::string& to,
                                       const std::string& format, QuantizeOptions options = {},
                                       int threads = 2) {
  options.format = find_target_format(format);
  const auto pool = Pool::start(threads).take();
  return quantize_checkpoint(open(from), to, options, *pool);
}

}  // namespace nib::test
