#!/usr/bin/env bash
# Static analysis with clang-tidy over the compile commands of build/. The checks stand in .clang-tidy.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || { echo "clang-tidy is not installed"; exit 77; }
[ -f build/compile_commands.json ] || { echo "build/ is not configured: run cmake --preset release"; exit 1; }
git ls-files 'base/*.c' 'hub/*.c' 'kernels/*.c' 'checkpoint/*.c' 'tokenizer/*.c' 'datasets/*.c' 'model/*.c' 'quant/*.c' 'adapter/*.c' 'eval/*.c' \
  'results/*.c' 'plots/*.c' 'bench/*.c' |
  grep -v '/simd_' | # the same loops three times over, which take minutes
  while read -r file; do # what this build compiles: not another processor's
    if grep -qF "/$file\"" build/compile_commands.json; then echo "$file"; fi
  done |
  xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet --warnings-as-errors='*' 2>/dev/null
