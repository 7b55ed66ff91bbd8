#!/usr/bin/env python3
"""Models of random weights and random configurations, as transformers saves them: nibble's logits are its logits.

    random_transformers.py --tool logits_tool [--program nibble] [--rounds N] [--only NAME] [--seed N]

Every architecture that nibble has, with the settings of its configuration drawn by chance: heads, windows, kinds of layers,
rotary scaling, biases, activations, tied embeddings, weights of experts. Float32 on both sides. With --program also as the GGUF file that `nibble quantize` makes of
them, unless it says that the file could not hold them, and as the directory that it makes of that file, which transformers
opens too. Exits with 77 (skipped) when
transformers is missing.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile

import peers

parser = argparse.ArgumentParser()
parser.add_argument("--tool", required=True)
parser.add_argument("--program")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--only", default="")
parser.add_argument("--seed", type=int, help="as an earlier run printed it")
options = parser.parse_args()
peers.need("numpy", "torch", "transformers")
import numpy as np
import torch
import transformers
from random_models import MAKERS, logits_of, random_model, same

peers.draw_from(options.seed)


def compare_back(what, file, folder, ids, theirs):
    run = subprocess.run([options.program, "quantize", file, folder, "--format", "f32"], stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    if run.returncode != 0:
        print(what, run.stderr.decode().strip())
        return False
    good = same(what, options.tool, folder, ids, theirs)
    again = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    worst = np.abs(logits_of(again.eval(), ids) - theirs).max()
    if worst > 2e-4 * theirs.std():
        print(what, "in transformers: largest difference", worst)
    return good and worst <= 2e-4 * theirs.std()


def compare(make, folder):
    model = random_model(make)
    model.save_pretrained(folder)
    ids = [random.randrange(model.config.vocab_size) for _ in range(random.choice((1, 7, 40, 200)))]
    theirs = logits_of(model, ids)
    good = same(make.__name__, options.tool, folder, ids, theirs)
    if options.program:
        file = os.path.join(folder, "model.gguf")
        written = subprocess.run([options.program, "quantize", folder, file, "--format", "f32"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        if written.returncode == 0:
            good = same(make.__name__ + ".gguf", options.tool, file, ids, theirs) and good
            good = compare_back(make.__name__ + " out of GGUF", file, os.path.join(folder, "back"), ids, theirs) and good
        else:
            print(f"{make.__name__}.gguf: {written.stderr.decode().strip()}")
    if not good:
        print(model.config.to_json_string())
    return good


bad = 0
for _ in range(options.rounds):
    for make in MAKERS:
        if options.only in make.__name__:
            with tempfile.TemporaryDirectory() as folder:
                bad += not compare(make, folder)
print("differences:", bad)
sys.exit(bad > 0)
