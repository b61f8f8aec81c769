#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test and check. The last line is "N passed, N failed, N skipped".
#   ./test.sh          everything
#   ./test.sh quick    the release build's tests only
set -uo pipefail
cd "$(dirname "$0")"

mode=${1:-all}
jobs=$(nproc)
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 skipped=0

# check NAME COMMAND...: one test; exit code 77 is a skip. Output is shown when it fails.
check() {
  local name=$1 code=0 start=$SECONDS
  shift
  "$@" >"$log/out" 2>&1 || code=$?
  case $code in
    0) passed=$((passed + 1)); echo "ok       $name ($((SECONDS - start)) s)" ;;
    77) skipped=$((skipped + 1)); echo "skipped  $name: $(tail -n 1 "$log/out")" ;;
    *) failed=$((failed + 1)); echo "FAILED   $name (exit $code)"; tail -n 60 "$log/out" ;;
  esac
  return 0
}

# suite NAME PRESET [LABEL...]: builds the preset and runs its ctest programs; each cmocka test counts.
suite() {
  local name=$1 preset=$2 build=$3 start=$SECONDS
  shift 3
  if ! { cmake --preset "$preset" -DBENCH_WERROR=ON && cmake --build --preset "$preset" -j "$jobs"; } >"$log/build" 2>&1; then
    failed=$((failed + 1))
    echo "FAILED   $name: build"
    grep -E 'error|FAILED|warning' "$log/build" | head -n 30 || tail -n 30 "$log/build"
    return 0
  fi
  echo "built    $name ($((SECONDS - start)) s)"
  start=$SECONDS
  local code=0
  (cd "$build" && ctest --output-on-failure --verbose "$@") >"$log/ctest" 2>&1 || code=$?
  local ok bad skip lost
  ok=$(grep -cE '\[       OK \]' "$log/ctest")
  # cmocka names a failed or skipped test at the test and again in its summary.
  bad=$(grep -oE '\[  FAILED  \] [a-z0-9]+_[A-Za-z0-9_]+' "$log/ctest" | sort -u | wc -l)
  skip=$(grep -oE '\[  SKIPPED \] [a-z0-9]+_[A-Za-z0-9_]+' "$log/ctest" | sort -u | wc -l)
  # Programs without cmocka lines (fuzz replays, crashes before a line was printed) count by their own exit code.
  ok=$((ok + $(grep -E ' Test +#[0-9]+: fuzz_[a-z_]+ .* Passed' "$log/ctest" | wc -l)))
  # A program of tests for a GPU skips as a whole where there is none.
  skip=$((skip + $(grep -cE ' Test +#[0-9]+: .*\*\*\*Skipped' "$log/ctest")))
  lost=$(grep -cE ' Test +#[0-9]+: .*\*\*\*(Failed|Exception|Timeout)' "$log/ctest")
  [ "$bad" -gt 0 ] || bad=$lost
  [ "$code" = 0 ] || [ "$bad" -gt 0 ] || bad=1
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
  echo "$name: $ok passed, $bad failed, $skip skipped ($((SECONDS - start)) s)"
  grep -E 'skipped: ' "$log/ctest" | sed -E 's/^[0-9]+: //' | sort | uniq -c | head -n 20
  if [ "$bad" -gt 0 ]; then
    grep -E '\[  (ERROR|FAILED) ' -A 4 "$log/ctest" | head -n 120
    grep -E 'runtime error|AddressSanitizer|LeakSanitizer|\*\*\*' -A 12 "$log/ctest" | head -n 120
  fi
  return 0
}

if ! tools/install_deps.sh test; then
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi

suite "tests (release)" release build
if [ "$mode" = all ]; then
  check "includes follow the arrows" tools/check_includes.sh
  check "format" tools/check_format.sh
  check "cppcheck" tools/check_cppcheck.sh
  check "clang-tidy" tools/check_tidy.sh
  check "result documents against the JSON Schema" tools/check_schema.sh
  check "demo" tools/check_demo.sh
  suite "tests (ASan, UBSan)" debug build-debug
  check "fuzzers, a few seconds each" tools/check_fuzz.sh
  check "CUDA build, kernels without spills" tools/check_ptxas.sh
  check "CUDA on a device" tools/check_gpu.sh
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
