#!/usr/bin/env python3
"""What `nibble quantize` writes, as transformers opens it: the logits are those of nibble.

    quantize_transformers.py --program nibble --tool logits_tool [--tales DIR]

The story model, and a small Llama that transformers makes of random weights, go through every format that transformers has a
way to read without a graphics card. Logits are compared in float32 from the same file; where the package rounds weights on
its way (to bf16), within what that rounding allows. Exits with 77 (skipped) when
transformers is missing; formats whose package is missing are named and left out.
"""
import argparse
import importlib.util
import os
import random
import subprocess
import tempfile

import peers

parser = argparse.ArgumentParser()
parser.add_argument("--program", required=True)
parser.add_argument("--tool", required=True)
parser.add_argument("--tales", default=os.path.join(os.path.dirname(__file__), "../../examples/models/tales"))
options = parser.parse_args()
peers.need("numpy", "torch", "transformers")
import numpy as np
import torch
import transformers

peers.draw_from()


def quantize(model, out, form):
    subprocess.run([options.program, "quantize", model, out, "--format", form], check=True, stdout=subprocess.DEVNULL)
    return out


def ours(path, ids):
    run = subprocess.run([options.tool, path] + [str(i) for i in ids], stdout=subprocess.PIPE, check=True)
    return np.frombuffer(run.stdout, "<f4")


def unquantized(model, config):
    """A model of float weights that are those of LLM.int8's: its own product rounds activations too."""
    state = {}
    for name, value in model.state_dict().items():
        if value.dtype == torch.int8:
            value = value.double() * model.state_dict()[name[:-len("weight")] + "SCB"].double()[:, None] / 127
        if not name.endswith((".SCB", ".weight_format")):
            state[name] = value.float()
    plain = transformers.LlamaForCausalLM(config)
    plain.load_state_dict(state)
    return plain


def theirs(path, ids, plain_config=None, **how):
    how.setdefault("dtype", torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **how).eval()
    if plain_config:
        model = unquantized(model, plain_config).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].float().numpy()


def check(what, path, ids, tolerance, file=None, **how):
    a = ours(file or path, ids)
    b = theirs(path, ids, **how)
    assert a.shape == b.shape, (what, a.shape, b.shape)
    worst, spread = np.abs(a - b).max(), b.std()
    print(f"{what}: largest difference {worst:.2g}, logits spread over {spread:.2g}")
    assert np.isfinite(b).all() and worst <= tolerance * spread, what


EXACT, ROUNDED = 2e-4, 0.3
with tempfile.TemporaryDirectory() as folder:
    ids = [random.randrange(4000) for _ in range(40)]
    plain = quantize(options.tales, os.path.join(folder, "tales-bf16"), "bf16")
    check("tales bf16", plain, ids, EXACT)
    check("tales f16", quantize(options.tales, os.path.join(folder, "tales-f16"), "f16"), ids, EXACT)
    again = quantize(plain, os.path.join(folder, "tales-mxfp4"), "mxfp4")
    check("tales mxfp4", again, ids, EXACT, quantization_config=transformers.Mxfp4Config(dequantize=True))
    file = quantize(again, os.path.join(folder, "tales.gguf"), "mxfp4")
    check("tales out of GGUF", quantize(file, os.path.join(folder, "tales-back"), "mxfp4"), ids, EXACT,
          quantization_config=transformers.Mxfp4Config(dequantize=True))

    config = transformers.LlamaConfig(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2,
                                      num_hidden_layers=2, vocab_size=320, max_position_embeddings=512,
                                      tie_word_embeddings=False, initializer_range=0.2)
    llama = os.path.join(folder, "llama")
    transformers.LlamaForCausalLM(config).save_pretrained(llama)
    ids = [random.randrange(320) for _ in range(40)]
    for form in ("f32", "bf16", "f16"):
        check("llama " + form, quantize(llama, os.path.join(folder, form), form), ids, EXACT)
        file = quantize(llama, os.path.join(folder, "whole-" + form + ".gguf"), form)
        check("llama out of GGUF, " + form, quantize(file, os.path.join(folder, "back-" + form), form), ids, EXACT)
    if importlib.util.find_spec("bitsandbytes"):
        for form in ("nf4", "nf4-double", "fp4", "fp4-double"):
            check("llama " + form, quantize(llama, os.path.join(folder, form), form), ids, EXACT)
        check("llama llm-int8", quantize(llama, os.path.join(folder, "llm-int8"), "llm-int8"), ids, EXACT,
              plain_config=config)
    else:
        print("left out: bitsandbytes is not installed")
    check("llama fp8", quantize(llama, os.path.join(folder, "fp8"), "fp8"), ids, EXACT,
          quantization_config=transformers.FineGrainedFP8Config(dequantize=True))
    if importlib.util.find_spec("compressed_tensors"):
        for form in ("fp8-row", "fp8-tensor", "int8", "nvfp4"):
            check("llama " + form, quantize(llama, os.path.join(folder, form), form), ids,
                  ROUNDED if form == "nvfp4" else EXACT,
                  quantization_config=transformers.CompressedTensorsConfig(run_compressed=False))
    else:
        print("left out: compressed-tensors is not installed")
    if importlib.util.find_spec("gguf"):
        for form in ("f32", "bf16", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"):
            file = quantize(llama, os.path.join(folder, form + ".gguf"), form)
            check("llama " + form + ".gguf", folder, ids, EXACT, file=file, gguf_file=form + ".gguf")
    else:
        print("left out: gguf is not installed")
