#include <nibble/model/architecture.hpp>

namespace nib::inline v0 {
namespace {

// OpenAI's own files.
constexpr TensorNames kOriginalGptOss = {
    .embedding = "embedding.weight",
    .final_norm = "norm.scale",
    .head = "unembedding.weight",
    .attention_norm = "block.{}.attn.norm.scale",
    .qkv = {"block.{}.attn.qkv.weight", "", ""},
    .qkv_bias = {"block.{}.attn.qkv.bias", "", ""},
    .sinks = "block.{}.attn.sinks",
    .output = "block.{}.attn.out.weight",
    .output_bias = "block.{}.attn.out.bias",
    .mlp_norm = "block.{}.mlp.norm.scale",
    .router = "block.{}.mlp.gate.weight",
    .router_bias = "block.{}.mlp.gate.bias",
    .gate = "block.{}.mlp.mlp1_weight",
    .gate_bias = "block.{}.mlp.mlp1_bias",
    .down = "block.{}.mlp.mlp2_weight",
    .down_bias = "block.{}.mlp.mlp2_bias",
};

// Llama and those that named their tensors after it.
constexpr TensorNames kLlamaLike = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .attention_norm = "model.layers.{}.input_layernorm.weight",
    .qkv = {"model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.self_attn.k_proj.weight",
            "model.layers.{}.self_attn.v_proj.weight"},
    .qkv_bias = {"model.layers.{}.self_attn.q_proj.bias", "model.layers.{}.self_attn.k_proj.bias",
                 "model.layers.{}.self_attn.v_proj.bias"},
    .output = "model.layers.{}.self_attn.o_proj.weight",
    .output_bias = "model.layers.{}.self_attn.o_proj.bias",
    .mlp_norm = "model.layers.{}.post_attention_layernorm.weight",
    .gate = "model.layers.{}.mlp.gate_proj.weight",
    .gate_bias = "model.layers.{}.mlp.gate_proj.bias",
    .up = "model.layers.{}.mlp.up_proj.weight",
    .up_bias = "model.layers.{}.mlp.up_proj.bias",
    .down = "model.layers.{}.mlp.down_proj.weight",
    .down_bias = "model.layers.{}.mlp.down_proj.bias",
};

constexpr TensorNames gpt_oss() {
  TensorNames names = kLlamaLike;
  names.sinks = "model.layers.{}.self_attn.sinks";
  names.router = "model.layers.{}.mlp.router.weight";
  names.router_bias = "model.layers.{}.mlp.router.bias";
  names.gate = "model.layers.{}.mlp.experts.gate_up_proj";
  names.gate_bias = "model.layers.{}.mlp.experts.gate_up_proj_bias";
  names.up = names.up_bias = "";  // rows of both alternate
  names.down = "model.layers.{}.mlp.experts.down_proj";
  names.down_bias = "model.layers.{}.mlp.experts.down_proj_bias";
  return names;
}

constexpr TensorNames with_head_norms(TensorNames names) {
  names.q_norm = "model.layers.{}.self_attn.q_norm.weight";
  names.k_norm = "model.layers.{}.self_attn.k_norm.weight";
  return names;
}

constexpr TensorNames without_expert_biases(TensorNames names) {
  names.gate_bias = names.up_bias = names.down_bias = "";
  return names;
}

constexpr TensorNames mixtral() {
  TensorNames names = without_expert_biases(kLlamaLike);
  names.router = "model.layers.{}.block_sparse_moe.gate.weight";
  names.gate = "model.layers.{}.block_sparse_moe.experts.<>.w1.weight";
  names.up = "model.layers.{}.block_sparse_moe.experts.<>.w3.weight";
  names.down = "model.layers.{}.block_sparse_moe.experts.<>.w2.weight";
  return names;
}

constexpr TensorNames qwen3_moe() {
  TensorNames names = without_expert_biases(with_head_norms(kLlamaLike));
  names.router = "model.layers.{}.mlp.gate.weight";
  names.gate = "model.layers.{}.mlp.experts.<>.gate_proj.weight";
  names.up = "model.layers.{}.mlp.experts.<>.up_proj.weight";
  names.down = "model.layers.{}.mlp.experts.<>.down_proj.weight";
  return names;
}

// The names of GGUF files, and what its architectures do otherwise.
constexpr TensorNames kGguf = {
    .embedding = "token_embd.weight",
    .final_norm = "output_norm.weight",
    .head = "output.weight",
    .attention_norm = "blk.{}.attn_norm.weight",
    .qkv = {"blk.{}.attn_q.weight", "blk.{}.attn_k.weight", "blk.{}.attn_v.weight"},
    .qkv_bias = {"blk.{}.attn_q.bias", "blk.{}.attn_k.bias", "blk.{}.attn_v.bias"},
    .output = "blk.{}.attn_output.weight",
    .output_bias = "blk.{}.attn_output.bias",
    .mlp_norm = "blk.{}.ffn_norm.weight",
    .gate = "blk.{}.ffn_gate.weight",
    .gate_bias = "blk.{}.ffn_gate.bias",
    .up = "blk.{}.ffn_up.weight",
    .up_bias = "blk.{}.ffn_up.bias",
    .down = "blk.{}.ffn_down.weight",
    .down_bias = "blk.{}.ffn_down.bias",
    .rope_divisors = "rope_freqs.weight",
};

constexpr TensorNames gguf_experts(TensorNames names) {
  names.router = "blk.{}.ffn_gate_inp.weight";
  names.gate = "blk.{}.ffn_gate_exps.weight";
  names.gate_bias = "blk.{}.ffn_gate_exps.bias";
  names.up = "blk.{}.ffn_up_exps.weight";
  names.up_bias = "blk.{}.ffn_up_exps.bias";
  names.down = "blk.{}.ffn_down_exps.weight";
  names.down_bias = "blk.{}.ffn_down_exps.bias";
  return names;
}
// Files of early 2024 and before have a tensor for each expert.
constexpr TensorNames gguf_single_experts(TensorNames names) {
  names = without_expert_biases(gguf_experts(names));
  names.gate = "blk.{}.ffn_gate.<>.weight";
  names.up = "blk.{}.ffn_up.<>.weight";
  names.down = "blk.{}.ffn_down.<>.weight";
  return names;
}
constexpr TensorNames gguf_pairs(TensorNames names) {
  names.qkv_order = QkvOrder::pairs;
  return names;
}
constexpr TensorNames gguf_head_norms(TensorNames names) {
  names.q_norm = "blk.{}.attn_q_norm.weight";
  names.k_norm = "blk.{}.attn_k_norm.weight";
  return names;
}
constexpr TensorNames gguf_gpt_oss() {
  TensorNames names = gguf_experts(kGguf);
  names.router_bias = "blk.{}.ffn_gate_inp.bias";
  names.mlp_norm = "blk.{}.post_attention_norm.weight";
  names.sinks = "blk.{}.attn_sinks.weight";
  return names;
}
constexpr TensorNames gguf_neox() {
  TensorNames names = kGguf;
  names.final_norm_bias = "output_norm.bias";
  names.attention_norm_bias = "blk.{}.attn_norm.bias";
  names.qkv[0] = "blk.{}.attn_qkv.weight";
  names.qkv_bias[0] = "blk.{}.attn_qkv.bias";
  names.qkv[1] = names.qkv[2] = names.qkv_bias[1] = names.qkv_bias[2] = "";
  names.mlp_norm_bias = "blk.{}.ffn_norm.bias";
  names.gate = names.gate_bias = "";
  return names;
}

constexpr TensorNames kLlama[] = {kLlamaLike, gguf_pairs(kGguf)};
constexpr TensorNames kQwen2[] = {kLlamaLike, kGguf};
constexpr TensorNames kQwen3[] = {with_head_norms(kLlamaLike), gguf_head_norms(kGguf)};
constexpr TensorNames kMixtral[] = {mixtral(), gguf_pairs(gguf_experts(kGguf)),
                                    gguf_pairs(gguf_single_experts(kGguf))};
constexpr TensorNames kQwen3Moe[] = {qwen3_moe(), gguf_head_norms(gguf_experts(kGguf))};

constexpr TensorNames kGptOss[] = {gpt_oss(), kOriginalGptOss, gguf_gpt_oss()};

constexpr TensorNames kNeox[] = {
    {
        .embedding = "gpt_neox.embed_in.weight",
        .final_norm = "gpt_neox.final_layer_norm.weight",
        .final_norm_bias = "gpt_neox.final_layer_norm.bias",
        .head = "embed_out.weight",
        .attention_norm = "gpt_neox.layers.{}.input_layernorm.weight",
        .attention_norm_bias = "gpt_neox.layers.{}.input_layernorm.bias",
        .qkv = {"gpt_neox.layers.{}.attention.query_key_value.weight", "", ""},
        .qkv_bias = {"gpt_neox.layers.{}.attention.query_key_value.bias", "", ""},
        .qkv_order = QkvOrder::per_head,
        .output = "gpt_neox.layers.{}.attention.dense.weight",
        .output_bias = "gpt_neox.layers.{}.attention.dense.bias",
        .mlp_norm = "gpt_neox.layers.{}.post_attention_layernorm.weight",
        .mlp_norm_bias = "gpt_neox.layers.{}.post_attention_layernorm.bias",
        .up = "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight",
        .up_bias = "gpt_neox.layers.{}.mlp.dense_h_to_4h.bias",
        .down = "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight",
        .down_bias = "gpt_neox.layers.{}.mlp.dense_4h_to_h.bias",
    },
    gguf_neox()};

constexpr Architecture kArchitectures[] = {
    {.name = "gpt-oss",
     .model_type = "gpt_oss",
     .model_class = "GptOssForCausalLM",
     .dialects = kGptOss,
     .activation = Activation::clamped_swiglu,
     .experts_key = "num_local_experts",
     .default_epsilon = 1e-5,
     .windows = WindowRule::even_layers,
     .qkv_bias = true,
     .output_bias = true,
     .expert_bias = true},
    {.name = "llama", .model_type = "llama", .model_class = "LlamaForCausalLM", .dialects = kLlama},
    {.name = "mistral",
     .model_type = "mistral",
     .model_class = "MistralForCausalLM",
     .dialects = kLlama,
     .windows = WindowRule::all_layers},
    {.name = "mixtral",
     .model_type = "mixtral",
     .model_class = "MixtralForCausalLM",
     .dialects = kMixtral,
     .experts_key = "num_local_experts",
     .default_epsilon = 1e-5,
     .default_theta = 1e6,
     .windows = WindowRule::all_layers},
    {.name = "qwen2",
     .model_type = "qwen2",
     .model_class = "Qwen2ForCausalLM",
     .dialects = kQwen2,
     .windows = WindowRule::upper_layers,
     .qkv_bias = true},
    {.name = "qwen3",
     .model_type = "qwen3",
     .model_class = "Qwen3ForCausalLM",
     .dialects = kQwen3,
     .windows = WindowRule::upper_layers},
    {.name = "qwen3-moe",
     .model_type = "qwen3_moe",
     .model_class = "Qwen3MoeForCausalLM",
     .dialects = kQwen3Moe,
     .experts_key = "num_experts",
     .width_key = "moe_intermediate_size",
     .windows = WindowRule::upper_layers},
    {.name = "gpt-neox",
     .model_type = "gpt_neox",
     .model_class = "GPTNeoXForCausalLM",
     .dialects = kNeox,
     .norm = NormKind::layer,
     .activation = Activation::gelu,
     .epsilon_key = "layer_norm_eps",
     .theta_key = "rotary_emb_base",
     .rotary_key = "rotary_pct",
     .default_epsilon = 1e-5,
     .default_rotary = 0.25,
     .qkv_bias = true,
     .output_bias = true,
     .expert_bias = true},
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

std::string tensor_name(std::string_view pattern, unsigned layer, unsigned expert) {
  std::string name(pattern);
  if (const auto at = name.find("{}"); at != std::string::npos) name.replace(at, 2, std::to_string(layer));
  if (const auto at = name.find("<>"); at != std::string::npos) name.replace(at, 2, std::to_string(expert));
  return name;
}

}  // namespace nib::inline v0
