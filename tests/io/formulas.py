"""Weights twice: as the library decodes them, by way of checkpoint_tool, and by the formulas of the formats, with numpy
alone, from the bytes of a directory's safetensors files."""
import json
import os
import struct
import subprocess

import numpy as np


def minifloat(exponent, mantissa, infinities):
    """The 256 values of an eight-bit floating-point number."""
    bias, table = 2 ** (exponent - 1) - 1, []
    for code in range(256):
        e, m = code >> mantissa & (1 << exponent) - 1, code & (1 << mantissa) - 1
        value = m * 2.0 ** (1 - bias - mantissa) if e == 0 else (1 + m / 2 ** mantissa) * 2.0 ** (e - bias)
        if infinities and e == (1 << exponent) - 1:
            value = float("inf") if m == 0 else float("nan")
        if not infinities and code & 127 == 127:
            value = float("nan")
        table.append(-value if code & 128 else value)
    return np.array(table)


E4M3, E5M2 = minifloat(4, 3, False), minifloat(5, 2, True)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def numbers(dtype, raw):
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(float)
    if dtype == "F8_E4M3":
        return E4M3[np.frombuffer(raw, "u1")]
    if dtype == "F8_E5M2":
        return E5M2[np.frombuffer(raw, "u1")]
    kind = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1"}[dtype]
    return np.frombuffer(raw, kind).astype(float)


def read_directory(path):
    """{name: (dtype, shape, bytes)} of all safetensors files that belong to the model."""
    index = os.path.join(path, "model.safetensors.index.json")
    files = sorted(set(json.load(open(index))["weight_map"].values())) if os.path.exists(index) else ["model.safetensors"]
    stored = {}
    for name in files:
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
        size = struct.unpack("<Q", data[:8])[0]
        for key, entry in json.loads(data[8:8 + size]).items():
            if key != "__metadata__":
                begin, end = entry["data_offsets"]
                stored[key] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return stored


def nibbles(raw, high_first):
    raw = np.frombuffer(raw, "u1")
    pair = (raw >> 4, raw & 15) if high_first else (raw & 15, raw >> 4)
    return np.stack(pair, axis=-1).reshape(-1)


def decode(stored, config):
    """{name: (values, tolerance)} by the formulas; what is no float is left out."""
    quantization = config.get("quantization_config") or {}
    out, used = {}, set()

    def take(name):
        used.add(name)
        dtype, shape, raw = stored[name]
        return numbers(dtype, raw).reshape(shape)

    for name, (dtype, shape, raw) in stored.items():
        if name.endswith("_blocks") or name.endswith(".blocks"):
            scales = name[:-len("blocks")] + "scales"
            values = E2M1[nibbles(raw, False)].reshape(shape[:-1] + [32])
            values = values * np.exp2(np.frombuffer(stored[scales][2], "u1").astype(float) - 127).reshape(shape[:-1] + [1])
            out[name[:-len("_blocks")]] = (values.reshape(shape[:-2] + [-1]), 0)
            used |= {name, scales}
        elif ".quant_state." in name:
            weight, state = name[:name.index(".quant_state.")], json.loads(raw)
            absmax = take(weight + ".absmax")
            if "nested_offset" in state:
                nested = np.repeat(take(weight + ".nested_absmax"), state["nested_blocksize"])[:absmax.size]
                table = take(weight + ".nested_quant_map").astype("f4")
                absmax = table[absmax.astype(int)] * nested.astype("f4") + np.float32(state["nested_offset"])
            codes = nibbles(stored[weight][2], True)
            count = int(np.prod(state["shape"]))
            values = take(weight + ".quant_map")[codes[:count]]
            values = values * np.repeat(absmax.astype(float), state["blocksize"])[:count]
            out[weight] = (values.reshape(state["shape"]), 0)
            used |= {name, weight}
        elif name.endswith(".SCB"):
            stem = name[:-len(".SCB")]
            out[stem + ".weight"] = (take(stem + ".weight") * take(name)[:, None] / 127, 1e-14)
            used.add(stem + ".weight_format")
        elif name.endswith("_packed"):
            base = name[:-len("_packed")]
            scales = np.repeat(take(base + "_scale"), 16, axis=-1)
            values = E2M1[nibbles(raw, False)].reshape(shape[:-1] + [-1]) * scales
            out[base] = (values / take(base + "_global_scale").reshape(-1)[0], 1e-14)
            used.add(name)
        elif name.endswith("_scale_inv"):
            weight, (rows, columns) = name[:-len("_scale_inv")], quantization["weight_block_size"]
            values = take(weight)
            grid = np.repeat(np.repeat(take(name), rows, axis=0), columns, axis=1)
            out[weight] = (values * grid[:values.shape[0], :values.shape[1]], 0)
        elif name.endswith("_scale") and stored.get(name[:-len("_scale")], [""])[0] in ("F8_E4M3", "I8"):
            out[name[:-len("_scale")]] = (take(name[:-len("_scale")]) * take(name).reshape(-1, 1), 0)
    for name, (dtype, shape, raw) in stored.items():
        if name not in used and dtype in ("F32", "F16", "BF16"):
            out[name] = (take(name), 0)
    return out


def by_the_tool(tool, path):
    """{name: (format, type, values)}; values is None for what is no weight."""
    run = subprocess.run([tool, "values", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.returncode == 0, (path, run.stderr.decode())
    out, at, tensors = run.stdout, 0, {}
    while at < len(out):
        end = out.index(b"\n", at)
        name, form, kind, shape = out[at:end].decode().split("\t")
        shape = [int(n) for n in shape.split("x")] if shape else []
        at, values = end + 1, None
        if form != "none":
            count = int(np.prod(shape, dtype=np.int64))
            values = np.frombuffer(out, "<f8", count, at).reshape(shape)
            at += 8 * count
        tensors[name] = (form, kind, values)
    return tensors


def compare(where, expected, found):
    weights = {name for name, (form, kind, values) in found.items() if values is not None}
    assert weights == set(expected), (where, weights ^ set(expected))
    for name, (values, tolerance) in expected.items():
        got = found[name][2]
        assert got.shape == values.shape, (where, name, got.shape, values.shape)
        close = np.abs(got - values) <= tolerance * np.abs(values)
        assert (close | (np.isnan(got) & np.isnan(values))).all(), (where, name, got, values)
    return sum(values.size for values, tolerance in expected.values())
