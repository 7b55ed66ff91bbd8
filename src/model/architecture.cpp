#include <nibble/model/architecture.hpp>

namespace nib::inline v0 {
namespace {

constexpr TensorNames kGptOss[] = {
    {
        .embedding = "model.embed_tokens.weight",
        .final_norm = "model.norm.weight",
        .head = "lm_head.weight",
        .attention_norm = "model.layers.{}.input_layernorm.weight",
        .qkv = {"model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.self_attn.k_proj.weight",
                "model.layers.{}.self_attn.v_proj.weight"},
        .qkv_bias = {"model.layers.{}.self_attn.q_proj.bias", "model.layers.{}.self_attn.k_proj.bias",
                     "model.layers.{}.self_attn.v_proj.bias"},
        .sinks = "model.layers.{}.self_attn.sinks",
        .output = "model.layers.{}.self_attn.o_proj.weight",
        .output_bias = "model.layers.{}.self_attn.o_proj.bias",
        .mlp_norm = "model.layers.{}.post_attention_layernorm.weight",
        .router = "model.layers.{}.mlp.router.weight",
        .router_bias = "model.layers.{}.mlp.router.bias",
        .gate_up = "model.layers.{}.mlp.experts.gate_up_proj",
        .gate_up_bias = "model.layers.{}.mlp.experts.gate_up_proj_bias",
        .down = "model.layers.{}.mlp.experts.down_proj",
        .down_bias = "model.layers.{}.mlp.experts.down_proj_bias",
    },
    {
        // OpenAI's own files
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
        .gate_up = "block.{}.mlp.mlp1_weight",
        .gate_up_bias = "block.{}.mlp.mlp1_bias",
        .down = "block.{}.mlp.mlp2_weight",
        .down_bias = "block.{}.mlp.mlp2_bias",
    },
};

constexpr Architecture kArchitectures[] = {{"gpt-oss", "gpt_oss", kGptOss}};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

std::string layer_name(std::string_view pattern, unsigned layer) {
  std::string name(pattern);
  if (const auto at = name.find("{}"); at != std::string::npos) name.replace(at, 2, std::to_string(layer));
  return name;
}

}  // namespace nib::inline v0
