#!/bin/sh
# A nightly gate: measures a suite, compares it with the nights before, keeps both. Says nothing when nothing changed. The
# services beside this file call it. Settings are variables of the environment:
#   BENCH           the program (bench)
#   NIGHTLY_DIR     where everything lies (~/.local/state/bench-nightly)
#   NIGHTLY_SUITE   a suite's name or file (nightly)
#   NIGHTLY_RUN     more words for `bench run`, as --only 'gptq-4b*' (none); split at blanks
#   NIGHTLY_COMPARE more words for `bench compare`, as --speed-effect-pct 3 (none)
#   NIGHTLY_TRIES   how often a night is measured at most, all its runs judged together: again while it is inconclusive, and once more
#                   to confirm an alarm (3)
# In NIGHTLY_DIR: runs/ the nights that passed, the baseline of the next one; refused/ those that did not; history.db and site/ all
# of them over time; report.txt, report.md and report.xml (JUnit) the last comparison.
# usage: nightly.sh            exit codes: 0 nothing got worse, 1 a regression or no measurement, 3 inconclusive
#        nightly.sh --accept   a change was meant: the nights that were refused last are the new baseline, the old one is put aside
set -eu
bench=${BENCH:-bench} suite=${NIGHTLY_SUITE:-nightly} tries=${NIGHTLY_TRIES:-3}
dir=${NIGHTLY_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/bench-nightly}
case $# in 0) ;; *) [ "$*" = --accept ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; } ;; esac
mkdir -p "$dir"
cd "$dir"
mkdir -p runs refused
# One at a time: two that measure at once disturb each other.
exec 9>lock
if command -v flock >/dev/null; then flock -n 9 || { echo "nightly.sh: another one is at work in $dir" >&2; exit 1; }; fi
now=$(date -u +%Y%m%dT%H%M%SZ)
while [ -e "runs/$now-1.json" ] || [ -e "refused/$now" ] || [ -e "replaced/$now" ]; do # another of the same second
  sleep 1
  now=$(date -u +%Y%m%dT%H%M%SZ)
done

if [ "${1:-}" = --accept ]; then
  last=$(find refused -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
  [ -n "$last" ] || { echo "nightly.sh: no night was refused" >&2; exit 1; }
  mkdir -p replaced
  mv runs "replaced/$now"
  mv "$last" runs
  echo "the baseline is now what was refused as $last; the old one is in replaced/$now"
  exit 0
fi

# The words of the user's settings are split at blanks, and kept from the shell's globs.
set -f
rm -rf tonight
mkdir tonight
code=3 try=0
# A machine can be slow for a whole run: what one run says alone is measured once more before anybody is woken.
while { [ $code = 3 ] || { [ $code = 1 ] && [ $try = 1 ]; }; } && [ $try -lt "$tries" ]; do
  try=$((try + 1))
  # shellcheck disable=SC2086
  "$bench" run --suite "$suite" ${NIGHTLY_RUN:-} -q -o "tonight/$now-$try.json" >tonight/log 2>&1 || {
    [ -s "tonight/$now-$try.json" ] || { cat tonight/log >&2; echo "nightly.sh: the suite could not be measured" >&2; exit 1; }
  }
  "$bench" history add "tonight/$now-$try.json" --db history.db -q
  code=0
  if [ -n "$(find runs -name '*.json')" ]; then
    # shellcheck disable=SC2086
    "$bench" compare runs tonight ${NIGHTLY_COMPARE:-} --format junit -o report.xml -q >report.txt 2>&1 || code=$?
  else
    echo "the first night: nothing to compare with" >report.txt
  fi
done
rm -f tonight/log
if [ -n "$(find runs -name '*.json')" ]; then
  # shellcheck disable=SC2086
  "$bench" compare runs tonight ${NIGHTLY_COMPARE:-} --format markdown -q >report.md 2>/dev/null || true
else
  cp report.txt report.md
fi
case $code in
  2) cat report.txt >&2; exit 1 ;; # NIGHTLY_COMPARE is wrong: the night is measured again
  0 | 3) find tonight -name "*.json" -exec mv {} runs/ \; ;;
  *) mv tonight "refused/$now" ;;
esac
"$bench" history history.db -o site -q >/dev/null || echo "nightly.sh: the history's page could not be made" >&2
[ $code = 0 ] || cat report.txt
exit $code
