#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test and check. The last line is "N passed, N failed, N skipped".
#   ./test.sh          everything
#   ./test.sh quick    the release build's tests only
# build/junit.xml holds every test and check as JUnit, for a CI to collect.
set -uo pipefail
cd "$(dirname "$0")"

mode=${1:-all}
case $mode in all | quick) ;; *) echo "usage: ./test.sh [quick]" >&2; exit 2 ;; esac
jobs=$(nproc)
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 skipped=0
rm -f build/junit.xml

# record NAME ok|skipped|failure SECONDS: a case of the checks, with what $log/out says unless it is ok.
record() {
  local words
  words=$(tail -n 60 "$log/out" | iconv -cs -f utf-8 -t utf-8 | tr -d '\000-\010\013\014\016-\037' | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g')
  {
    printf '    <testcase classname="checks" name="%s" time="%s">' "$1" "$3"
    [ "$2" = ok ] || printf '<%s>%s</%s>' "$2" "$words" "$2"
    printf '</testcase>\n'
  } >>"$log/checks"
}

# junit: puts what there is so far together in build/junit.xml.
junit() {
  mkdir -p build
  {
    echo '<?xml version="1.0" encoding="UTF-8"?>'
    echo '<testsuites name="QuantBench">'
    if [ -s "$log/checks" ]; then
      printf '  <testsuite name="checks" tests="%s" failures="%s" errors="0" skipped="%s">\n' \
        "$(grep -c '<testcase' "$log/checks")" "$(grep -c '<failure>' "$log/checks")" "$(grep -c '<skipped>' "$log/checks")"
      cat "$log/checks"
      echo '  </testsuite>'
    fi
    cat "$log"/*.junit 2>/dev/null
    echo '</testsuites>'
  } >build/junit.xml.new && mv build/junit.xml.new build/junit.xml
}

# check NAME COMMAND...: one test; exit code 77 is a skip. Output is shown when it fails.
check() {
  local name=$1 code=0 start=$SECONDS
  shift
  "$@" >"$log/out" 2>&1 || code=$?
  case $code in
    0) passed=$((passed + 1)); record "$name" ok $((SECONDS - start)); echo "ok       $name ($((SECONDS - start)) s)" ;;
    77) skipped=$((skipped + 1)); record "$name" skipped $((SECONDS - start)); echo "skipped  $name: $(tail -n 1 "$log/out")" ;;
    *) failed=$((failed + 1)); record "$name" failure $((SECONDS - start)); echo "FAILED   $name (exit $code)"; tail -n 60 "$log/out" ;;
  esac
  junit
}

# suite NAME PRESET BUILD_FOLDER [CTEST_ARGUMENT...]: builds the preset and runs its ctest programs in parallel; each cmocka test
# counts. The preset names every option, so that no earlier configuration of the folder leaks in.
suite() {
  local name=$1 preset=$2 build=$3 start=$SECONDS ok=0 bad=0 skip=0
  shift 3
  if ! { cmake --preset "$preset" -DBENCH_WERROR=ON && cmake --build --preset "$preset" -j "$jobs"; } >"$log/build" 2>&1; then
    failed=$((failed + 1))
    echo "FAILED   $name: build"
    { grep -E 'error|FAILED|warning' "$log/build" | head -n 30 | grep . || tail -n 30 "$log/build"; } | tee "$log/out"
    record "$name: build" failure $((SECONDS - start))
    junit
    return 0
  fi
  echo "built    $name ($((SECONDS - start)) s)"
  start=$SECONDS
  JUNIT=$log/$preset.junit JUNIT_SUITE=$name tools/run_ctest.sh "$build" "$@" >"$log/suite" 2>&1
  read -r ok bad skip < <(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log/suite")
  if [ -z "$ok" ] || [ $((ok + bad)) = 0 ]; then # a suite that says nothing, or ran nothing, has failed
    ok=0 bad=1 skip=${skip:-0}
    tail -n 30 "$log/suite" | tee "$log/out"
    record "$name: what it ran" failure $((SECONDS - start))
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
  junit
  sed '$d' "$log/suite"
  echo "$name: $ok passed, $bad failed, $skip skipped ($((SECONDS - start)) s)"
  return 0
}

if ! tools/install_deps.sh "$([ "$mode" = quick ] && echo quick || echo test)"; then
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi

suite "tests (release)" release build
if [ "$mode" = all ]; then
  check "the scripts of setting up and testing" tools/check_scripts.sh
  check "includes follow the arrows" tools/check_includes.sh
  check "documents that are named" tools/check_docs.sh
  check "format" tools/check_format.sh
  check "cppcheck" tools/check_cppcheck.sh
  check "clang-tidy" tools/check_tidy.sh
  check "result documents against the JSON Schema" tools/check_schema.sh
  check "demo" tools/check_demo.sh
  check "the pages in a browser" tools/check_report.sh build/bin/bench results/baselines/demo.json
  check "examples of nightly gates" tools/check_examples.sh
  check "packages" tools/check_package.sh
  # Two compilers' sanitizers: gcc's where clang's build does not reach (the shim of CUDA, and the unrolled loops of the kernels,
  # which take it many minutes) and on what stands nearest to these loops; clang's on all that it builds.
  suite "tests (gcc's ASan, UBSan)" debug build-debug \
    -R '^test_(cuda_.*_shim|shim|kernels_.*|activations|families|gptq|quant.*|qweight|threads|decoder|stacks)$'
  suite "tests (clang's ASan, UBSan)" fuzz build-fuzz
  check "fuzzers, a few seconds each" tools/check_fuzz.sh
  check "aarch64, under qemu" tools/check_aarch64.sh
  check "CUDA build, kernels without spills" tools/check_ptxas.sh
  check "CUDA's machine code in the loops that count" tools/check_sass.py
  check "CUDA on a device" tools/check_gpu.sh
  check "the bundle for GPU machines, in a bare system" tools/check_bundle.sh
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
