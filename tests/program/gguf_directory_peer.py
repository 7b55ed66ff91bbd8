#!/usr/bin/env python3
"""What `nibble quantize` makes of the GGUF files of the data folder, beside the directories they were made from.

    gguf_directory_peer.py --program nibble [--data DIR]

Another program converted those directories. By the formulas of the formats every tensor comes back: exactly out of a file
that is not quantized, out of q8_0 within the step of its group; and MXFP4 to the byte. Where transformers is installed, its
AutoConfig says of both directories what the model computes with, and its AutoTokenizer finds the same ids and, in a file
with a chat template, the same text. Exits with 77 (skipped) when numpy or the data is missing.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
parser.add_argument("--program", required=True)
parser.add_argument("--tales", required=True)
options = parser.parse_args()
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "io"))
os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import numpy as np
except ImportError:
    print("skipped: the package numpy is not installed")
    sys.exit(77)
try:
    import transformers
except ImportError:
    transformers = None
    print("left out: the package transformers is not installed")
from formulas import decode, read_directory

# What a GGUF file has no key for, and no model computes with; and what classes fill in by themselves.
UNSAID = {"_name_or_path", "dtype", "torch_dtype", "quantization_config", "router_aux_loss_coef", "experts_per_token",
          "initial_context_length", "transformers_version"}
TEXTS = ["Once upon a time", " a  b\n\nc\t12345 don't", "<|endoftext|>x<|begin_of_text|>", "café 日本語 🙂", ""]


def quantize(model, out, form):
    run = subprocess.run([options.program, "quantize", model, out, "--format", form], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    assert run.returncode == 0, (model, form, run.stderr.decode())
    return out


def config_of(path):
    return json.load(open(os.path.join(path, "config.json")))


def close(ours, theirs, quantized):
    """Whether q8_0 can have made the one of the other: a step is a 127th of the largest of 32 in a row, rounded to f16, which
    127 of them feel. Rows that are no whole groups are f16 there, whose smallest number is 2^-24."""
    if not quantized or ours.ndim < 2:
        return (ours == theirs).all()
    if ours.shape[-1] % 32 != 0:
        return (np.abs(ours - theirs) <= 2.0 ** -25).all()
    groups = [values.reshape(-1, 32) for values in (ours, theirs)]
    step = np.abs(groups[1]).max(axis=1, keepdims=True) / 127
    return (np.abs(groups[0] - groups[1]) <= (0.5 + 127 / 2048 + 1e-6) * step).all()


def compare_tensors(found, model, quantized):
    ours, theirs = decode(read_directory(found), config_of(found)), decode(read_directory(model), config_of(model))
    assert set(ours) == set(theirs), (found, set(ours) ^ set(theirs))
    for name, (values, _) in theirs.items():
        got = ours[name][0]
        if config_of(found)["model_type"] == "gpt_oss" and name.endswith("_proj"):  # [out, in] in MXFP4
            got = got.swapaxes(1, 2)
        assert got.shape == values.shape, (found, name, got.shape, values.shape)
        assert close(got, values, quantized), (found, name)
    return len(theirs)


def compare_mxfp4(found, model):
    """To the byte."""
    ours, theirs, count = read_directory(found), read_directory(model), 0
    for name, entry in theirs.items():
        if name.endswith(("_blocks", "_scales")):
            assert ours[name][0] == entry[0] and ours[name][1:] == entry[1:], (found, name)
            count += 1
    assert count > 0, found
    return count


def compare_in_transformers(found, model):
    a, b = (transformers.AutoConfig.from_pretrained(path) for path in (found, model))
    assert type(a) is type(b), (found, type(a), type(b))
    said, expected = a.to_dict(), b.to_dict()
    for key, value in expected.items():
        if key not in UNSAID and value is not None:
            assert said.get(key) == value, (found, key, said.get(key), value)
    a, b = (transformers.AutoTokenizer.from_pretrained(path) for path in (found, model))
    assert len(a) == len(b), (found, len(a), len(b))
    for text in TEXTS:
        assert a(text)["input_ids"] == b(text)["input_ids"], (found, text)
        assert a.decode(a(text)["input_ids"]) == b.decode(b(text)["input_ids"]), (found, text)
    for name in ("bos_token", "eos_token", "pad_token"):
        if getattr(b, name) is not None:
            assert getattr(a, name) == getattr(b, name), (found, name)
    return a, b


with tempfile.TemporaryDirectory() as folder:
    # The story model has a chat template.
    file = quantize(options.tales, os.path.join(folder, "tales.gguf"), "mxfp4")
    tales = quantize(file, os.path.join(folder, "tales"), "mxfp4")
    compare_mxfp4(tales, options.tales)
    if transformers:
        chats = [tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
                 for tokenizer in compare_in_transformers(tales, options.tales)]
        assert chats[0] == chats[1] and "Hello" in chats[0], chats

files = sorted(glob.glob(os.path.join(options.data, "models", "*", "gguf", "*.gguf"))) if options.data else []
tensors = exact = 0
for file in files:
    model, quantized = os.path.dirname(os.path.dirname(file)), "q8_0" in file
    with tempfile.TemporaryDirectory() as folder:
        found = quantize(file, os.path.join(folder, "f32"), "f32")
        tensors += compare_tensors(found, model, quantized)
        if transformers:
            compare_in_transformers(found, model)
        if "quantization_config" in config_of(model):
            exact += compare_mxfp4(quantize(file, os.path.join(folder, "mxfp4"), "mxfp4"), model)
print(f"{len(files)} files: {tensors} tensors agree with what they were made from, {exact} of MXFP4 to the byte")
assert not options.data or tensors > 100
