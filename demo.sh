#!/usr/bin/env bash
# Installs what is missing, builds, and runs the main job on the built-in demo model: one table, one JSON, the plots.
set -euo pipefail
cd "$(dirname "$0")"

tools/install_deps.sh run
cmake --preset release -DBENCH_TESTS=OFF >/dev/null
cmake --build --preset release -- -v0 >/dev/null 2>&1 || cmake --build --preset release
out=${1:-demo-results}
mkdir -p "$out"
build/bin/bench run --suite demo -o "$out/demo.json" --plots "$out/plots"
echo
echo "result: $out/demo.json"
echo "plots:  $out/plots/*.svg, *.png"
