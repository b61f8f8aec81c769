#!/usr/bin/env bash
# Runs the built-in demo into a fresh folder and checks what a user must see: every case ok, perplexity in the order of the bits
# and above the entropy floor, GPTQ at or below RTN, every plot drawn. Needs the release build, gnuplot and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v gnuplot >/dev/null || { echo "gnuplot is not installed"; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export BENCH_CACHE="$out/cache"
build/bin/bench run --suite demo -o "$out/demo.json" --plots "$out/plots" --quiet
python3 - "$out" <<'PY'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
doc = json.loads((out / "demo.json").read_text())
cases = {}
for case in doc["cases"]:
    assert case["status"] == "ok", (case["id"], case["error"])
    row = next(m for m in case["metrics"] if m["name"] == "perplexity")
    config = case["config"]
    method = config.get("method") or "none"
    cases.setdefault(method, {})[config.get("bits") or 16] = row["value"]
    assert row["value"] > row["floor"] > 1, (case["id"], row["value"], row.get("floor"))
base = cases["none"][16]
for method in ("rtn", "gptq"):
    by_bits = cases[method]
    assert abs(by_bits[8] / base - 1) < 0.01, (method, by_bits[8], base)
    assert by_bits[8] < by_bits[4] < by_bits[3] < by_bits[2], (method, by_bits)
    assert base * 0.998 < by_bits[8], (method, by_bits, base)
for bits, value in cases["gptq"].items():
    assert value <= cases["rtn"][bits] * 1.002, (bits, value, cases["rtn"][bits])
plots = sorted(p.name for p in (out / "plots").iterdir())
assert len([p for p in plots if p.endswith(".svg")]) >= 8, plots
assert len([p for p in plots if p.endswith(".png")]) >= 8, plots
print(len(doc["cases"]), "cases in order;", len(plots), "plot files")
PY
