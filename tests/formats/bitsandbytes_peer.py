#!/usr/bin/env python3
"""Compares 4-bit blocks and double quantization with the bitsandbytes package, bit for bit on random tensors.

Exits 77 when the package is missing. What the package itself computes differently from machine to machine, the mean of
the scales, is handed to both sides; that it is the mean is checked. Its FP4 leaves open which of two equal zeros a code
is, so FP4 is compared by value. On a CPU the package looks the nearest of the 256 levels up in a table of 16 bits, which
in one case of a thousand is the second nearest; its GPU code and its code for other types search, and so do we: values
of float64 take that path.
"""
import argparse
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import bitsandbytes.functional as bnb
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def ask(tool, kind, blocksize, values, offset):
    count = values.size
    blocks = -(-count // blocksize)
    with tempfile.TemporaryDirectory() as folder:
        request, reply = os.path.join(folder, "request"), os.path.join(folder, "reply")
        with open(request, "wb") as out:
            out.write(np.array([kind, blocksize], np.int32).tobytes() + np.int64(count).tobytes())
            out.write(np.float32(offset).tobytes() + values.tobytes())
        subprocess.run([tool, request, reply], check=True)
        with open(reply, "rb") as answer:
            take = lambda dtype, n: np.frombuffer(answer.read(n * np.dtype(dtype).itemsize), dtype)
            return {
                "codes": take(np.uint8, count // 2),
                "absmax": take(np.float32, blocks),
                "nested_codes": take(np.uint8, blocks),
                "nested_absmax": take(np.float32, -(-blocks // 256)),
                "scales": take(np.float32, blocks),
                "values": take(np.float32, count),
                "map": take(np.float32, 256),
            }


def same(name, ours, theirs, what):
    theirs = np.ascontiguousarray(theirs).reshape(-1)
    if ours.tobytes() == theirs.tobytes():
        return 0
    bad = np.nonzero(ours.view(np.uint8 if ours.dtype == np.uint8 else np.uint32)
                     != theirs.view(np.uint8 if theirs.dtype == np.uint8 else np.uint32))[0]
    i = bad[0]
    print(f"{what}: {name} differs in {bad.size} of {ours.size} places, first at {i}: {ours[i]!r}, bitsandbytes {theirs[i]!r}")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    wrong = compared = 0
    for _ in range(arguments.rounds):
        for kind, name in ((0, "nf4"), (1, "fp4")):
            for blocksize in (32, 64, 128, 256, 512, 1024, 2048, 4096):
                count = blocksize * int(random.integers(2, 700 if blocksize <= 128 else 300 if blocksize < 1024 else 40))
                values = (random.standard_normal(count) * np.exp(random.standard_normal(count) * 0.5)).astype(np.float32)
                what = f"seed {arguments.seed}: {name}, blocksize {blocksize}, {count} values"
                tensor = torch.from_numpy(values.copy())
                packed, plain = bnb.quantize_4bit(tensor, blocksize=blocksize, quant_type=name)
                absmax = plain.absmax.numpy()
                _, state = bnb.quantize_4bit(tensor, blocksize=blocksize, quant_type=name, compress_statistics=True)
                offset = np.float32(state.offset.item())
                fast_codes = state.absmax.numpy().astype(np.int32)
                state.absmax, searched = torch.ops.bitsandbytes.quantize_blockwise.default(
                    (plain.absmax - state.offset).double(), state.state2.code, 256)
                moved = np.count_nonzero(fast_codes != state.absmax.numpy())
                if np.abs(fast_codes - state.absmax.numpy()).max() > 8 or moved > 3 + 0.01 * fast_codes.size:
                    print(f"{what}: {moved} of {fast_codes.size} codes are not those of the package's own table")
                    wrong += 1
                ours = ask(arguments.tool, kind, blocksize, values, offset)
                compared += 1
                wrong += same("absmax", ours["absmax"], absmax, what)
                if name == "nf4":
                    wrong += same("codes", ours["codes"], packed.numpy(), what)
                wrong += same("nested codes", ours["nested_codes"], state.absmax.numpy(), what)
                wrong += same("nested absmax", ours["nested_absmax"], searched.float().numpy(), what)
                wrong += same("map", ours["map"], state.state2.code.numpy(), what)
                scales = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
                wrong += same("scales", ours["scales"], scales.numpy().astype(np.float32), what)
                # The package's own multiplication, in f32; + 0.0 makes both zeros one.
                code = bnb.get_4bit_type(name, device="cpu").numpy()
                nibbles = np.stack([packed.numpy().reshape(-1) >> 4, packed.numpy().reshape(-1) & 15], 1).reshape(-1)
                values_back = code[nibbles] * np.repeat(scales.numpy().astype(np.float32), blocksize)
                wrong += same("values", ours["values"] + np.float32(0), values_back + np.float32(0), what)
                mean = absmax.astype(np.float64).mean()
                if abs(np.float64(offset) - mean) > 2e-6 * mean:
                    print(f"{what}: the offset {offset} is not the mean {mean}")
                    wrong += 1
    print(f"{compared} tensors compared with bitsandbytes, {wrong} differences")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
