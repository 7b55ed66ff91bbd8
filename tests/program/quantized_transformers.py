#!/usr/bin/env python3
"""Quantized checkpoints of every architecture: nibble's logits are those of transformers with the same values in float32.

    quantized_transformers.py --tool logits_tool [--rounds N] [--only NAME] [--seed N]

Random models (random_models.py) in the layouts of FP8 with blocks, compressed-tensors and ModelOpt, written here from their
descriptions: which modules are quantized, is drawn by chance. Where bitsandbytes is installed, it and transformers write its
4 and 8 bits. Exits with 77 (skipped) when transformers is missing.
"""
import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile

import peers

parser = argparse.ArgumentParser()
parser.add_argument("--tool", required=True)
parser.add_argument("--program", help="not needed")
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--only", default="")
parser.add_argument("--seed", type=int, help="as an earlier run printed it")
options = parser.parse_args()
peers.need("numpy", "torch", "transformers", "safetensors")
import torch
import transformers
from random_models import MAKERS, gpt_oss, logits_of, random_model, same
from safetensors.torch import load_file, save_file

peers.draw_from(options.seed)

FP8 = torch.float8_e4m3fn
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
GROUP = 32


# Each takes a weight's name and values, puts what is stored for it into `out`, and returns the values that this means.

def fp8_by(name, w, out, scale, of_each, suffix="_scale"):
    codes = (w / of_each).to(FP8)
    out[name], out[name + suffix] = codes, scale
    return codes.float() * of_each


def fp8_block(name, w, out, side=128):
    rows, columns = -(-w.shape[0] // side), -(-w.shape[1] // side)
    padded = torch.zeros(rows * side, columns * side)
    padded[:w.shape[0], :w.shape[1]] = w
    scale = (padded.reshape(rows, side, columns, side).abs().amax((1, 3)) / 448).clamp(min=1e-12)
    of_each = scale.repeat_interleave(side, 0).repeat_interleave(side, 1)[:w.shape[0], :w.shape[1]]
    return fp8_by(name, w, out, scale, of_each, "_scale_inv")


def fp8_tensor(name, w, out):
    scale = (w.abs().max() / 448).reshape(1)
    return fp8_by(name, w, out, scale, scale)


def fp8_channel(name, w, out):
    scale = (w.abs().amax(1, keepdim=True) / 448).clamp(min=1e-9).bfloat16()
    return fp8_by(name, w, out, scale, scale.float())


def fp8_group(name, w, out):
    scale = (w.reshape(w.shape[0], -1, GROUP).abs().amax(2) / 448).clamp(min=1e-9)
    return fp8_by(name, w, out, scale, scale.repeat_interleave(GROUP, 1))


def int8_by(name, w, out, scale, of_each):
    codes = (w / of_each).round().clamp(-128, 127)
    out[name], out[name + "_scale"] = codes.to(torch.int8), scale
    return codes * of_each


def int8_channel(name, w, out):
    scale = (w.abs().amax(1, keepdim=True) / 127).clamp(min=1e-9)
    return int8_by(name, w, out, scale, scale)


def int8_group(name, w, out):
    scale = (w.reshape(w.shape[0], -1, GROUP).abs().amax(2) / 127).clamp(min=1e-9)
    return int8_by(name, w, out, scale, scale.repeat_interleave(GROUP, 1))


def nvfp4(w):
    """Two codes a byte, the E4M3 scales of sixteen values, what these are divided by, and the values."""
    divisor = 448 * 6 / w.abs().max()
    groups = w.reshape(w.shape[0], -1, 16)
    scale = (groups.abs().amax(2) / 6 * divisor).to(FP8)
    of_each = (scale.float() / divisor)[..., None]
    level = ((groups / of_each.clamp(min=1e-30)).abs()[..., None] - E2M1).abs().argmin(-1)
    values = E2M1[level] * torch.sign(groups) * of_each
    codes = (level + 8 * (groups < 0)).to(torch.uint8).reshape(w.shape)
    return codes[:, 0::2] | codes[:, 1::2] << 4, scale, divisor, values.reshape(w.shape)


def nvfp4_compressed(name, w, out):
    out[name + "_packed"], out[name + "_scale"], divisor, values = nvfp4(w)
    out[name + "_global_scale"] = divisor.reshape(1)
    return values


def nvfp4_modelopt(name, w, out):
    out[name], out[name + "_scale"], divisor, values = nvfp4(w)
    out[name + "_scale_2"], out[name[:-len("weight")] + "input_scale"] = 1 / divisor, torch.tensor(1.0)
    return values


def fp8_modelopt(name, w, out):
    out[name[:-len("weight")] + "input_scale"] = torch.tensor(0.5)
    scale = w.abs().max() / 448
    return fp8_by(name, w, out, scale, scale)


def compressed(form, **weights):
    return dict(quant_method="compressed-tensors", format=form, quantization_status="compressed", ignore=["lm_head"],
                config_groups={"group_0": {"targets": ["Linear"], "weights": dict(weights, symmetric=True)}})


def eight(kind, form, strategy, **more):
    return compressed(form, num_bits=8, type=kind, strategy=strategy, **more)


LAYOUTS = {
    fp8_block: dict(quant_method="fp8", weight_block_size=[128, 128], activation_scheme="dynamic"),
    fp8_tensor: eight("float", "float-quantized", "tensor"),
    fp8_channel: eight("float", "float-quantized", "channel"),
    fp8_group: eight("float", "float-quantized", "group", group_size=GROUP),
    int8_channel: eight("int", "int-quantized", "channel"),
    int8_group: eight("int", "int-quantized", "group", group_size=GROUP),
    nvfp4_compressed: compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16),
    nvfp4_modelopt: dict(quant_method="modelopt", quant_algo="NVFP4", group_size=16),
    fp8_modelopt: dict(quant_method="modelopt", quant_algo="FP8"),
}
LINEAR = ("proj.weight", ".w1.weight", ".w2.weight", ".w3.weight", "query_key_value.weight", "dense.weight", "_4h.weight",
          "_to_h.weight")


def store(model, layout, folder):
    """Writes the model so, and gives it the values that were written."""
    model.save_pretrained(folder)
    file, config_file = (os.path.join(folder, name) for name in ("model.safetensors", "config.json"))
    out, leaves_out = {}, random.random() < 0.5
    for name, w in load_file(file).items():
        chosen = name.endswith(LINEAR) and w.shape[1] % GROUP == 0
        if ".experts." not in name:  # those of a layer are of one kind
            chosen = chosen and not (leaves_out and random.random() < 0.3)
        if chosen:
            model_weight(model, name).data.copy_(layout(name, w, out))
        else:
            out[name] = w
    save_file({name: w.contiguous() for name, w in out.items()}, file, metadata={"format": "pt"})
    with open(config_file) as stream:
        config = json.load(stream)
    config["quantization_config"] = LAYOUTS[layout]
    with open(config_file, "w") as stream:
        json.dump(config, stream)


def model_weight(model, name):
    """The parameter of that name in files: transformers stacks experts, gates above ups."""
    found = dict(model.named_parameters())
    if name in found:
        return found[name]
    before, after = name.replace("block_sparse_moe", "mlp").split(".experts.")
    number, part = after.split(".")[:2]
    both = found[before + ".experts.gate_up_proj"][int(number)]
    half = both.shape[0] // 2
    return {"gate_proj": both[:half], "w1": both[:half], "up_proj": both[half:], "w3": both[half:],
            "down_proj": found[before + ".experts.down_proj"][int(number)],
            "w2": found[before + ".experts.down_proj"][int(number)]}[part]


def compare(make, layout, folder):
    model = random_model(make)
    store(model, layout, folder)
    ids = [random.randrange(model.config.vocab_size) for _ in range(20)]
    return same(f"{make.__name__} {layout.__name__}", options.tool, folder, ids, logits_of(model, ids))


def compare_bitsandbytes(make, folder):
    form = random.choice(("nf4", "nf4-double", "fp4", "fp4-double", "int8"))
    how = transformers.BitsAndBytesConfig(load_in_8bit=True) if form == "int8" else transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=form[:3], bnb_4bit_use_double_quant=form.endswith("double"),
        bnb_4bit_compute_dtype=torch.float32)
    plain, stored = os.path.join(folder, "plain"), os.path.join(folder, "stored")
    model = random_model(make)
    model.save_pretrained(plain)
    quantized = type(model).from_pretrained(plain, quantization_config=how, dtype=torch.float32, device_map="cpu",
                                            attn_implementation="eager").eval()
    quantized.save_pretrained(stored)
    if form == "int8":  # whose own product rounds activations too
        state = quantized.state_dict()
        for name, scales in [(name, w) for name, w in state.items() if name.endswith(".SCB")]:
            weight = name[:-len("SCB")] + "weight"
            model_weight(model, weight).data.copy_(state[weight].double() * scales.double()[:, None] / 127)
    else:
        model = quantized
    ids = [random.randrange(model.config.vocab_size) for _ in range(20)]
    return same(f"{make.__name__} bitsandbytes {form}", options.tool, stored, ids, logits_of(model, ids))


bad = 0
for _ in range(options.rounds):
    for make in MAKERS:
        if make is gpt_oss:  # which is published in MXFP4
            continue
        for layout in LAYOUTS:
            if options.only in f"{make.__name__} {layout.__name__}":
                with tempfile.TemporaryDirectory() as folder:
                    bad += not compare(make, layout, folder)
        if importlib.util.find_spec("bitsandbytes") and options.only in f"{make.__name__} bitsandbytes":
            with tempfile.TemporaryDirectory() as folder:
                bad += not compare_bitsandbytes(make, folder)
print("differences:", bad)
sys.exit(bad > 0)
