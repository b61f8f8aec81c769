#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for a few seconds over its seed corpus. Needs clang and its runtime.
#   tools/check_fuzz.sh [SECONDS]
# libFuzzer's own exit status of a finding is 77, which is a skip here: it is told to use another.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang >/dev/null || { echo "clang is not installed"; exit 77; }
seconds=${1:-8}
cmake --preset fuzz -DBENCH_WERROR=ON >/dev/null
targets=$(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
# shellcheck disable=SC2086
cmake --build --preset fuzz -j "$(nproc)" --target $targets >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# one TARGET: its corpus and what it says lie in a folder of its own.
one() {
  local code=0
  mkdir -p "$work/$1/corpus"
  cp tests/fuzz/corpus/"${1#fuzz_}"/* "$work/$1/corpus"/
  (cd "$work/$1" && "$top/build-fuzz/bin/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -error_exitcode=1 -verbosity=0 -print_final_stats=1 \
    "$work/$1/corpus") >"$work/$1/said" 2>&1 || code=$?
  echo "$1$([ $code = 0 ] || echo " ended with $code")"
  grep -vE '^(INFO|#)' "$work/$1/said" | tail -n 40
  [ $code = 0 ]
}
export -f one
export work seconds top=$PWD
# shellcheck disable=SC2086
printf '%s\n' $targets | xargs -P "$(nproc)" -n 1 bash -c 'one "$0"'
