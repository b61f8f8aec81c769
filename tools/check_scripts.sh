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
  out=$(CTEST_PARALLEL_LEVEL=4 tools/run_ctest.sh "$work/t" 2>&1) || code=$?
  [ "$(tail -n 1 <<<"$out")" = "$2" ] && [ "$code" = "$1" ] || wrong "expected exit $1 and \"$2\", found $code and: $out"
  [ -z "${3:-}" ] || grep -qF -e "$3" <<<"$out" || wrong "expected \"$3\" in: $out"
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
# Two programs that write at once, and more than ctest keeps by default.
begin
for name in one two; do
  program $name "$two; i=0; while [ \$i -lt 3000 ]; do echo \"line \$i of some words to fill the output\"; i=\$((i + 1)); done
    echo '[       OK ] ${name}__a'; echo '[       OK ] ${name}__b'"
done
expect 0 "4 passed, 0 failed, 0 skipped"

[ $bad = 0 ] && echo "the scripts hold"
exit $bad
