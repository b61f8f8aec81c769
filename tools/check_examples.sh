#!/usr/bin/env bash
# The examples of docs/gate.md do what they say: nightly.sh goes through nights with a bench that measures what it is told and
# compares for true; the steps of the CI files that call it are run as they stand there. Files are checked as far as the tools here
# can: sh, shellcheck, systemd-analyze, YAML (python3-yaml). BENCH_PROGRAM is the bench to try (build/bin/bench).
set -uo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${BENCH_PROGRAM:-build/bin/bench}")
[ -x "$program" ] || { echo "$program is not built"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0 left_out=""
wrong() { echo "wrong: $*"; bad=1; }

# ---- a bench whose suite takes no time: decode at $SPEED percent (at $SLOW_ONCE the first time), a perplexity of $LOSS, of 9 samples
cat >"$work/bench" <<END
#!/bin/sh
if [ "\$1" != run ]; then exec "$program" "\$@"; fi
echo "\$*" >>"$work/words"
[ -z "\${BROKEN:-}" ] || { echo "no model" >&2; exit 1; }
while [ \$# -gt 0 ]; do [ "\$1" = -o ] && out=\$2; shift; done
n=\$(cat "$work/n" 2>/dev/null || echo 0); n=\$((n + 1)); echo \$n >"$work/n"
if [ -n "\${SLOW_ONCE:-}" ] && [ ! -e "$work/slowed" ]; then SPEED=\$SLOW_ONCE; : >"$work/slowed"; fi
samples="" i=0
while [ \$i -lt 9 ]; do samples="\$samples\${samples:+,}\$(((100000 + i * 37 % 11 * 100 + n * 7 % 5 * 100) * \${SPEED:-100} / 100))"; i=\$((i + 1)); done
cat >"\$out" <<DOC
{"schema":"qb.results/2","context":{"program":{"name":"bench","version":"1"},"created":"2026-11-22T\$(printf %02d:%02d \$((6 + n / 50)) \$((10 + n % 50))):00Z","devices":[{"id":"d","cpu":"c","cores":2,"threads":2}]},
"cases":[{"id":"m/f16/cpu","status":"ok","error":null,"config":{},"device":"d","model":{"name":"m"},"metrics":[
{"name":"decode","value":\$(((100000 + n * 7 % 5 * 100) * \${SPEED:-100} / 100)),"unit":"tok/s","better":"higher","protocol":"tg128","status":"ok","samples":[\$samples]},
{"name":"perplexity","value":\${LOSS:-8.1},"unit":"1","better":"lower","protocol":"gptq-64","dataset":"demo","data_sha256":"\$(printf %064d 7)","status":"ok"}]}]}
DOC
END
chmod +x "$work/bench"
export BENCH=$work/bench NIGHTLY_DIR=$work/nights NIGHTLY_SUITE=some.json NIGHTLY_RUN="--only *4b*"

# night EXIT NEEDLE: a night of examples/nightly.sh. An empty needle: nothing is said at all.
night() {
  local code=0 out
  out=$(sh examples/nightly.sh 2>&1) || code=$?
  [ $code = "$1" ] || wrong "a night ended with $code, not $1: $out"
  if [ -z "$2" ]; then [ -z "$out" ] || wrong "a quiet night says: $out"; else grep -qF -e "$2" <<<"$out" || wrong "\"$2\" is not in: $out"; fi
}
count() { find "$NIGHTLY_DIR/$1" -name '*.json' 2>/dev/null | wc -l; }
night 0 ""
night 0 ""
night 0 ""
[ "$(count runs)" = 3 ] || wrong "three nights left $(count runs) runs"
grep -qF -e '--suite some.json --only *4b*' "$work/words" || wrong "NIGHTLY_RUN was not passed on: $(tail -n 1 "$work/words")"
SPEED=80 night 1 "decode tg128"
SPEED=80 night 1 "REGRESSION"
LOSS=8.4 night 1 "perplexity demo gptq-64"
[ "$(count runs)" = 3 ] && [ "$(count refused)" = 6 ] || wrong "a refused night is in the baseline, or no alarm was confirmed"
grep -q '<failure' "$NIGHTLY_DIR/report.xml" || wrong "report.xml names no failure"
grep -q 'REGRESSION' "$NIGHTLY_DIR/report.md" || wrong "report.md names no regression"
BROKEN=1 night 1 "no model"
SPEED=80 LOSS=8.4 night 1 "REGRESSION"
sh examples/nightly.sh --accept >"$work/said" 2>&1 || wrong "--accept: $(cat "$work/said")"
SPEED=80 LOSS=8.4 night 0 ""
[ "$(count runs)" = 3 ] && [ "$(count replaced)" = 3 ] || wrong "--accept left $(count runs) runs"
grep -q '<html' "$NIGHTLY_DIR/site/index.html" || wrong "the nights have no page"
[ "$("$program" history "$NIGHTLY_DIR/history.db" --json | grep -c '"2026-11-22T06:')" -ge 8 ] || wrong "the history lacks nights"
sh examples/nightly.sh --accpet >/dev/null 2>&1 && wrong "an unknown word is taken"
# A slowdown by the effect that matters, but too few samples to say so: measured again in the same night.
NIGHTLY_DIR=$work/unclear night 0 ""
n=$(cat "$work/n")
SPEED=94 NIGHTLY_COMPARE="--alpha 1e-9" NIGHTLY_DIR=$work/unclear night 3 "INCONCLUSIVE"
[ $(($(cat "$work/n") - n)) = 3 ] || wrong "an inconclusive night was measured $(($(cat "$work/n") - n)) times, not 3"
# A machine that is slow for one run is no alarm.
for _ in 1 2 3; do NIGHTLY_DIR=$work/busy night 0 ""; done
n=$(cat "$work/n")
SLOW_ONCE=80 NIGHTLY_TRIES=2 NIGHTLY_DIR=$work/busy night 3 "INCONCLUSIVE"
[ $(($(cat "$work/n") - n)) = 2 ] || wrong "an alarm was measured $(($(cat "$work/n") - n)) times, not twice"
rm "$work/slowed"
n=$(cat "$work/n")
SLOW_ONCE=80 NIGHTLY_DIR=$work/busy night 0 ""
[ $(($(cat "$work/n") - n)) = 3 ] || wrong "an alarm that was not confirmed was measured $(($(cat "$work/n") - n)) times, not 3"
if command -v flock >/dev/null; then
  (flock 9 && ! sh examples/nightly.sh 2>"$work/said") 9>"$NIGHTLY_DIR/lock" && grep -q 'another one is at work' "$work/said" ||
    wrong "two nights may run at once"
else
  left_out="$left_out flock"
fi

# ---- the files
for script in examples/*.sh; do sh -n "$script" || bad=1; done
if command -v shellcheck >/dev/null; then shellcheck examples/*.sh || bad=1; else left_out="$left_out shellcheck"; fi
if command -v systemd-analyze >/dev/null; then
  # What the units name is not installed here: their words are checked, not that.
  said=$(systemd-analyze verify --man=no examples/systemd/*.service examples/systemd/*.timer 2>&1) || wrong "systemd-analyze: $said"
  [ -z "$said" ] || wrong "systemd-analyze: $said"
else
  left_out="$left_out systemd-analyze"
fi
grep -vE '^(#|$|[A-Z_]+=)' examples/cron/bench-nightly | while read -r line; do
  grep -qE '^([0-9*,/-]+ +){5}[a-z_][a-z0-9_-]* [^ ]' <<<"$line" || { echo "wrong: no line of a system crontab: $line"; exit 1; }
done || bad=1
if python3 -c 'import yaml' 2>/dev/null; then
  python3 - "$work" <<'END' || bad=1
import pathlib, sys, yaml
work = pathlib.Path(sys.argv[1])
blocks = []
for path in sorted(pathlib.Path("examples/github").glob("*.yml")):
    document = yaml.safe_load(path.read_text())
    assert {"name", True, "permissions", "jobs"} <= set(document), f"{path}: {set(document)}"  # YAML 1.1 reads "on" as true
    for name, job in document["jobs"].items():
        assert job["runs-on"] and job["timeout-minutes"], f"{path}: {name}"
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), f"{path}: {step}"
            assert "@v" in step.get("uses", "@v"), f"{path}: {step['uses']} names no version"
            blocks.append((path, step.get("name", ""), step.get("run", "")))
for path in sorted(pathlib.Path("examples/gitlab").glob("*.yml")):
    for name, job in yaml.safe_load(path.read_text()).items():
        assert job["stage"] and job["rules"] and job["artifacts"]["reports"]["junit"], f"{path}: {name}"
        blocks.append((path, "before", "\n".join(job["before_script"])))
        blocks.append((path, "script", "\n".join(job["script"])))
for number, (path, name, text) in enumerate(blocks):
    if text:
        (work / f"block-{number}.sh").write_text(f"# {path.name} {name}\n{text}\n")
END
  for block in "$work"/block-*.sh; do
    bash -n "$block" || bad=1
    if command -v shellcheck >/dev/null; then shellcheck -s bash -e SC2164 "$block" || bad=1; fi
  done
  # gate_step FILE EXIT: a step as GitHub (bash -e) and GitLab (sh -e) run it.
  gate_step() {
    local code=0 out
    out=$(GITHUB_STEP_SUMMARY=$work/summary bash -e "$1" 2>&1) || code=$?
    [ $code = "$2" ] || wrong "$(head -n 1 "$1") ended with $code, not $2: $out"
  }
  gate=$(grep -l '^# nightly.yml Gate' "$work"/block-*.sh) lab=$(grep -l '^# nightly.gitlab-ci.yml script' "$work"/block-*.sh)
  export NIGHTLY_DIR=$work/ci
  gate_step "$gate" 0
  SPEED=80 gate_step "$gate" 1
  grep -q REGRESSION "$work/summary" || wrong "the step's summary does not tell"
  SPEED=94 NIGHTLY_COMPARE="--alpha 1e-9" NIGHTLY_TRIES=1 gate_step "$gate" 0
  gate_step "$lab" 0
  SPEED=94 NIGHTLY_COMPARE="--alpha 1e-9" NIGHTLY_TRIES=1 gate_step "$lab" 3
  SPEED=70 gate_step "$lab" 1
  SPEED=70 ACCEPT=1 gate_step "$lab" 0
else
  left_out="$left_out python3-yaml"
fi
for name in examples/*/* examples/*.sh; do
  grep -qF "$(basename "$name")" docs/gate.md || wrong "docs/gate.md does not name $name"
done
[ $bad = 0 ] && echo "the examples hold${left_out:+; without}${left_out}"
exit $bad
