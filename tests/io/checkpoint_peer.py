#!/usr/bin/env python3
"""Every weight of every model in the data folder, as the library decodes it and as numpy does.

    checkpoint_peer.py --data DIR --tool PATH

DIR holds models/*: Hugging Face directories, decoded here from the files' bytes by the formulas of the formats, and
GGUF files, decoded by the gguf package of PyPI. Each GGUF file is also written anew by the library and must be the same
to the gguf package; and random weights in every safetensors layout that the library writes must be to numpy, and to the
safetensors package, what they are to the library. Exits with 77 (skipped) when numpy or the data is missing; without gguf the GGUF files are skipped.
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
parser.add_argument("--tool", required=True)
options = parser.parse_args()
try:
    import numpy as np
except ImportError:
    print("skipped: the package numpy is not installed")
    sys.exit(77)
try:
    import gguf
except ImportError:
    gguf = None
from formulas import by_the_tool, compare, decode, read_directory
if not options.data:
    print("skipped: NIBBLE_TEST_DATA is not set")
    sys.exit(77)


models = sorted(os.path.dirname(path) for path in glob.glob(os.path.join(options.data, "models", "**", "config.json"), recursive=True))
assert models, options.data
formats = set()
for path in models:
    found = by_the_tool(options.tool, path)
    formats |= {form for form, kind, values in found.values()}
    count = compare(path, decode(read_directory(path), json.load(open(os.path.join(path, "config.json")))), found)
    print(f"{os.path.relpath(path, options.data)}: {count} values agree")
print("formats:", ", ".join(sorted(formats)))


# --- what the library writes

try:
    import safetensors
except ImportError:
    safetensors = None
seed = random.randrange(1 << 30)
print("seed", seed)
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([options.tool, "write", folder, str(seed)], check=True)
    written = sorted(os.listdir(folder), key=int)
    for path in (os.path.join(folder, name) for name in written):
        stored, config = read_directory(path), json.load(open(os.path.join(path, "config.json")))
        compare((seed, path), decode(stored, config), by_the_tool(options.tool, path))
        if safetensors:
            with safetensors.safe_open(os.path.join(path, "model.safetensors"), "numpy") as file:
                assert set(file.keys()) == set(stored), path
                for name, (dtype, shape, raw) in stored.items():
                    assert file.get_slice(name).get_shape() == shape, (path, name)
print(len(written), "written layouts agree")


# --- GGUF, decoded by the gguf package

def field_value(field):
    return field.contents()


def read_gguf(path):
    reader = gguf.GGUFReader(path)
    pairs = {name: (field.types, field_value(field)) for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    values = {}
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        values[tensor.name] = (gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(float), 2e-7)
    return pairs, values


files = sorted(glob.glob(os.path.join(options.data, "models", "**", "*.gguf"), recursive=True)) if gguf else []
if not gguf:
    print("skipped: the package gguf is not installed, GGUF files are not compared")
for path in files:
    pairs, values = read_gguf(path)
    count = compare(path, values, by_the_tool(options.tool, path))
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.gguf")
        subprocess.run([options.tool, "copy", path, copy], check=True)
        copied_pairs, copied_values = read_gguf(copy)
    assert copied_pairs == pairs, path
    for name, (value, tolerance) in values.items():
        assert np.array_equal(copied_values[name][0], value), (path, name)
    print(f"{os.path.relpath(path, options.data)}: {count} values agree, {len(pairs)} pairs, written and read back")
