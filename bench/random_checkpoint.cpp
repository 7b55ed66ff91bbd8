#include "random_tensors.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

namespace nib::bench {

std::uint64_t draw(Draw kind, std::uint64_t random) {
  switch (kind) {
    case Draw::weight:
      return (random & 0x81ff'81ff'81ff'81ffu) | 0x3c00'3c00'3c00'3c00u;
    case Draw::norm:
      return (random & 0x007f'007f'007f'007fu) | 0x3f80'3f80'3f80'3f80u;
    case Draw::codes:
      return random;
    case Draw::scales:
      return (random & 0x0303'0303'0303'0303u) + 0x7676'7676'7676'7676u;
  }
  return 0;
}

std::vector<RandomTensor> random_tensors(const GptOssShape& shape) {
  std::vector<RandomTensor> all;
  const auto add = [&](std::string name, std::vector<std::uint64_t> size, Draw kind = Draw::weight) {
    const bool bytes = kind == Draw::codes || kind == Draw::scales;
    all.push_back({{std::move(name), bytes ? DType::u8 : DType::bf16, std::move(size)}, kind});
  };
  const std::uint64_t hidden = shape.hidden, width = shape.expert_width, experts = shape.experts;
  const std::uint64_t query = std::uint64_t{shape.heads} * shape.head_dim;
  const std::uint64_t key = std::uint64_t{shape.kv_heads} * shape.head_dim;
  add("model.embed_tokens.weight", {shape.vocabulary, hidden});
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    const std::string at = concat("model.layers.", layer, ".");
    add(at + "input_layernorm.weight", {hidden}, Draw::norm);
    for (const auto& [name, rows] : {std::pair{"q", query}, {"k", key}, {"v", key}}) {
      add(concat(at, "self_attn.", name, "_proj.weight"), {rows, hidden});
      add(concat(at, "self_attn.", name, "_proj.bias"), {rows});
    }
    add(at + "self_attn.o_proj.weight", {hidden, query});
    add(at + "self_attn.o_proj.bias", {hidden});
    add(at + "self_attn.sinks", {shape.heads});
    add(at + "post_attention_layernorm.weight", {hidden}, Draw::norm);
    add(at + "mlp.router.weight", {experts, hidden});
    add(at + "mlp.router.bias", {experts});
    for (const auto& [name, rows, k] :
         {std::tuple{"gate_up_proj", 2 * width, hidden}, {"down_proj", hidden, width}}) {
      add(concat(at, "mlp.experts.", name, "_blocks"), {experts, rows, k / 32, 16}, Draw::codes);
      add(concat(at, "mlp.experts.", name, "_scales"), {experts, rows, k / 32}, Draw::scales);
      add(concat(at, "mlp.experts.", name, "_bias"), {experts, rows});
    }
  }
  add("model.norm.weight", {hidden}, Draw::norm);
  add("lm_head.weight", {shape.vocabulary, hidden});
  return all;
}

std::uint64_t bytes_of(const TensorSpec& spec) {
  std::uint64_t bytes = spec.dtype == DType::bf16 ? 2 : 1;
  for (const std::uint64_t dimension : spec.shape) bytes *= dimension;
  return bytes;
}

std::string config_text(const GptOssShape& shape) {
  std::string layer_types;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer)
    layer_types += concat(layer ? ", " : "", layer % 2 ? "\"full_attention\"" : "\"sliding_attention\"");
  return concat(
      "{\"model_type\": \"gpt_oss\", \"num_hidden_layers\": ", shape.layers,
      ", \"hidden_size\": ", shape.hidden, ", \"vocab_size\": ", shape.vocabulary,
      ", \"num_attention_heads\": ", shape.heads, ", \"num_key_value_heads\": ", shape.kv_heads,
      ", \"head_dim\": ", shape.head_dim, ", \"num_local_experts\": ", shape.experts,
      ", \"num_experts_per_tok\": ", shape.experts_per_token, ", \"intermediate_size\": ", shape.expert_width,
      ", \"layer_types\": [", layer_types,
      "], \"sliding_window\": 128, \"max_position_embeddings\": 131072, \"initial_context_length\": 4096, "
      "\"attention_bias\": true, \"rms_norm_eps\": 1e-05, \"rope_theta\": 150000, \"rope_scaling\": "
      "{\"rope_type\": "
      "\"yarn\", \"factor\": 32.0, \"beta_fast\": 32.0, \"beta_slow\": 1.0, "
      "\"original_max_position_embeddings\": 4096, \"truncate\": false}, \"swiglu_limit\": 7.0, "
      "\"tie_word_embeddings\": false, \"quantization_config\": {\"quant_method\": \"mxfp4\"}}\n");
}

Status write_random_gpt_oss(const std::string& folder, const GptOssShape& shape, const Written& written) {
  const std::vector<RandomTensor> all = random_tensors(shape);
  std::vector<TensorSpec> specs;
  std::uint64_t total = 0, done = 0;
  for (const RandomTensor& tensor : all) {
    specs.push_back(tensor.spec);
    total += bytes_of(tensor.spec);
  }
  NIB_ASSIGN(SafetensorsWriter writer, SafetensorsWriter::create(folder + "/model.safetensors", specs));
  Random random;
  std::vector<std::uint64_t> piece(std::size_t{1} << 17);
  for (const RandomTensor& tensor : all) {
    for (std::uint64_t left = bytes_of(tensor.spec); left > 0;) {
      for (std::uint64_t& word : piece) word = draw(tensor.draw, random.next());
      const std::span<const std::byte> bytes = std::as_bytes(std::span(piece));
      const std::uint64_t size = std::min<std::uint64_t>(left, bytes.size());
      NIB_TRY(writer.append(bytes.first(static_cast<std::size_t>(size))));
      left -= size;
      written(done += size, total);
    }
  }
  NIB_TRY(writer.finish());
  std::ofstream config(folder + "/config.json");
  config << config_text(shape);
  return config.flush() ? Status() : Status(Code::io, concat(folder, "/config.json: cannot be written"));
}

}  // namespace nib::bench
