#!/usr/bin/env python3
"""Measures how often the gate cries wolf and how often it finds what is wrong; its result stands in docs/proof.md.

  prove_gate.py --work DIR [--same 50] [--faults 20] [--baseline 10] [--slice SECONDS] [--judge BENCH] [--out docs/proof.md]

Builds three programs in worktrees below DIR: the commit as it is, one whose decoding takes a tenth of the speed away (a busy wait inside
the timed window), one that writes every zero point of one layer's linears one too high. Each then runs a small suite over and over on the
demo model, all in turn, so that drift of the machine falls on all alike. Every run is a night: it is compared (bench compare) with the directory
of the --baseline runs of the unchanged program before it and, like examples/nightly.sh does, measured again where that is inconclusive
or an alarm; nothing else is repeated or left out for being slow.

Runs that are there already in DIR are kept, so that a stopped proof goes on; --build stops behind the builds, --slice stops once that many
seconds have been measured, and the next call goes on. --judge compares by another program than the unchanged one. Meant for a machine that
does other work too: each run says the load that it met.
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


def measure(work, program, kind, name, suite):
    """The document of that run, measured now where it is not there yet; and the seconds that took."""
    out, start = work / "runs" / f"{name}.json", time.monotonic()
    if out.exists():
        return out, 0.0
    env = dict(os.environ, BENCH_CACHE=str(work / f"cache-{kind}"))
    env.pop("OPENBLAS_CORETYPE", None)
    part = out.with_suffix(".part")
    part.unlink(missing_ok=True)
    command = [program, "run", "--suite", suite, "-o", part, "--threads", "1", "--quiet"]
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"prove_gate.py: {name} failed: {done.stderr.strip()}")
    part.rename(out)
    print(f"{name}: load {os.getloadavg()[0]:.1f}, {time.monotonic() - start:.1f} s", flush=True)
    return out, time.monotonic() - start


def compare(work, program, before, new):
    for name, paths in (("runs", before), ("tonight", new)):
        folder = work / name.replace("runs", "baseline")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in paths:
            shutil.copy(path, folder)
    done = subprocess.run([str(program), "compare", str(work / "baseline"), str(work / "tonight"), "--json"], capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        sys.exit(f"prove_gate.py: comparing {new} failed: {done.stderr.strip()}")
    return done.returncode, json.loads(done.stdout)


class Night:
    """What examples/nightly.sh does: one run; another when it is inconclusive, three at most; and when it alarms, once, to confirm."""

    def __init__(self, kind, number):
        self.kind, self.name = kind, f"{kind}-{number:03}"
        self.paths, self.codes, self.verdict = [], [], None

    def wants_more(self):
        if not self.codes:
            return not self.paths
        return len(self.codes) < TRIES and (self.codes[-1] == 3 or self.codes == [1])


def measure_all(args, programs, nights, suite):
    """Whether all nights are there now, measured and judged."""
    began, took, unchanged = time.monotonic(), 0.0, []
    judge = args.judge or programs["same"]
    for night in nights:
        before = unchanged[-args.baseline:]
        while night.wants_more():
            if args.slice and time.monotonic() - began + took > args.slice:  # the next run would end behind the slice
                print(f"stopped before {night.name}: {nights.index(night)} of {len(nights)} are there", flush=True)
                return False
            name = night.name + (f"-{len(night.paths) + 1}" if night.paths else "")
            path, seconds = measure(args.work, programs[night.kind], night.kind, name, suite)
            took = max(took, seconds)
            night.paths.append(path)
            if len(before) >= args.baseline:
                code, night.verdict = compare(args.work, judge, before, night.paths)
                night.codes.append(code)
        if night.kind == "same":
            unchanged.append(night.paths[0])
    return True


TRIES = 3
WANTED = {"slow": "decode", "zero": "perplexity"}
NAMES = {"same": "unchanged program (A/A)", "slow": "decode 10 % slower", "zero": "zero points of one layer off by one"}


def is_false(kind, row):
    return row["verdict"] in ("regression", "missing") and not (kind in WANTED and row["metric"].startswith(WANTED[kind]))


def is_found(kind, verdict):
    return any(row["verdict"] == "regression" and row["metric"].startswith(WANTED[kind]) for row in verdict["rows"])


def describe(nights):
    """Where the runs were made, from what they say themselves."""
    documents = [(night.kind, json.loads(path.read_text())) for night in nights for path in night.paths]
    devices = [d["context"]["devices"][0] for _, d in documents]
    loads = [d["load_average"] for d in devices]
    seconds = sum(c["seconds"] for _, d in documents for c in d["cases"])
    commits = ", ".join(sorted({d["context"]["program"]["git"] for kind, d in documents if kind == "same"}))
    days = sorted({d["context"]["created"][:10] for _, d in documents})
    last = devices[-1]
    return (
        f"{len(nights)} nights of {len(documents)} runs on {last.get('cpu', 'an unnamed processor')} with {last.get('cores', os.cpu_count())} cores, of which "
        f"a run used one, at load averages from {min(loads):.1f} to {max(loads):.1f}, commit {commits}, {' and '.join(dict.fromkeys((days[0], days[-1])))}, "
        f"{seconds / 60:.0f} minutes of measuring. Two cases (RTN 4 bits asymmetric, NF4) of the demo model: perplexity over 130 windows, prefill and "
        f"decode with a budget of one second each in {SUITE['speed']['rounds']} rounds, sizes and memory."
    )


def summarize(nights, baseline, context):
    lines = ["# The gate, tried", "", "Written by tools/prove_gate.py; docs/gate.md says what the gate decides by.", ""]
    lines += [f"{context}", ""]
    lines += ["| nights | of | exit 0 | exit 1 | exit 3 | measured again | rows judged | noisy | regressions that are none | fault found |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for kind in ("same", "slow", "zero"):
        mine = [n for n in nights if n.kind == kind and n.codes]
        codes = collections.Counter(n.codes[-1] for n in mine)
        again = sum(len(n.codes) > 1 for n in mine)
        rows = [row for n in mine for row in n.verdict["rows"]]
        judged = sum(row["verdict"] in ("pass", "improvement", "regression", "inconclusive") for row in rows)
        noisy = sum(row["verdict"] == "noisy" for row in rows)
        false = sum(is_false(kind, row) for row in rows)
        found = f"{sum(is_found(kind, n.verdict) for n in mine)} of {len(mine)}" if kind in WANTED else "–"
        lines.append(f"| {NAMES[kind]} | {len(mine)} | {codes[0]} | {codes[1]} | {codes[3]} | {again} | {judged} | {noisy} | {false} | {found} |")
    lines += ["", f"Each night was compared with the directory of the {baseline} unchanged nights' first runs before it, at the defaults of `bench compare`, and "]
    lines[-1] += f"measured again as examples/nightly.sh does: up to {TRIES} runs while it is inconclusive, a second one to confirm an alarm, all of its runs judged together."
    return "\n".join(lines) + "\n"


def tell_misses(nights):
    """What a reader wants to look into: false alarms, and faults that were not found."""
    for night in nights:
        missed = night.codes and night.kind in WANTED and not is_found(night.kind, night.verdict)
        if len(night.codes) > 1:
            print(f"{night.name}: exit codes {night.codes}")
        for row in night.verdict["rows"] if night.verdict else []:
            if is_false(night.kind, row) or (missed and row["metric"].startswith(WANTED[night.kind])):
                p, change = row.get("p_adjusted"), row.get("change_pct")
                numbers = f"{change:+.2f} %" if change is not None else ""
                print(f"{night.name}: {'missed' if missed else 'false'}: {row['id']} {row['metric']} {row['verdict']} {numbers} p {p} {row.get('why') or ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--same", type=int, default=50)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--baseline", type=int, default=10)
    parser.add_argument("--build", action="store_true", help="stop behind the builds")
    parser.add_argument("--slice", type=float, default=0, metavar="SECONDS", help="measure no longer than this, and go on with the next call")
    parser.add_argument("--judge", type=lambda p: pathlib.Path(p).resolve(), metavar="BENCH", help="the program that compares, in place of the unchanged one")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    work = args.work = args.work.resolve()
    (work / "runs").mkdir(parents=True, exist_ok=True)
    suite = work / "suite.json"
    suite.write_text(json.dumps(SUITE, indent=1))
    programs = {kind: build(work, kind) for kind in ("same", "slow", "zero")}
    nights = [Night(kind, number) for kind, number in order(args.same, args.faults, args.baseline)]
    if args.build or not measure_all(args, programs, nights, suite):
        return
    text = summarize(nights, args.baseline, describe(nights))
    print(text)
    tell_misses(nights)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
