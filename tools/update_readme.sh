#!/usr/bin/env bash
# Puts the table of results/baselines/demo.json into README.md, and its perplexity plot into docs/images/.
# Needs a release build and gnuplot.
set -euo pipefail
cd "$(dirname "$0")/.."
source_json=results/baselines/demo.json
table=$(mktemp -d)
trap 'rm -rf "$table"' EXIT
build/bin/bench table "$source_json" --markdown >"$table/table.md"
awk -v file="$table/table.md" '
  /^<!-- demo table:/ { print; print ""; while ((getline line < file) > 0) print line; print ""; skip = 1; next }
  /^<!-- \/demo table/ { skip = 0 }
  !skip { print }' README.md >"$table/README.md"
cp "$table/README.md" README.md
build/bin/bench plot "$source_json" --out "$table/plots" --quiet
mkdir -p docs/images
cp "$table/plots/perplexity-bits.png" docs/images/perplexity-bits.png
