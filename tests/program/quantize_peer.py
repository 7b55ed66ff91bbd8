#!/usr/bin/env python3
"""What `nibble quantize` writes, as other programs read it.

    quantize_peer.py --program nibble --tool checkpoint_tool [--tales DIR] [--data DIR]

The story model is quantized into every format, and each model of the data folder into some, drawn anew. The safetensors package opens the
directories, and their numbers by the formulas of the formats are those that the library finds; the gguf package opens the
GGUF files and dequantizes them to the same numbers, and where it quantizes too, its bytes are ours. Exits with 77 (skipped)
when numpy is missing; without gguf or safetensors their parts are left out.
"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
parser.add_argument("--program", required=True)
parser.add_argument("--tool", required=True)
parser.add_argument("--tales", required=True)
options = parser.parse_args()
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "io"))
try:
    import numpy as np
except ImportError:
    print("skipped: the package numpy is not installed")
    sys.exit(77)
try:
    import gguf
except ImportError:
    gguf = None
    print("left out: the package gguf is not installed")
try:
    import safetensors
except ImportError:
    safetensors = None
    print("left out: the package safetensors is not installed")
from formulas import by_the_tool, compare, decode, read_directory

DIRECTORIES = ["nvfp4", "nf4", "nf4-double", "fp4", "fp4-double", "llm-int8", "int8", "fp8", "fp8-row", "fp8-tensor",
               "bf16", "f16", "f32"]
FILES = ["mxfp4", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16", "f16", "f32"]


def quantize(model, out, form):
    """Whether there was something to quantize."""
    run = subprocess.run([options.program, "quantize", model, out, "--format", form], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    assert run.returncode in (0, 2), (model, form, run.stderr.decode())
    return run.returncode == 0


def check_directory(path):
    config = json.load(open(os.path.join(path, "config.json")))
    stored = read_directory(path)
    compare(path, decode(stored, config), by_the_tool(options.tool, path))
    if safetensors:
        with open(os.path.join(path, "model.safetensors"), "rb") as file:
            seen = dict(safetensors.deserialize(file.read()))
        assert set(seen) == set(stored), path
        for name, entry in seen.items():
            assert bytes(entry["data"]) == stored[name][2], (path, name)


def gguf_tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def check_file(path, plain):
    """`plain`: {name: values}, of the same model in f32."""
    found, quantized = by_the_tool(options.tool, path), 0
    tensors = gguf_tensors(path)
    assert set(tensors) == set(found) == set(plain), path
    for name, tensor in tensors.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(float).reshape(plain[name].shape)
        ours = found[name][2]
        assert (np.abs(values - ours) <= 2e-7 * np.abs(values)).all(), (path, name)
        if tensor.tensor_type.name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16"):
            again = gguf.quants.quantize(plain[name], tensor.tensor_type)
            same = again.view(np.uint8).reshape(-1) == tensor.data.view(np.uint8).reshape(-1)
            # The package divides where ggml multiplies by a reciprocal: a value in the middle may go either way.
            assert same.mean() > (0.999 if tensor.tensor_type.name != "BF16" else 1 - 1e-12), (path, name, same.mean())
            quantized += 1
    return quantized


models = [options.tales]
if options.data:
    found = glob.glob(os.path.join(options.data, "models", "*", "config.json"))
    models += sorted(os.path.dirname(path) for path in found)
seed = random.randrange(1 << 30)
print("seed", seed)
random.seed(seed)
directories = files = tensors = 0
for model in models:
    with tempfile.TemporaryDirectory() as folder:
        every = model == options.tales
        for form in DIRECTORIES if every else random.sample(DIRECTORIES, 4):
            path = os.path.join(folder, form)
            if quantize(model, path, form):
                check_directory(path)
                directories += 1
        if not gguf:
            continue
        path = os.path.join(folder, "f32.gguf")
        quantize(model, path, "f32")
        plain = {}
        for name, tensor in gguf_tensors(path).items():
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32, name
            plain[name] = np.array(tensor.data)
        for form in FILES if every else random.sample(FILES, 3):
            path = os.path.join(folder, form + "-again.gguf")
            if quantize(model, path, form):
                tensors += check_file(path, plain)
                files += 1
print(f"{len(models)} models: {directories} directories and {files} GGUF files agree, {tensors} tensors quantized by both")
assert directories > 5 and (files > 5 or not gguf)
