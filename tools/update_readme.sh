#!/usr/bin/env bash
# Puts the tables of results/baselines/ into README.md, and their perplexity plots into docs/images/.
# Needs a release build and gnuplot.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p docs/images
# put NAME PLOT IMAGE: the table between the marks "<!-- NAME table: ... -->" and "<!-- /NAME table -->"
put() {
  build/bin/bench table "results/baselines/$1.json" --markdown >"$scratch/table.md"
  awk -v file="$scratch/table.md" -v name="$1" '
    index($0, "<!-- " name " table:") == 1 { print; print ""; while ((getline line < file) > 0) print line; print ""; skip = 1; next }
    index($0, "<!-- /" name " table") == 1 { skip = 0 }
    !skip { print }' README.md >"$scratch/README.md"
  cp "$scratch/README.md" README.md
  build/bin/bench plot "results/baselines/$1.json" --out "$scratch/$1" --quiet
  cp "$scratch/$1/$2.png" "docs/images/$3.png"
}
put demo perplexity-bits perplexity-bits
put smollm2 perplexity-bits smollm2-perplexity-bits
put seeds perplexity-bits-detail seeds-perplexity-bits
