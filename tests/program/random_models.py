"""Models of random weights and random configurations, of every architecture that nibble has: for the comparisons with
transformers. Each function of MAKERS returns a class and a configuration; random_model() makes one of them.
"""
import random
import subprocess

import numpy as np
import torch
import transformers

pick = random.choice


def sizes():
    kv_heads = pick((1, 2, 4))
    heads = kv_heads * pick((1, 2, 3))
    head_dim = pick((16, 32, 64))
    return dict(hidden_size=heads * pick((16, 32, 48)), intermediate_size=32 * random.randint(2, 9),
                num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
                num_hidden_layers=random.randint(1, 4), vocab_size=random.randint(50, 400),
                max_position_embeddings=pick((256, 512)), initializer_range=0.15,
                rms_norm_eps=pick((1e-5, 1e-6)), tie_word_embeddings=pick((True, False)))


def rope(context, *kinds):
    kind = pick(("default", "default") + kinds)
    out = dict(rope_type=kind, rope_theta=pick((1e4, 5e5, 1e6)))
    if kind in ("linear", "dynamic", "yarn", "llama3"):
        out["factor"] = pick((2.0, 4.0, 8.0))
    if kind in ("yarn", "llama3"):
        out["original_max_position_embeddings"] = context // 4
    if kind == "llama3":
        out.update(low_freq_factor=1.0, high_freq_factor=4.0)
    if kind == "yarn" and pick((True, False)):
        out.update(beta_fast=16.0, beta_slow=2.0)
    if kind == "yarn" and pick((True, False)):
        out.update(attention_factor=1.25)
    if kind == "yarn" and pick((True, False)):
        out.update(truncate=False)
    return out


def with_rope(config, *kinds):
    config["rope_parameters"] = rope(config["max_position_embeddings"], *kinds)
    return config


def upper_windows(config):
    if pick((True, False)):
        config.update(use_sliding_window=True, sliding_window=pick((4, 9, 16)),
                      max_window_layers=random.randint(0, config["num_hidden_layers"]))
    return config


def experts():
    count = random.randint(2, 9)
    return dict(num_experts_per_tok=random.randint(1, min(4, count))), count


def llama():
    config = with_rope(sizes(), "linear", "dynamic", "llama3", "yarn")
    config.update(attention_bias=pick((True, False)), mlp_bias=pick((True, False)))
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**config)


def mistral():
    config = with_rope(sizes(), "yarn")
    config.update(sliding_window=pick((None, 4, 13)))
    return transformers.MistralForCausalLM, transformers.MistralConfig(**config)


def mixtral():
    config = with_rope(sizes())
    more, count = experts()
    config.update(more, num_local_experts=count, sliding_window=pick((None, 8)))
    return transformers.MixtralForCausalLM, transformers.MixtralConfig(**config)


def qwen2():
    config = upper_windows(with_rope(sizes(), "yarn"))
    del config["head_dim"]
    config["hidden_size"] = config["num_attention_heads"] * pick((16, 32))
    return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**config)


def qwen3():
    config = upper_windows(with_rope(sizes(), "yarn"))
    config.update(attention_bias=pick((True, False)))
    return transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**config)


def qwen3_moe():
    config = with_rope(sizes(), "yarn")
    more, count = experts()
    config.update(more, num_experts=count, norm_topk_prob=pick((True, False)), attention_bias=pick((True, False)),
                  moe_intermediate_size=32 * random.randint(1, 5))
    return transformers.Qwen3MoeForCausalLM, transformers.Qwen3MoeConfig(**config)


def neox():
    config = sizes()
    for key in ("num_key_value_heads", "head_dim", "rms_norm_eps"):
        del config[key]
    config["hidden_size"] = config["num_attention_heads"] * pick((16, 32, 64))
    config.update(use_parallel_residual=pick((True, False)), attention_bias=pick((True, False)),
                  hidden_act=pick(("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")))
    with_rope(config)
    config["rope_parameters"]["partial_rotary_factor"] = pick((0.25, 0.5, 1.0))
    return transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(**config)


def gpt_oss():
    config = sizes()
    config["rope_parameters"] = rope(config["max_position_embeddings"], "yarn", "yarn")
    more, count = experts()
    config.update(more, num_local_experts=count, sliding_window=pick((4, 16)), tie_word_embeddings=False)
    return transformers.GptOssForCausalLM, transformers.GptOssConfig(**config)


def disturb(model):
    """Norms and biases begin as ones and zeros, which would hide what becomes of them."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))


MAKERS = (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, neox, gpt_oss)


def random_model(make):
    kind, config = make()
    config._attn_implementation = "eager"
    model = kind(config).float().eval()
    disturb(model)
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].float().numpy()


def same(what, tool, path, ids, theirs):
    """Whether nibble, in f32, has these logits behind the ids; says so."""
    run = subprocess.run([tool, path] + [str(i) for i in ids], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ours = np.frombuffer(run.stdout, "<f4")
    comparable = ours.shape == theirs.shape
    worst = np.abs(ours - theirs).max() if comparable else run.stderr.decode().strip()
    good = comparable and worst <= 2e-4 * theirs.std()
    print(f"{what}: {worst} of {theirs.std():.3g}" + ("" if good else " WRONG"))
    return good
