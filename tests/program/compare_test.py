#!/usr/bin/env python3
"""bench/compare.py: what it makes of the rates that commands print, and what it says when there are none.

    compare_test.py COMPARE.PY PROGRAM
"""
import json
import os
import subprocess
import sys
import tempfile

compare, program = sys.argv[1:]


def run(*arguments):
    done = subprocess.run([sys.executable, compare, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


with tempfile.TemporaryDirectory() as folder:
    report = os.path.join(folder, "report.json")
    llama_bench = os.path.join(folder, "llama-bench.json")
    with open(llama_bench, "w") as out:
        json.dump([{"n_prompt": 16, "n_gen": 0, "avg_ts": 50.0}, {"n_prompt": 0, "n_gen": 8, "avg_ts": 4.0},
                   {"n_prompt": 16, "n_gen": 8, "avg_ts": 9.0}], out)
    patterns = ["--pattern", "fixed:prefill 16:p=([0-9.]+)", "--pattern", "fixed:decode 8:d=([0-9.]+)"]

    # A rate by a pattern beside one of another's JSON.
    status, printed, said = run("--rounds", "2", "--json", report, *patterns, "fixed=echo p=100.0 d=2",
                                f"peer=cat {llama_bench}")
    assert status == 0, said
    assert "prefill 16" in printed and "2.00 (2.00 to 2.00)" in printed and "0.50 (0.50 to 0.50)" in printed, printed
    with open(report) as stream:
        saved = json.load(stream)
    assert [line["measurement"] for line in saved["table"]] == ["prefill 16", "decode 8"], saved
    assert len(saved["rounds"]) == 2 and saved["rounds"][1]["peer"] == {"prefill 16": 50.0, "decode 8": 4.0}, saved

    # nibble's own.
    status, printed, said = run("--rounds", "1", f"nibble={program} bench -p 16 -n 8 --rounds 1 --json",
                                f"peer=cat {llama_bench}")
    assert status == 0 and "prefill 16" in printed and "decode 8" in printed, (printed, said)

    # What cannot be compared is said.
    status, _, said = run("a=false", "b=true")
    assert status != 0 and "a: false: exit status 1" in said, said
    status, _, said = run("a=echo no number", "b=true")
    assert status != 0 and "a: no rate found" in said and "no number" in said, said
    status, _, said = run("--rounds", "1", *patterns, "fixed=echo p=1 d=1", f"nibble={program} bench -p 24 -n 0 --rounds 1 --json")
    assert status != 0 and "no measurement is common to all" in said, said
    for wrong in (["a=true"], ["a=", "b=true"], ["--rounds", "0", "a=true", "b=true"],
                  ["--pattern", "c:x:y", "a=true", "b=true"]):
        assert run(*wrong)[0] == 2, wrong
print("ok")
