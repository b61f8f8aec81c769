#!/usr/bin/env bash
# Runs the ctest programs of a configured and built folder in parallel and counts their single tests.
#   tools/run_ctest.sh BUILD_FOLDER [CTEST_ARGUMENT...]
# Counted program by program from ctest's JUnit file, so that output of programs that run at once cannot mix. Each cmocka
# test counts; a program without cmocka lines counts as one by its exit status (77 is a skip where the program says so). A
# program that ends well and reports fewer tests than it announced has lost some, which is a failure; so is a run of no test.
# JUNIT=FILE gets <testsuite> elements with a case a single test, under the words of JUNIT_SUITE (test.sh puts them together).
# The last line is "N passed, N failed, N skipped"; exit 1 when one failed or none ran.
set -uo pipefail
build=$1
shift
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

code=0
ctest --test-dir "$build" --no-tests=error --output-junit "$log/junit.xml" --quiet --parallel "${CTEST_PARALLEL_LEVEL:-$(nproc)}" \
  --test-output-size-passed 16777216 --test-output-size-failed 16777216 "$@" >"$log/ctest" 2>&1 || code=$?
[ -s "$log/junit.xml" ] || { cat "$log/ctest"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

# Prints a line a program, "ok|FAILED|skipped PROGRAM passed failed skipped seconds note", the reasons of skips and what
# failed programs wrote.
awk -v counts="$log/counts" -v junit="${JUNIT:-}" -v suite="${JUNIT_SUITE:-}" -f "$(dirname "$0")/count_tests.awk" "$log/junit.xml"

read -r passed failed skipped programs <"$log/counts"
if [ $((passed + failed + skipped)) = 0 ]; then
  echo "no test ran in $build ($programs programs)"
  cat "$log/ctest"
  failed=1
elif [ "$code" != 0 ] && [ "$failed" = 0 ]; then
  echo "ctest itself ended with $code"
  cat "$log/ctest"
  failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
