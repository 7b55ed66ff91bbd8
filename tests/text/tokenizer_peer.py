#!/usr/bin/env python3
"""Random texts through every vocabulary of the data folder: nibble beside the tokenizers package of PyPI. Those of GGUF
files go through a tokenizer.json that nibble writes of them; there the package must also find the recorded ids.

    tokenizer_peer.py --tool PATH [--data DIR] [--count N] [--seed S]

PATH is the built text_tool. Every id must agree, with special tokens recognised, and what stands around a whole
text. Exits with 77 (skipped) when the package or the data is missing.
"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile

arguments = argparse.ArgumentParser()
arguments.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
arguments.add_argument("--tool", required=True)
arguments.add_argument("--count", type=int, default=500)
arguments.add_argument("--seed", type=int, default=None)
options = arguments.parse_args()
paths = sorted(glob.glob(os.path.join(options.data, "tokenizers", "*.tokenizer.json")) +
               glob.glob(os.path.join(options.data, "models", "*", "tokenizer.json")) +
               glob.glob(os.path.join(options.data, "tokenizers", "*.gguf")) +
               glob.glob(os.path.join(options.data, "models", "*", "gguf", "*.gguf")))
if not options.data or not paths:
    print("skipped: NIBBLE_TEST_DATA is not set")
    sys.exit(77)
try:
    import tokenizers
except ImportError:
    print("skipped: the package tokenizers is not installed")
    sys.exit(77)

seed = options.seed if options.seed is not None else random.randrange(1 << 30)
rng = random.Random(seed)
print("seed", seed)
tool = subprocess.Popen([options.tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def ours(request):
    tool.stdin.write(json.dumps(request) + "\n")
    tool.stdin.flush()
    return json.loads(tool.stdout.readline())


WORDS = ["Hello", "story", "dog", "café", "cafe\u0301", "naïve", "日本語", "한국어", "\u1112\u1161\u11ab", "🙂", "👩‍👩‍👧", "don't", "I'LL", "we'Re", "it'ſ",
         "1234", "3.14", "\n", "\r\n", "  ", "    ", "\t", "\u00a0", "\u3000", "\u2028", "...", "!?", "//", "{}", "ΑΒΓ", "привет", "עברית", "हिन्दी", "ไทย",
         "HTTPServer", "camelCase", "_x_", "▁", "<unk>", "ẹ́́", "\u0344", "Å", "ﬁ", "²", "Ⅷ", "ǅ", "ʰ", "\u200d", "\ufeff", "\x00", "\x7f"]
# The recorded ids of the GGUF vocabularies, by the end of the vectors' name.
RECORDED = {"gpt-2": "gpt-2", "llama-spm": "llama-2", "gpt-neox": "gpt-neox-20b"}


def recorded(path):
    name = os.path.basename(path).removeprefix("ggml-vocab-").removesuffix(".gguf")
    vectors = os.path.join(options.data, "tokenizers", "vectors", RECORDED.get(name, "") + ".jsonl")
    return [json.loads(line) for line in open(vectors, encoding="utf-8")] if os.path.exists(vectors) else []


failures = texts = vectors = 0
folder = tempfile.TemporaryDirectory()
for path in paths:
    written = os.path.join(folder.name, "tokenizer.json") if path.endswith(".gguf") else path
    opened = ours({"open": path, "write": written} if written != path else {"open": path})
    if "error" in opened:
        failures += 1
        print(path, opened)
        continue
    theirs = tokenizers.Tokenizer.from_file(written)
    # The package always finds special tokens.
    special = [token.content for token in theirs.get_added_tokens_decoder().values() if token.special]
    for vector in recorded(path) if written != path else []:
        if not vector["special"] and any(content in vector["text"] for content in special):
            continue
        if theirs.encode(vector["text"], add_special_tokens=False).ids != vector["ids"]:
            failures += 1
            print(path, "recorded:", vector["id"])
        vectors += 1
    around = theirs.encode("", add_special_tokens=True).ids
    if around != opened["opening"]:  # no file of the folder puts anything behind a text
        failures += 1
        print(path, "around a text: expected", around, "got", opened["opening"])
    specials = [token.content for token in theirs.get_added_tokens_decoder().values()]
    for _ in range(options.count):
        words = WORDS + rng.sample(specials, min(3, len(specials)))
        text = "".join(rng.choice(words) + rng.choice(["", " ", " ", "\n"]) for _ in range(rng.randrange(12)))
        expected, got = theirs.encode(text, add_special_tokens=False).ids, ours({"encode": text, "special": True})
        texts += 1
        if expected != got.get("ids"):
            failures += 1
            if failures <= 5:
                print(path, repr(text), "\n  expected", expected, "\n  got     ", got)
tool.stdin.close()
print(f"{len(paths)} vocabularies, {texts} texts, {vectors} recorded ones: {failures} differ")
sys.exit(1 if failures else 0)
