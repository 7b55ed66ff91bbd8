#!/usr/bin/env python3
"""Every matrix kernel against its ceiling: a table and a picture, from bench_kernels.

    roofline.py [--rounds N] [--filter REGEX] build/release/bench/bench_kernels OUT.md
    roofline.py --results FILE [--results FILE]... OUT.md

A kernel that multiplies few rows of activations reads weights: the memory's bandwidth is its ceiling. With many rows it
multiplies: the rate of its dot instruction is. Between both, whichever is lower (the "roof") at so many operations for a
byte of weights. OUT.md gets the table, OUT.svg beside it the picture.

bench_kernels runs once a round, and of all rounds the best counts, of floors and of kernels alike: neighbours on the machine
make either slower, never faster. --results takes what it wrote with --benchmark_out instead of running it.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

LAYOUTS = {
    "floats": ("f32", "#4c78a8"),
    "pairs": ("bf16", "#f58518"),
    "bytes": ("int8", "#54a24b"),
    "sums_of_floats": ("f32, sums by groups", "#72b7b2"),
    "sums_of_pairs": ("bf16, sums by groups", "#e45756"),
}


class Machine:
    """The best of all rounds: floors, and for each kernel {rows: (GB/s, GFLOP/s, share of the read rate beside it)}."""

    def __init__(self):
        self.read, self.processor, self.threads, self.rounds = 0.0, "", "", 0
        self.peaks, self.kernels = {}, {}

    def add(self, report):
        context = report["context"]
        self.rounds += 1
        self.processor, self.threads = context["processor"], context["threads"]
        self.read = max(self.read, float(context["read"]))
        for key, value in context.items():
            backend, _, layout = key.rpartition("/")
            if layout in LAYOUTS:
                self.peaks[backend, layout] = max(self.peaks.get((backend, layout), 0.0), float(value))
        for row in report["benchmarks"]:
            if row.get("run_type", "iteration") != "iteration" or "GB/s" not in row:
                continue
            backend, weights, layout, *scales, rows, _ = row["name"].split("/")
            kernel = self.kernels.setdefault((backend, layout, weights, scales[0] if scales else ""), {})
            self.read = max(self.read, row["read"])
            best, new = kernel.get(int(rows), (0.0, 0.0, 0.0)), (row["GB/s"], row["GFLOP/s"], row["of_read"])
            kernel[int(rows)] = tuple(map(max, best, new))

    def roof(self, backend, layout, intensity):
        return min(self.read * intensity, self.peaks[backend, layout])

    def backends(self):
        return list(dict.fromkeys(kernel[0] for kernel in self.kernels))


def percent(share):
    return f"{100 * share:.0f} %"


def table(machine, backend):
    lines = ["| weights | computed in | scales | 1 row: GB/s | of read | 8 rows: GFLOP/s | of roof | 128 rows: GFLOP/s | of peak |",
             "|---|---|---|--:|--:|--:|--:|--:|--:|"]
    for (owner, layout, weights, scales), rows in machine.kernels.items():
        if owner != backend:
            continue
        cells = [f"`{weights}`", LAYOUTS[layout][0], scales.replace("_scales", "") or "any"]
        for count in (1, 8, 128):
            if count not in rows:
                cells += ["–", "–"]
                continue
            bandwidth, rate, of_read = rows[count]
            if count == 1:
                cells += [f"{bandwidth:.1f}", percent(of_read)]
            elif count == 8:
                cells += [f"{rate:.0f}", percent(rate / machine.roof(backend, layout, rate / bandwidth))]
            else:
                cells += [f"{rate:.0f}", percent(rate / machine.peaks[backend, layout])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


class Axes:
    """A panel with logarithmic axes: operations for a byte of weights, and GFLOP/s."""
    WIDTH, HEIGHT, LEFT, TOP = 520, 330, 62, 44

    def __init__(self, x0, xs, ys):
        self.x0, self.xs, self.ys = x0, xs, ys

    def x(self, value):
        low, high = map(math.log10, self.xs)
        return self.x0 + self.LEFT + (math.log10(value) - low) / (high - low) * self.WIDTH

    def y(self, value):
        low, high = map(math.log10, self.ys)
        return self.TOP + self.HEIGHT - (math.log10(value) - low) / (high - low) * self.HEIGHT


def ticks(low, high):
    return [base * 10 ** power for power in range(-3, 7) for base in (1, 2, 5) if low <= base * 10 ** power <= high]


def panel(machine, backend, axes):
    out = [f'<text x="{axes.x(axes.xs[0])}" y="{axes.TOP - 16}" class="title">{backend}</text>']
    for tick in ticks(*axes.xs):
        out.append(f'<line x1="{axes.x(tick):.1f}" x2="{axes.x(tick):.1f}" y1="{axes.TOP}" y2="{axes.TOP + axes.HEIGHT}" class="grid"/>'
                   f'<text x="{axes.x(tick):.1f}" y="{axes.TOP + axes.HEIGHT + 16}" class="tick" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(*axes.ys):
        out.append(f'<line x1="{axes.x(axes.xs[0])}" x2="{axes.x(axes.xs[1])}" y1="{axes.y(tick):.1f}" y2="{axes.y(tick):.1f}" class="grid"/>'
                   f'<text x="{axes.x(axes.xs[0]) - 6}" y="{axes.y(tick) + 4:.1f}" class="tick" text-anchor="end">{tick:g}</text>')
    out.append(f'<text x="{axes.x(axes.xs[0]) + axes.WIDTH / 2}" y="{axes.TOP + axes.HEIGHT + 36}" class="tick" '
               'text-anchor="middle">operations for a byte of weights</text>')
    used = [layout for layout in LAYOUTS if any(kernel[:2] == (backend, layout) for kernel in machine.kernels)]
    for layout in used:
        peak, colour = machine.peaks[backend, layout], LAYOUTS[layout][1]
        corners = [(axes.xs[0], machine.roof(backend, layout, axes.xs[0])), (peak / machine.read, peak), (axes.xs[1], peak)]
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in corners)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
                   f'<text x="{axes.x(peak / machine.read) + 4:.1f}" y="{axes.y(peak) - 5:.1f}" class="tick" '
                   f'fill="{colour}">{LAYOUTS[layout][0]}: {peak:.0f} GFLOP/s</text>')
    for (owner, layout, weights, scales), rows in machine.kernels.items():
        if owner != backend:
            continue
        for count, (bandwidth, rate, _) in rows.items():
            name = f"{weights}, {count} rows in {LAYOUTS[layout][0]}{', ' + scales if scales else ''}: {rate:.0f} GFLOP/s"
            out.append(f'<circle cx="{axes.x(rate / bandwidth):.1f}" cy="{axes.y(rate):.1f}" r="3" fill="{LAYOUTS[layout][1]}" '
                       f'fill-opacity="0.65"><title>{name}</title></circle>')
    return out


def picture(machine):
    points = [(rate / bandwidth, rate) for rows in machine.kernels.values() for bandwidth, rate, _ in rows.values()]
    xs = (min(x for x, _ in points) / 1.3, max(x for x, _ in points) * 1.3)
    ys = (min(y for _, y in points) / 1.5, max(list(machine.peaks.values()) + [y for _, y in points]) * 1.5)
    step = Axes.LEFT + Axes.WIDTH + 24
    width, height = step * len(machine.backends()), Axes.TOP + Axes.HEIGHT + 52
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
           '<style>.grid{stroke:#ddd;stroke-width:.6}.tick{font-size:11px}.title{font-size:15px;font-weight:bold}</style>',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i, backend in enumerate(machine.backends()):
        out += panel(machine, backend, Axes(i * step, xs, ys))
    return "\n".join(out + ["</svg>"]) + "\n"


def page(machine, image):
    out = ["# Every matrix kernel against its ceiling", "",
           f"Made by `bench/roofline.py` on {machine.processor}, {machine.threads} threads, best of {machine.rounds} rounds. Memory is",
           f"read at {machine.read:.1f} GB/s at best. A matrix is 2880 x 2880, and there are as many as fill 512 MiB. Of read: packed",
           "bytes over those that all threads read of the same memory a moment later. Of peak: operations over the peak of the dot",
           "instruction that the kernel multiplies with. Of roof: over the lower of that and what the best bandwidth allows.", "",
           f"![GFLOP/s over operations for a byte of weights, one panel for each instruction set]({image})", ""]
    for backend in machine.backends():
        peaks = ", ".join(f"{machine.peaks[backend, layout]:.0f} in {LAYOUTS[layout][0]}" for layout in ("floats", "pairs", "bytes"))
        out += [f"## {backend}: {peaks} GFLOP/s", ""] + table(machine, backend) + [""]
    return "\n".join(out)


def measured(command):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "results.json")
        done = subprocess.run(command + [f"--benchmark_out={path}", "--benchmark_out_format=json"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"roofline.py: {' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        with open(path) as stream:
            return json.load(stream)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="?", metavar="bench_kernels")
    parser.add_argument("out", metavar="OUT.md")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filter", default=".", help="kernels whose names it finds (default: all)")
    parser.add_argument("--results", action="append", default=[], metavar="FILE")
    options = parser.parse_args()
    if bool(options.bench) == bool(options.results) or not options.out.endswith(".md") or options.rounds < 1:
        parser.error("either bench_kernels and at least one round, or --results; and OUT.md were expected")
    machine = Machine()
    for path in options.results:
        with open(path) as stream:
            machine.add(json.load(stream))
    for done in range(options.rounds if options.bench else 0):
        machine.add(measured([options.bench, f"--benchmark_filter={options.filter}", "--benchmark_min_time=0.05"]))
        print(f"round {done + 1} of {options.rounds}", file=sys.stderr)
    if not machine.kernels:
        sys.exit("roofline.py: no kernel was measured")
    image = options.out[:-3] + ".svg"
    with open(options.out, "w") as out:
        out.write(page(machine, os.path.basename(image)))
    with open(image, "w") as out:
        out.write(picture(machine))


if __name__ == "__main__":
    main()
