#!/usr/bin/env python3
"""Measures how often the gate cries wolf and how often it finds what is wrong; its result stands in docs/proof.md.

  prove_gate.py --work DIR [--same 50] [--faults 20] [--baseline 10] [--slice SECONDS] [--judge BENCH] [--out docs/proof.md]

Builds three programs in worktrees below DIR: the commit as it is, one whose decoding takes a tenth of the speed away (a busy wait inside
the timed window), one that writes every zero point of one layer's linears one too high. Each then runs a small suite over and over on the
demo model, all in turn, so that drift of the machine falls on all alike; nothing is repeated or left out for being slow. Every run is
compared (bench compare) with the directory of the --baseline runs of the unchanged program before it, as a nightly gate would.

Measuring and judging are two steps. Runs that are there already in DIR are kept, so that a stopped proof goes on; --build stops behind the
builds, --slice stops once that many seconds have been measured, and the next call goes on. When all runs are there they are judged, by the
unchanged program or by --judge. Meant for a machine that does other work too: each run says the load that it met.
Needs what a build needs (tools/install_deps.sh), git and python3.
"""
import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUITE = {
    "name": "gate-proof",
    "summary": "what tools/prove_gate.py measures over and over",
    "models": ["demo"],
    "backends": ["cpu"],
    "methods": [{"method": "rtn", "bits": 4, "group_size": 128, "sym": False}, {"method": "nf4"}],
    "datasets": ["demo"],
    "protocols": ["gptq-256"],
    "metrics": ["perplexity", "speed", "memory"],
    "speed": {"prefill": [32], "decode": [32], "budget_s": 1, "warmup": 1, "rounds": 3},
}
# Each fault: file, the line it is put behind, what is put there.
FAULTS = {
    "slow": (
        "eval/timing.c",
        "    qb_status st = run_timed(t, t->runs, &seconds);\n",
        "    int64_t spin = qb_now_ns();\n"
        "    while (!t->prompt && (double)(qb_now_ns() - spin) * 1e-9 < seconds / 9) continue;\n"
        "    seconds += (double)(qb_now_ns() - spin) * 1e-9;\n",
    ),
    "zero": (
        "quant/driver.c",
        "    if (st != QB_OK) return qb_fail_prefix(st, \"%s\", module);\n",
        "    if (strstr(module, \"layers.1.\") && q->zeros)\n"
        "        for (int64_t i = 0; i < q->rows * q->n_groups; i++) q->zeros[i]++;\n",
    ),
}


def build(work, kind):
    tree = work / f"tree-{kind}"
    program = tree / "build" / "bin" / "bench"
    if program.exists():
        return program
    if not tree.exists():
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), "HEAD"], check=True, capture_output=True)
    if kind in FAULTS:
        name, line, fault = FAULTS[kind]
        text = (tree / name).read_text()
        if text.count(line) != 1:
            sys.exit(f"prove_gate.py: {name} does not hold the line once that the fault goes behind: {line.strip()}")
        (tree / name).write_text(text.replace(line, line + fault))
    subprocess.run(["cmake", "--preset", "release", "-DBENCH_TESTS=OFF"], cwd=tree, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", "--preset", "release", "--target", "bench"], cwd=tree, check=True, capture_output=True)
    return program


def order(same, faults, baseline):
    """Runs of the unchanged program, with the faulty ones spread evenly behind the first baseline."""
    runs = [("same", i) for i in range(baseline)]
    placed = 0
    for i in range(same):
        runs.append(("same", baseline + i))
        while placed < faults and placed * same < (i + 1) * faults:
            runs += [("slow", placed), ("zero", placed)]
            placed += 1
    return runs


def measure(work, program, kind, number, suite):
    out = work / "runs" / f"{kind}-{number:03}.json"
    if out.exists():
        return False
    env = dict(os.environ, BENCH_CACHE=str(work / f"cache-{kind}"))
    env.pop("OPENBLAS_CORETYPE", None)
    part = out.with_suffix(".part")
    part.unlink(missing_ok=True)
    command = [program, "run", "--suite", suite, "-o", part, "--threads", "1", "--quiet"]
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"prove_gate.py: {kind} run {number} failed: {done.stderr.strip()}")
    part.rename(out)
    return True


def measure_all(work, programs, runs, suite, seconds):
    """Whether all runs are there now."""
    began, took = time.monotonic(), 0.0
    for n, (kind, number) in enumerate(runs):
        start = time.monotonic()
        if seconds and start - began + took > seconds:  # the next run would end behind the slice
            print(f"{n} of {len(runs)} runs are there", flush=True)
            return False
        if measure(work, programs[kind], kind, number, suite):
            took = max(took, time.monotonic() - start)
            print(f"{n + 1}/{len(runs)} {kind} {number}: load {os.getloadavg()[0]:.1f}, {time.monotonic() - start:.1f} s", flush=True)
    return True


def compare(work, program, before, new):
    folder = work / "baseline"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in before:
        shutil.copy(path, folder)
    done = subprocess.run([str(program), "compare", str(folder), str(new), "--json"], capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        sys.exit(f"prove_gate.py: comparing {new} failed: {done.stderr.strip()}")
    return done.returncode, json.loads(done.stdout)


def judge_all(work, program, runs, baseline):
    results, unchanged = [], []
    for kind, number in runs:
        path = work / "runs" / f"{kind}-{number:03}.json"
        if len(unchanged) >= baseline:
            code, verdict = compare(work, program, unchanged[-baseline:], path)
            results.append((kind, code, verdict, path.name))
        if kind == "same":
            unchanged.append(path)
    return results


WANTED = {"slow": "decode", "zero": "perplexity"}
NAMES = {"same": "unchanged program (A/A)", "slow": "decode 10 % slower", "zero": "zero points of one layer off by one"}


def is_false(kind, row):
    return row["verdict"] in ("regression", "missing") and not (kind in WANTED and row["metric"].startswith(WANTED[kind]))


def is_found(kind, verdict):
    return any(row["verdict"] == "regression" and row["metric"].startswith(WANTED[kind]) for row in verdict["rows"])


def describe(runs, work):
    """Where the runs were made, from what they say themselves."""
    documents = [json.loads((work / "runs" / f"{kind}-{number:03}.json").read_text()) for kind, number in runs]
    devices = [d["context"]["devices"][0] for d in documents]
    loads = [d["load_average"] for d in devices]
    seconds = sum(c["seconds"] for d in documents for c in d["cases"])
    commits = ", ".join(sorted({d["context"]["program"]["git"] for d, (kind, _) in zip(documents, runs) if kind == "same"}))
    days = sorted({d["context"]["created"][:10] for d in documents})
    last = devices[-1]
    return (
        f"{len(runs)} runs on {last.get('cpu', 'an unnamed processor')} with {last.get('cores', os.cpu_count())} cores, of which a run used one, at "
        f"load averages from {min(loads):.1f} to {max(loads):.1f}, commit {commits}, {' and '.join(dict.fromkeys((days[0], days[-1])))}, "
        f"{seconds / 60:.0f} minutes of measuring. Two cases (RTN 4 bits asymmetric, NF4) of the demo model: perplexity over 130 windows, prefill and "
        f"decode with a budget of one second each in {SUITE['speed']['rounds']} rounds, sizes and memory."
    )


def summarize(results, baseline, context):
    lines = ["# The gate, tried", "", "Written by tools/prove_gate.py; docs/gate.md says what the gate decides by.", ""]
    lines += [f"{context}", ""]
    lines += ["| runs | of | exit 0 | exit 1 | exit 3 | rows judged | noisy | regressions that are none | fault found |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for kind in ("same", "slow", "zero"):
        mine = [r for r in results if r[0] == kind]
        codes = collections.Counter(r[1] for r in mine)
        rows = [row for r in mine for row in r[2]["rows"]]
        judged = sum(row["verdict"] in ("pass", "improvement", "regression", "inconclusive") for row in rows)
        noisy = sum(row["verdict"] == "noisy" for row in rows)
        false = sum(is_false(kind, row) for row in rows)
        found = f"{sum(is_found(kind, r[2]) for r in mine)} of {len(mine)}" if kind in WANTED else "–"
        lines.append(f"| {NAMES[kind]} | {len(mine)} | {codes[0]} | {codes[1]} | {codes[3]} | {judged} | {noisy} | {false} | {found} |")
    lines += ["", f"Each run was compared with the directory of the {baseline} unchanged runs before it, at the defaults of `bench compare`."]
    return "\n".join(lines) + "\n"


def tell_misses(results):
    """What a reader wants to look into: false alarms, and faults that were not found."""
    for kind, code, verdict, name in results:
        missed = kind in WANTED and not is_found(kind, verdict)
        for row in verdict["rows"]:
            if is_false(kind, row) or (missed and row["metric"].startswith(WANTED[kind])):
                p, change = row.get("p_adjusted"), row.get("change_pct")
                numbers = f"{change:+.2f} %" if change is not None else ""
                print(f"{name}: {'missed' if missed else 'false'}: {row['id']} {row['metric']} {row['verdict']} {numbers} p {p} {row.get('why') or ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--same", type=int, default=50)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--baseline", type=int, default=10)
    parser.add_argument("--build", action="store_true", help="stop behind the builds")
    parser.add_argument("--slice", type=float, default=0, metavar="SECONDS", help="measure no longer than this, and go on with the next call")
    parser.add_argument("--judge", type=pathlib.Path, metavar="BENCH", help="the program that compares, in place of the unchanged one")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    work = args.work.resolve()
    (work / "runs").mkdir(parents=True, exist_ok=True)
    suite = work / "suite.json"
    suite.write_text(json.dumps(SUITE, indent=1))
    programs = {kind: build(work, kind) for kind in ("same", "slow", "zero")}
    runs = order(args.same, args.faults, args.baseline)
    if args.build or not measure_all(work, programs, runs, suite, args.slice):
        return
    results = judge_all(work, args.judge.resolve() if args.judge else programs["same"], runs, args.baseline)
    text = summarize(results, args.baseline, describe(runs, work))
    print(text)
    tell_misses(results)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
