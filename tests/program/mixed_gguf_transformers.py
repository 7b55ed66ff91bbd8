#!/usr/bin/env python3
"""GGUF files whose tensors are of many formats: nibble's logits are those of transformers, which reads them through the
gguf package.

    mixed_gguf_transformers.py --program nibble --tool logits_tool [--rounds N]

Small models of random weights are written by `nibble quantize` as GGUF files of f32. Then every matrix gets blocks of a
format drawn by chance, so that q, k and v, gate and up, and the layers differ: formats that the gguf package encodes hold the
weights, the others random codes under small scales. Logits are compared in float32 from the same file. Exits with 77
(skipped) when a package is missing.
"""
import argparse
import os
import random
import subprocess
import tempfile

import peers

parser = argparse.ArgumentParser()
parser.add_argument("--program", required=True)
parser.add_argument("--tool", required=True)
parser.add_argument("--rounds", type=int, default=2)
options = parser.parse_args()
peers.need("numpy", "torch", "transformers", "gguf")
import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

seed = peers.draw_from()
noise = np.random.default_rng(seed)

ENCODED = (Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)
# Where the f16 scales of a block are, of formats that the package decodes alone.
SCALES_AT = {Type.Q2_K: (80, 82), Type.Q3_K: (108,), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,),
             Type.IQ4_NL: (0,), Type.IQ4_XS: (0,)}
COMMON = dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
              num_hidden_layers=3, vocab_size=320, max_position_embeddings=512, initializer_range=0.1)
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON, tie_word_embeddings=False)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**COMMON, tie_word_embeddings=True)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**COMMON, tie_word_embeddings=False)),
    "qwen3-moe": lambda: transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
        **COMMON, moe_intermediate_size=256, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True,
        tie_word_embeddings=False)),
}


def blocks_of(values, kind):
    """The bytes of a matrix (or a stack of them) in a format, rows as rows."""
    if kind in ENCODED:
        return gguf.quants.quantize(values, kind)
    group, size = gguf.GGML_QUANT_SIZES[kind]
    data = noise.integers(0, 256, (values.size // group, size), dtype=np.uint8)

    def set_scales(scales):
        for at in SCALES_AT[kind]:
            data[:, at:at + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)

    set_scales(np.ones(len(data)))
    unit = gguf.quants.dequantize(data[:256], kind).std()
    set_scales(values.std() / unit * noise.uniform(0.5, 1.5, len(data)))  # so that they spread as the weights did
    return data.reshape(*values.shape[:-1], -1)


def rewrite(source, target):
    """The same file with every matrix in a format of its own. Returns the formats."""
    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inside = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inside)
    used = set()
    for tensor in reader.tensors:
        values = tensor.data
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
            continue
        kind = random.choice(ENCODED + tuple(SCALES_AT))
        used.add(kind.name)
        writer.add_tensor(tensor.name, blocks_of(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return used


def compare(name, make, folder):
    plain, mixed = os.path.join(folder, name), os.path.join(folder, name + "-mixed.gguf")
    make().save_pretrained(plain)
    floats = os.path.join(folder, name + ".gguf")
    subprocess.run([options.program, "quantize", plain, floats, "--format", "f32"], check=True,
                   stdout=subprocess.DEVNULL)
    used = rewrite(floats, mixed)
    ids = [random.randrange(320) for _ in range(40)]
    run = subprocess.run([options.tool, mixed] + [str(i) for i in ids], stdout=subprocess.PIPE, check=True)
    a = np.frombuffer(run.stdout, "<f4")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=os.path.basename(mixed), config=transformers.AutoConfig.from_pretrained(plain),
        attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        b = model(torch.tensor([ids])).logits[0, -1].float().numpy()
    worst, spread = np.abs(a - b).max(), b.std()
    print(f"{name}: largest difference {worst:.2g}, logits spread over {spread:.2g}; {' '.join(sorted(used))}")
    assert a.shape == b.shape and np.isfinite(b).all() and spread > 0 and worst <= 2e-4 * spread, name
    for path in (floats, mixed):
        os.remove(path)


for _ in range(options.rounds):
    for name, make in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, make, folder)
