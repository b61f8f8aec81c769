#!/usr/bin/env bash
# Runs the programs FOLDER/test_cuda_* without ctest, four at a time, each with a limit of its own, and counts single tests as
# tools/run_ctest.sh does: skipped ones are counted and said.
#   tools/run_gpu_tests.sh FOLDER LOGS [SECONDS]     SECONDS: a program's limit (80); LOGS keeps what each program wrote
# The last line is "N passed, N failed, N skipped". Exit 1 when one failed or ran out of time, or no program is there; 77 where
# there is no device (a few need none and pass).
set -uo pipefail
programs=$1 logs=$2 limit=${3:-80}
mkdir -p "$logs"
[ -n "$(ls "$programs"/test_cuda_* 2>/dev/null)" ] || { echo "no gpu test in $programs"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

# One that hangs shall not hide the others: each stops by itself.
# shellcheck disable=SC2016
ls "$programs"/test_cuda_* | xargs -P 4 -I{} bash -c 'name=$(basename "$1") from=$SECONDS
  timeout --kill-after=5 "$3" "$1" >"$2/$name.log" 2>&1; echo "$? $((SECONDS - from))" >"$2/$name.exit"' _ {} "$logs" "$limit"

for at in "$logs"/*.exit; do # as ctest's JUnit file
  name=$(basename "$at" .exit)
  read -r code seconds <"$at"
  case $code in 0) status=run ;; 77) status=notrun ;; *) status=fail ;; esac
  printf '\t<testcase name="%s" classname="gpu" time="%s" status="%s">\n' "$name" "$seconds" "$status"
  [ $status = notrun ] && printf '\t\t<skipped message="SKIP_RETURN_CODE=77"/>\n'
  printf '\t\t<system-out>'
  sed -e 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g' "$logs/$name.log"
  case $code in 124 | 137) echo "Assertion: it ended within $limit s" ;; esac
  printf '</system-out>\n\t</testcase>\n'
done >"$logs/tests.xml"
awk -v counts="$logs/counts" -f "$(dirname "$0")/count_tests.awk" "$logs/tests.xml"
read -r passed failed skipped _ <"$logs/counts"
rm -f "$logs"/*.exit "$logs/counts"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] || exit 1
if [ "$passed" = 0 ] || grep -q '^skipped: no CUDA device' "$logs"/*.log; then exit 77; fi
