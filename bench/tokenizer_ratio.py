#!/usr/bin/env python3
"""How fast nibble tokenizes beside the tokenizers package of PyPI: one core each, one after the other.

    tokenizer_ratio.py BENCH TOKENIZER.JSON TEXT...

BENCH is the built bench_tokenizer. Prints megabytes of text per second of processor time of both and their ratio,
and the time to load the vocabulary.
"""
import json
import os
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402 (reads the environment)

bench, vocabulary, texts = sys.argv[1], sys.argv[2], sys.argv[3:]


def seconds(work, least=1.0):
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < least:
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


run = subprocess.run([bench, vocabulary, *texts, "--benchmark_filter=^(load$|encode with specials/)", "--benchmark_format=json"],
                     check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
ours = {row["name"]: row for row in json.loads(run.stdout)["benchmarks"]}
load = seconds(lambda: tokenizers.Tokenizer.from_file(vocabulary))
print(f"load: nibble {ours['load']['cpu_time'] / 1e3:.2f} s, tokenizers {load:.2f} s, ratio {load * 1e3 / ours['load']['cpu_time']:.2f}")
theirs = tokenizers.Tokenizer.from_file(vocabulary)
for path in texts:
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    size = len(text.encode())
    peer = size / seconds(lambda: theirs.encode(text, add_special_tokens=False)) / 1e6
    mine = size / ours["encode with specials/" + os.path.basename(path)]["cpu_time"] / 1e3  # the bench counts ms
    print(f"{os.path.basename(path)}: nibble {mine:.1f} MB/s, tokenizers {peer:.1f} MB/s, ratio {mine / peer:.1f}")
