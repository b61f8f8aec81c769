#!/usr/bin/env bash
# demo.sh and test.sh cannot spoil each other, and no run of tests passes that ran none or lost one. Needs cmake, ninja and
# cmocka; builds nothing.
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
wrong() { echo "wrong: $*"; bad=1; }

# ---- options: the words with which the two scripts configure, one after the other in one folder
words() { grep -oE 'cmake --preset [^&;}]*' "$1" | sed 's/"\$preset"/release/' | head -n 1; }
for script in demo.sh test.sh demo.sh test.sh; do
  line=$(words "$script")
  [ -n "$line" ] || { wrong "$script configures nothing"; continue; }
  # shellcheck disable=SC2086
  $line -B "$work/build" >"$work/log" 2>&1 || { tail -n 5 "$work/log"; wrong "$script: $line"; }
  n=$(ctest --test-dir "$work/build" -N 2>/dev/null | sed -n 's/^Total Tests: //p')
  case $script in
    demo.sh) grep -q '^BENCH_TESTS:.*=OFF$' "$work/build/CMakeCache.txt" || wrong "$script builds the tests" ;;
    test.sh) [ "${n:-0}" -ge 50 ] || wrong "after demo.sh, $script finds ${n:-0} tests" ;;
  esac
done
# Every option of the program stands in the presets' common part.
sed -n 's/^option(\(BENCH_[A-Z]*\) .*/\1/p; s/^set(\(BENCH_[A-Z]*\) .* CACHE .*/\1/p' CMakeLists.txt >"$work/options"
[ -s "$work/options" ] || wrong "CMakeLists.txt has no options"
while read -r option; do
  grep -q "\"$option\"" <(sed -n '/"name": "base"/,/} }/p' CMakePresets.json) || wrong "$option is not in the presets' base: it would leak from build to build"
done <"$work/options"

# ---- counting: tools/run_ctest.sh on programs whose end is known
expect() { # EXIT "N passed, N failed, N skipped" [NOTE]   of the programs in $work/t
  local code=0 out
  rm -f "$work/junit"
  out=$(JUNIT=$work/junit JUNIT_SUITE='a "suite"' CTEST_PARALLEL_LEVEL=4 tools/run_ctest.sh "$work/t" 2>&1) || code=$?
  [ "$(tail -n 1 <<<"$out")" = "$2" ] && [ "$code" = "$1" ] || wrong "expected exit $1 and \"$2\", found $code and: $out"
  [ -z "${3:-}" ] || grep -qF -e "$3" <<<"$out" || wrong "expected \"$3\" in: $out"
  # The same counts, case by case, as JUnit.
  if command -v python3 >/dev/null && [ -e "$work/junit" ]; then
    python3 - "$work/junit" "$2" <<'END' || wrong "$(cat "$work/junit")"
import sys, xml.etree.ElementTree as xml
root = xml.fromstring("<testsuites>" + open(sys.argv[1]).read() + "</testsuites>")
cases = root.findall("testsuite/testcase")
bad, skip = (sum(c.find(name) is not None for c in cases) for name in ("failure", "skipped"))
assert f"{len(cases) - bad - skip} passed, {bad} failed, {skip} skipped" == sys.argv[2], sys.argv[2]
for suite in root:
    inside = suite.findall("testcase")
    counts = [len(inside)] + [sum(c.find(name) is not None for c in inside) for name in ("failure", "skipped")]
    assert counts == [int(suite.get(name)) for name in ("tests", "failures", "skipped")], suite.attrib
    assert suite.get("name").startswith('a "suite": ') and float(suite.get("time")) >= 0, suite.attrib
    assert all(c.get("classname") and c.get("name") for c in inside), suite.attrib
END
  fi
}
program() { # NAME SHELL_COMMAND [PROPERTY VALUE]
  printf '%s\n' "$2" >"$work/t/$1.sh"
  echo "add_test($1 \"/bin/sh\" \"$work/t/$1.sh\")" >>"$work/t/CTestTestfile.cmake"
  [ -z "${3:-}" ] || echo "set_tests_properties($1 PROPERTIES $3 $4)" >>"$work/t/CTestTestfile.cmake"
}
begin() { rm -rf "$work/t"; mkdir "$work/t"; : >"$work/t/CTestTestfile.cmake"; }
two='echo "[==========] tests: Running 2 test(s)."'

begin; expect 1 "0 passed, 1 failed, 0 skipped" "no test ran"
rm -rf "$work/t"; mkdir "$work/t"; expect 1 "0 passed, 1 failed, 0 skipped"
rm -rf "$work/t"; expect 1 "0 passed, 1 failed, 0 skipped"
begin
program good "$two; echo '[       OK ] good__a'; echo '[       OK ] good__b'"
program skips "$two; echo '[       OK ] skips__a'; echo 'skipped: <no & device>'; echo '[  SKIPPED ] skips__b'
  echo '[  SKIPPED ] 1 test(s), listed below:'; echo '[  SKIPPED ] skips__b'"
program bare "exit 0"
program absent "exit 77" SKIP_RETURN_CODE 77
expect 0 "4 passed, 0 failed, 2 skipped" "skipped: <no & device>"
program lost "$two; echo '[       OK ] lost__a'"
expect 1 "5 passed, 1 failed, 2 skipped" "announced 2 tests, reported 1"
program fails "$two; echo '[       OK ] fails__a'; echo '[  ERROR   ] --- 1 != 2'; echo '[  FAILED  ] fails__b'
  echo '[  FAILED  ] tests: 1 test(s), listed below:'; echo '[  FAILED  ] fails__b'; exit 1"
expect 1 "6 passed, 2 failed, 2 skipped" "--- 1 != 2"
program dies "$two; echo '[       OK ] dies__a'; kill -SEGV \$\$"
program hangs "sleep 20" TIMEOUT 1
echo 'add_test(missing "/nonexistent")' >>"$work/t/CTestTestfile.cmake"
expect 1 "7 passed, 5 failed, 2 skipped" "/nonexistent"
# Names that are not C's, and one that is a single word.
begin
program names "$two; echo '[       OK ] bloom-6.heads'; echo '[  FAILED  ] phi'; echo '[  FAILED  ] names: 1 test(s), listed below:'
  echo '[  FAILED  ] phi'; echo '[  PASSED  ] 1 test(s).'; exit 1"
expect 1 "1 passed, 1 failed, 0 skipped"
# Names of several words that begin alike.
begin
program words "$two; echo '[       OK ] qwen2 sliding'; echo '[       OK ] qwen2 that does not slide'"
expect 0 "2 passed, 0 failed, 0 skipped"
program spoilt "$two; echo '[       OK ] a b'; echo '[  FAILED  ] a c'; echo '[  FAILED  ] tests: 1 test(s), listed below:'
  echo '[  FAILED  ] a c'; exit 1"
expect 1 "3 passed, 1 failed, 0 skipped"
# Two programs that write at once, and more than ctest keeps by default.
begin
for name in one two; do
  program $name "$two; i=0; while [ \$i -lt 3000 ]; do echo \"line \$i of some words to fill the output\"; i=\$((i + 1)); done
    echo '[       OK ] ${name}__a'; echo '[       OK ] ${name}__b'"
done
expect 0 "4 passed, 0 failed, 0 skipped"

# ---- the gpu tests without ctest: the same counting, of programs that end, skip, fail and hang
device() { printf '#!/bin/sh\n%s\n' "$2" >"$work/p/test_cuda_$1"; chmod +x "$work/p/test_cuda_$1"; }
gpu_tests() { # EXIT "N passed, N failed, N skipped" [NOTE]
  local code=0 out
  out=$(tools/run_gpu_tests.sh "$work/p" "$work/logs" 1 2>&1) || code=$?
  [ "$(tail -n 1 <<<"$out")" = "$2" ] && [ "$code" = "$1" ] || wrong "run_gpu_tests.sh: expected exit $1 and \"$2\", found $code and: $out"
  [ -z "${3:-}" ] || grep -qF -e "$3" <<<"$out" || wrong "run_gpu_tests.sh: expected \"$3\" in: $out"
  rm -rf "$work/logs"
}
mkdir "$work/p"
gpu_tests 1 "0 passed, 1 failed, 0 skipped" "no gpu test"
device good "$two; echo '[       OK ] good__a'; echo 'skipped: <no data>'; echo '[  SKIPPED ] good__b'"
gpu_tests 0 "1 passed, 0 failed, 1 skipped" "skipped: <no data>"
device none "echo 'skipped: no CUDA device: it is a lump of iron'; exit 77"
gpu_tests 77 "1 passed, 0 failed, 2 skipped" "a lump of iron"
rm "$work/p/test_cuda_none"
device hangs "$two; echo '[       OK ] hangs__a'; exec sleep 20"
gpu_tests 1 "2 passed, 1 failed, 1 skipped" "it ended within 1 s"
device dies "$two; echo '[       OK ] dies__a'; kill -SEGV \$\$"
gpu_tests 1 "3 passed, 2 failed, 1 skipped" "died"

# ---- the GPU check on a machine that only seems to have one: every step fails or skips, and the document is whole
mkdir -p "$work/nv" "$work/pre/bin"
cat >"$work/nv/nvidia-smi" <<'END'
#!/bin/sh
case "$*" in *compute_cap*) echo 9.0 ;; *) echo "Card, 1, 2 MiB" ;; esac
END
cat >"$work/pre/bin/bench" <<'END'
#!/bin/sh
case $1 in doctor) echo '{"ceilings": "\u0041"}' ;; speed) echo half; exec sleep 30 ;; *) exit 0 ;; esac
END
printf '#!/bin/sh\nexit 3\n' >"$work/pre/bin/bench_cuda"
chmod +x "$work"/nv/* "$work"/pre/bin/*
cp "$work/p/test_cuda_good" "$work/pre/bin/"
checked() { # EXIT SECONDS PYTHON_EXPRESSION over d, the document
  local code=0
  PATH="$work/nv:$PATH" tools/gpu_check.sh --prebuilt "$work/pre" --seconds "$2" --logs "$work/kept" "$work/gpu.json" >"$work/log" 2>&1 || code=$?
  [ $code = "$1" ] || { wrong "gpu_check.sh ended with $code, not $1"; cat "$work/log"; }
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); s = {x["name"]: x["status"] for x in d["steps"]}; assert eval(sys.argv[2]), d' "$work/gpu.json" "$3" 2>"$work/log" ||
    { wrong "gpu_check.json is not as expected"; tail -n 3 "$work/log"; }
}
if command -v python3 >/dev/null; then
  checked 1 10 'd["complete"] and not d["passed"] and d["ceilings"] == {"ceilings": "A"} and s["tests"] == "ok" and s["speed"] == "timeout" and s["gptq"] == "timeout" and s["memcheck"] in ("skipped", "ok")'
  grep -q '1 passed, 0 failed, 1 skipped' "$work/gpu.json" && grep -q 'skipped: <no data>' "$work/gpu.json" || wrong "gpu_check.json does not count the skipped tests"
  rm "$work/gpu.json" "$work/log" # of the run before
  PATH="$work/nv:$PATH" tools/gpu_check.sh --prebuilt "$work/pre" --seconds 600 --logs "$work/stopped" "$work/gpu.json" >"$work/log" 2>&1 &
  for _ in $(seq 1200); do # a busy machine takes its time
    grep -q half "$work/stopped/speed.out" 2>/dev/null && break
    sleep 0.1
  done
  kill -TERM $!
  wait $! && wrong "gpu_check.sh ends well when it is stopped"
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert not d["complete"] and not d["passed"] and d["ceilings"] and "half" in d["speed"], d' "$work/gpu.json" || wrong "a stopped gpu_check.sh leaves no document"
  [ -s "$work/kept/tests/test_cuda_good.log" ] || wrong "gpu_check.sh --logs keeps no log of the tests"
fi

[ $bad = 0 ] && echo "the scripts hold"
exit $bad
