#!/usr/bin/env python3
"""Records tests/golden/change_points.json: where Apache Otava sees change points in its own test data and in seeded series.

Needs (in a virtual environment): apache-otava (recorded with 0.8.0), and its source distribution unpacked for the data of its
tests (pip download apache-otava==0.8.0 --no-deps --no-binary :all:; tar xzf it).

  record_change_points_golden.py --sdist DIR --out tests/golden/change_points.json
"""
import argparse
import ast
import csv
import importlib.metadata
import json
import pathlib

import numpy as np
from otava.analysis import compute_change_points


def literal_series(path):
    """Every list of at least ten numbers that stands in a test's source, once each."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.List) or len(node.elts) < 10:
            continue
        try:
            values = ast.literal_eval(node)
        except ValueError:
            continue
        numbers = all(isinstance(v, (int, float)) for v in values)
        indexes = numbers and all(isinstance(v, int) for v in values) and values == sorted(values)
        if numbers and not indexes and values not in found:
            found.append(values)
    return found


def csv_columns(path):
    rows = [r for r in csv.reader(path.open()) if r and not r[0].startswith("#")]
    columns = []
    for column in zip(*rows):
        try:
            values = [float(v) for v in column[1:]]
        except ValueError:
            continue
        if values != sorted(values):
            columns.append((column[0], values))
    return columns


def series_of(sdist):
    for path in sorted((sdist / "tests").glob("*_test.py")):
        for i, values in enumerate(literal_series(path)):
            yield f"tests/{path.name} {i + 1}", values
    for path in sorted((sdist / "tests" / "resources").glob("*.csv")):
        for name, values in csv_columns(path):
            yield f"tests/resources/{path.name} {name}", values
    rng = np.random.default_rng(20)
    for steps in range(4):
        level = np.repeat(1 + 0.1 * rng.permutation(steps + 1), 30)
        yield f"seeded, {steps} steps", [round(float(v), 4) for v in level + rng.normal(0, 0.03, level.size)]
    yield "seeded, whole numbers", [int(v) for v in rng.integers(0, 4, 60) + np.repeat([0, 2], 30)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    series, seen = [], []
    for name, values in series_of(args.sdist):
        if values in seen or any(v != v for v in values):
            continue
        seen.append(values)
        runs = []  # each: window, level, least change, indexes
        for window in (10, 30, 50):
            for level in (0.2, 0.1, 0.01, 0.001, 0.00001):
                for least in (0.0, 0.05):
                    points, _ = compute_change_points(list(map(float, values)), window_len=window, max_pvalue=level, min_magnitude=least)
                    runs.append([window, level, least, [int(p.index) for p in points]])
        # All numbers of the points for one setting; for the others where they are says enough.
        points, _ = compute_change_points(list(map(float, values)), window_len=30, max_pvalue=0.01)
        numbers = [[int(p.index), float(p.stats.pvalue), float(p.stats.mean_1), float(p.stats.mean_2)] for p in points]
        series.append({"name": name, "values": values, "numbers": numbers, "runs": runs})
    versions = {m: importlib.metadata.version(m) for m in ("apache-otava", "numpy", "scipy")}
    source = "Series of Apache Otava's tests (Apache License 2.0, the Apache Software Foundation) and seeded ones of ours."
    text = json.dumps({"source": source, "versions": versions, "series": series}, separators=(",", ":"))
    args.out.write_text(text.replace('{"name"', '\n{"name"') + "\n")
    print(f"{len(series)} series, {sum(len(s['runs']) for s in series)} runs, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
