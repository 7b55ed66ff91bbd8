#!/usr/bin/env python3
"""bench/roofline.py: the table and the picture that it makes of what bench_kernels wrote.

    roofline_test.py ROOFLINE.PY
"""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

roofline = sys.argv[1]


def run(*arguments):
    done = subprocess.run([sys.executable, roofline, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def report(read, peak, rows):
    return {"context": {"processor": "abacus", "threads": "2", "read": str(read), "avx2/floats": str(peak),
                        "avx2/pairs": str(peak), "avx2/bytes": str(4 * peak)},
            "benchmarks": [{"name": f"avx2/{name}/real_time", "run_type": "iteration", "GB/s": bandwidth, "GFLOP/s": rate,
                            "read": read, "of_read": bandwidth / read} for name, bandwidth, rate in rows]
            + [{"name": "avx2/mxfp4/floats/1/real_time_mean", "run_type": "aggregate", "GB/s": 99.0, "GFLOP/s": 99.0}]}


with tempfile.TemporaryDirectory() as folder:
    paths = [os.path.join(folder, name) for name in ("a.json", "b.json")]
    out = os.path.join(folder, "roofline.md")
    for path, content in zip(paths, (
            report(40, 200, [("mxfp4/floats/narrow_scales/1", 30.0, 120.0), ("q8_0/bytes/128", 1.5, 400.0)]),
            report(50, 180, [("mxfp4/floats/narrow_scales/1", 40.0, 160.0), ("q8_0/bytes/8", 10.0, 150.0)]))):
        with open(path, "w") as stream:
            json.dump(content, stream)
    status, said = run("--results", paths[0], "--results", paths[1], out)
    assert status == 0, said
    with open(out) as stream:
        page = stream.read()
    # The best of both rounds: 40 of 50 GB/s; 150 of the 750 that 50 GB/s at 15 operations allow; 400 of 800.
    assert "| `mxfp4` | f32 | narrow | 40.0 | 80 % | – | – | – | – |" in page, page
    assert "| `q8_0` | int8 | any | – | – | 150 | 20 % | 400 | 50 % |" in page, page
    assert "abacus, 2 threads, best of 2 rounds" in page and "(roofline.svg)" in page, page
    picture = xml.etree.ElementTree.parse(os.path.join(folder, "roofline.svg"))
    circles = picture.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3, len(circles)
    places = {circle[0].text: (float(circle.get("cx")), float(circle.get("cy"))) for circle in circles}
    few, many = places["q8_0, 8 rows in int8: 150 GFLOP/s"], places["q8_0, 128 rows in int8: 400 GFLOP/s"]
    assert few[0] < many[0] and few[1] > many[1], places

    for wrong in ([out], ["--results", paths[0], "out.txt"], ["--results", paths[0], "bench", out]):
        status, said = run(*wrong)
        assert status == 2 and "were expected" in said, (wrong, said)
    status, said = run("/bin/false", out)
    assert status != 0 and "exit status 1" in said, said
