#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for a few seconds over its seed corpus. Needs clang and its runtime.
#   tools/check_fuzz.sh [SECONDS]
# libFuzzer's own exit status of a finding is 77, which is a skip here: it is told to use another.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang >/dev/null || { echo "clang is not installed"; exit 77; }
seconds=${1:-8}
cmake --preset fuzz >/dev/null
targets=$(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
# shellcheck disable=SC2086
cmake --build --preset fuzz -j "$(nproc)" --target $targets >/dev/null
for target in $targets; do
  work=$(mktemp -d)
  cp tests/fuzz/corpus/"${target#fuzz_}"/* "$work"/
  echo "$target"
  (cd "$work" && "$OLDPWD/build-fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -error_exitcode=1 -verbosity=0 -print_final_stats=1 "$work" 2>&1 |
    grep -vE '^(INFO|#)' | tail -n 40)
  rm -rf "$work"
done
