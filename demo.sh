#!/usr/bin/env bash
# Installs what is missing, builds, and runs the main job on the built-in demo model: one table, one JSON, the plots.
set -euo pipefail
cd "$(dirname "$0")"

tools/install_deps.sh run
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "building (about a minute on two cores)" >&2
# The preset names every option, and test.sh starts from it too: what is left out here is there again for the tests.
{ cmake --preset release -DBENCH_TESTS=OFF && cmake --build --preset release; } >"$log" 2>&1 || {
  cat "$log" >&2
  exit 1
}
out=${1:-demo-results}
mkdir -p "$out"
build/bin/bench run --suite demo -o "$out/demo.json" --plots "$out/plots"
echo
echo "result: $out/demo.json"
echo "plots:  $out/plots/*.svg, *.png"
