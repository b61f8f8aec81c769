#!/usr/bin/env python3
"""Measures how often the gate cries wolf and how often it finds what is wrong; its result stands in docs/proof.md.

  prove_gate.py --work DIR [--same 50] [--faults 20] [--baseline 10] [--out docs/proof.md]

Builds three programs in worktrees below DIR: the commit as it is, one whose decoding takes a tenth of the speed away (a busy wait inside
the timed window), one that writes every zero point of one linear one too high. Each then runs a small suite over and over on the demo
model, all in turn, so that drift of the machine falls on all alike; nothing is repeated or left out for being slow. Every run is compared
(bench compare) with the directory of the --baseline runs of the unchanged program before it, as a nightly gate would. Runs that are there
already in DIR are kept, so that a stopped proof goes on. Meant for a machine that does other work too: the load is recorded.
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
    "speed": {"prefill": [32], "decode": [32], "budget_s": 1, "warmup": 1, "rounds": 1},
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
        "    if (strstr(module, \"layers.1.\") && strstr(module, \"v_proj\") && q->zeros)\n"
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
        return out
    env = dict(os.environ, BENCH_CACHE=str(work / f"cache-{kind}"))
    env.pop("OPENBLAS_CORETYPE", None)
    part = out.with_suffix(".part")
    part.unlink(missing_ok=True)
    command = [program, "run", "--suite", suite, "-o", part, "--threads", "1", "--quiet"]
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"prove_gate.py: {kind} run {number} failed: {done.stderr.strip()}")
    part.rename(out)
    return out


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


def summarize(results, args, context):
    lines = ["# The gate, tried", "", "Written by tools/prove_gate.py; docs/gate.md says what the gate decides by.", ""]
    lines += [f"{context}", ""]
    lines += ["| runs | of | exit 0 | exit 1 | exit 3 | rows judged | noisy | regressions that are none | fault found |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    names = {"same": "unchanged program (A/A)", "slow": "decode 10 % slower", "zero": "zero points of one linear off by one"}
    wanted = {"slow": "decode", "zero": "perplexity"}
    for kind in ("same", "slow", "zero"):
        mine = [r for r in results if r[0] == kind]
        codes = collections.Counter(r[1] for r in mine)
        rows = [row for r in mine for row in r[2]["rows"]]
        judged = sum(row["verdict"] in ("pass", "improvement", "regression", "inconclusive") for row in rows)
        noisy = sum(row["verdict"] == "noisy" for row in rows)
        bad = [row for row in rows if row["verdict"] in ("regression", "missing")]
        false = sum(not (kind in wanted and row["metric"].startswith(wanted[kind])) for row in bad)
        found = "–"
        if kind in wanted:
            found = sum(any(row["verdict"] == "regression" and row["metric"].startswith(wanted[kind]) for row in r[2]["rows"]) for r in mine)
            found = f"{found} of {len(mine)}"
        lines.append(f"| {names[kind]} | {len(mine)} | {codes[0]} | {codes[1]} | {codes[3]} | {judged} | {noisy} | {false} | {found} |")
    lines += ["", f"Each run was compared with the directory of the {args.baseline} unchanged runs before it, at the defaults of `bench compare`."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--same", type=int, default=50)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--baseline", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    work = args.work.resolve()
    (work / "runs").mkdir(parents=True, exist_ok=True)
    suite = work / "suite.json"
    suite.write_text(json.dumps(SUITE, indent=1))
    programs = {kind: build(work, kind) for kind in ("same", "slow", "zero")}
    runs = order(args.same, args.faults, args.baseline)
    began, loads, results, unchanged = time.time(), [], [], []
    for n, (kind, number) in enumerate(runs):
        loads.append(os.getloadavg()[0])
        path = measure(work, programs[kind], kind, number, suite)
        if len(unchanged) >= args.baseline:
            code, verdict = compare(work, programs["same"], unchanged[-args.baseline:], path)
            results.append((kind, code, verdict))
        if kind == "same":
            unchanged.append(path)
        print(f"{n + 1}/{len(runs)} {kind} {number}: load {loads[-1]:.1f}, exit {results[-1][1] if results else '-'}", flush=True)
    device = json.loads(unchanged[-1].read_text())["context"]
    host = device["devices"][0]["host"] if "host" in device["devices"][0] else device["devices"][0]
    context = (
        f"{len(runs)} runs on {host.get('cpu', 'an unnamed processor')} with {host.get('cores', os.cpu_count())} cores, of which a run used one, at "
        f"load averages from {min(loads):.1f} to {max(loads):.1f}, nice {os.nice(0)}, commit {device['program']['git']}, {device['created'][:10]}, "
        f"{(time.time() - began) / 60:.0f} minutes. Two cases (RTN 4 bits asymmetric, NF4) of the demo model: perplexity over 130 windows, prefill and "
        "decode with a budget of one second each, sizes and memory."
    )
    text = summarize(results, args, context)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
