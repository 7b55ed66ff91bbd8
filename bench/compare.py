#!/usr/bin/env python3
"""How fast engines are beside one another: their benches run by turns, on this machine, in one go.

    compare.py [--rounds N] [--json FILE] [--pattern NAME:MEASURE:REGEX]... NAME=COMMAND NAME=COMMAND...

    compare.py 'nibble=nibble bench -m MODEL -p 512 -n 128 --rounds 1 --json' \\
               'peer=llama-bench -m MODEL.gguf -p 512 -n 128 -t 2 -r 1 -o json'

A neighbour or a warm processor slows down whoever runs just then, so that figures of different times say little. Here each
round runs every command once, the order turned from round to round, and engines are compared within the round: the ratio
that is printed is the median of the rounds, beside the least and the largest.

What a command prints is understood where it is the JSON of `nibble bench --json` or of `llama-bench -o json`. For any other,
--pattern says how to find a rate in tokens per second: the first group of REGEX, in what NAME prints, is that of MEASURE
("prefill 512", "decode 128"). MODEL and MODEL.gguf should hold the same weights: `nibble quantize` writes the one from the
other. Random weights of gpt-oss-20b's shape will do:

    bench_model --layers 8 --keep DIR; nibble quantize DIR MODEL.gguf -f mxfp4 --only experts
"""
import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys


def rates_of_nibble(report):
    rates = {}
    for result in report["results"]:
        name = f"{result['kind']} {result['tokens']}"
        if result["context"]:
            name += f" after {result['context']}"
        if result["sessions"] > 1:
            name += f", {result['sessions']} sessions"
        rates[name] = result["tokens_per_second"]
    return rates


def rates_of_llama_bench(report):
    rates = {}
    for result in report:
        prompt, decoded = result["n_prompt"], result["n_gen"]
        if bool(prompt) == bool(decoded):  # a mixture of both
            continue
        name = f"prefill {prompt}" if prompt else f"decode {decoded}"
        if result.get("n_depth"):
            name += f" after {result['n_depth']}"
        rates[name] = result["avg_ts"]
    return rates


def rates_of(printed, patterns):
    """{measurement: tokens per second} of what a command printed."""
    if patterns:
        found = {measure: re.search(pattern, printed) for measure, pattern in patterns.items()}
        return {measure: float(match.group(1)) for measure, match in found.items() if match}
    try:
        report = json.loads(printed)
    except ValueError:
        return {}
    if isinstance(report, dict) and "results" in report:
        return rates_of_nibble(report)
    if isinstance(report, list) and report and "avg_ts" in report[0]:
        return rates_of_llama_bench(report)
    return {}


def run(name, command, patterns):
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"compare.py: {name}: {command}: exit status {done.returncode}\n{done.stderr.strip()}")
    rates = rates_of(done.stdout, patterns)
    if not rates:
        sys.exit(f"compare.py: {name}: no rate found in what it printed; --pattern says how to find one:\n"
                 f"{done.stdout.strip()[:2000]}")
    return rates


def table(names, rounds):
    """A line for each measurement that all engines have."""
    first, others = names[0], names[1:]
    lines = []
    for measure in rounds[0][first]:
        if not all(measure in one[name] for one in rounds for name in names):
            continue
        line = {"measurement": measure,
                "tokens_per_second": {name: statistics.median(one[name][measure] for one in rounds) for name in names},
                "ratios": {}}
        for name in others:
            ratios = [one[first][measure] / one[name][measure] for one in rounds]
            line["ratios"][name] = {"median": statistics.median(ratios), "least": min(ratios), "largest": max(ratios)}
        lines.append(line)
    return lines


def show(names, lines):
    first, others = names[0], names[1:]
    heads = ["tokens per second"] + names + [f"{first} / {name}" for name in others]
    rows = []
    for line in lines:
        row = [line["measurement"]] + [f"{line['tokens_per_second'][name]:.1f}" for name in names]
        row += ["{median:.2f} ({least:.2f} to {largest:.2f})".format(**line["ratios"][name]) for name in others]
        rows.append(row)
    widths = [max(len(row[i]) for row in [heads] + rows) for i in range(len(heads))]
    for row in [heads] + rows:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=COMMAND")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="the table and every rate of every round")
    parser.add_argument("--pattern", action="append", default=[], metavar="NAME:MEASURE:REGEX")
    options = parser.parse_args()
    engines = dict(engine.partition("=")[::2] for engine in options.engines)
    if len(engines) < 2 or not all(engines.values()) or options.rounds < 1:
        parser.error("two or more NAME=COMMAND and at least one round are needed")
    patterns = {name: {} for name in engines}
    for pattern in options.pattern:
        name, measure, regex = (pattern.split(":", 2) + ["", ""])[:3]
        if name not in engines or not regex:
            parser.error(f"--pattern {pattern}: NAME:MEASURE:REGEX with one of the engines' names was expected")
        patterns[name][measure] = regex

    names, rounds = list(engines), []
    for i in range(options.rounds):
        order = names[i % len(names):] + names[:i % len(names)]
        rounds.append({name: run(name, engines[name], patterns[name]) for name in order})
        print(f"round {i + 1} of {options.rounds}", file=sys.stderr)
    lines = table(names, rounds)
    if not lines:
        sys.exit("compare.py: no measurement is common to all: "
                 + "; ".join(f"{name} has {', '.join(rates)}" for name, rates in rounds[0].items()))
    show(names, lines)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"engines": engines, "table": lines, "rounds": rounds}, out, indent=1)


main()
